"""What a Linux machine says of itself, read below its root."""

from __future__ import annotations

import os
from pathlib import Path

from fleet.capabilities.host import HostFacts
from fleet.contracts.errors import InvalidValue, NotFound
from fleet.contracts.ids import Architecture, BootId

_MAX = 1024


def read_facts(root: Path) -> HostFacts:
    """The facts of the machine whose file system is at `root`.

    Raises:
        NotFound: it has no machine id or boot id.
        InvalidValue: its boot id is malformed, or releases are not built for its architecture.
    """
    return HostFacts(
        machine_id=_needed(root / "etc/machine-id"),
        boot=BootId(_needed(root / "proc/sys/kernel/random/boot_id")),
        hardware=_text(root / "proc/device-tree/model") or os.uname().machine,
        operating_system=_operating_system(root),
        architecture=_architecture(os.uname().machine),
    )


def _operating_system(root: Path) -> str:
    text = _text(root / "etc/os-release") or _text(root / "usr/lib/os-release")
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip().strip("\"'")
    return f"{os.uname().sysname} {os.uname().release}"


def _architecture(machine: str) -> Architecture:
    try:
        return Architecture(machine)
    except ValueError as error:
        known = ", ".join(item.value for item in Architecture)
        raise InvalidValue(f"releases are built for {known}, and this machine is {machine}") from error


def _needed(path: Path) -> str:
    text = _text(path)
    if not text:
        raise NotFound(f"{path} is missing or empty")
    return text


def _text(path: Path) -> str:
    """The beginning of a text file, without the padding of spaces and zero bytes; "" when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX).decode(errors="replace").strip(" \t\r\n\0")
    except OSError:
        return ""

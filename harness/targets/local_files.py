"""Damages a file of an agent on a device that is a folder, durably, as other targets do on theirs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from fleet.contracts.errors import NotFound
from fleet.contracts.ids import Release
from harness.faults import DamageFile
from harness.targets.device_files import damaged, places


def damage(
    root: Path,
    fault: DamageFile,
    release: Release | None,
    current: Release | None,
    announce: Callable[[PurePosixPath], None],
) -> None:
    """Do to the file what the fault says; where there are several of a kind, to each that is there.

    Args:
        root: the device's.
        release: the one that the file belongs to, for the kinds that there is one of per release.
        current: what the device's current link leads to.
        announce: told of each file, as the device names it, before it is damaged.

    Raises:
        NotFound: it is not there. Refused: it belongs to the current release.
    """
    found = [(place, root / place.relative_to("/")) for place in places(fault.file, release, current)]
    found = [(place, path) for place, path in found if path.is_file()]
    if not found:
        raise NotFound(f"{fault.device} has no {fault.file}")
    for place, path in found:
        announce(place)
        data = damaged(path.read_bytes(), fault.how)
        if data is None:
            path.unlink()
        else:
            _replace(path, data)
        _sync(path.parent, os.O_DIRECTORY)


def _replace(path: Path, data: bytes) -> None:
    """By a new file: one that runs cannot be written to, and what reads the old one keeps it."""
    temporary = path.with_name(f".{path.name}.damaged")
    temporary.write_bytes(data)
    temporary.chmod(path.stat().st_mode)
    _sync(temporary)
    temporary.rename(path)


def _sync(path: Path, flags: int = 0) -> None:
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The dependency layer of releases: third-party packages for one architecture and one Python, installed once.

Only wheels are taken, also for the machine that builds, so that every architecture is made in the same way and
nothing is compiled. A layer never changes once it stands: it is keyed by all that decides its contents.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet.contracts.ids import Architecture
from fleet.contracts.time import Duration
from fleet.releases.bytecode import compile_below, compiles_for
from fleet.releases.commands import run_module

DEPENDENCIES: Final = (
    "cryptography>=50,<51",
    "httpx2>=2.16,<3",
    "joserfc>=1.8,<2",
    "nats-py>=2.16,<2.17",
    "pydantic>=2.12,<3",
)
"""What the agent imports from outside the project. A test holds the bounds to those of pyproject.toml."""

_LIMIT: Final = Duration.minutes(10)
_TIED_TO_THE_BUILDER: Final = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""Files of `*.dist-info` that tell of the installation, not of the package, and differ from machine to machine."""


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """All that decides a layer's contents. `constraints` is the file's text, empty when there is none."""

    architecture: Architecture
    python: str
    constraints: bytes

    @property
    def key(self) -> str:
        """Names the layer in the cache."""
        compiled = "compiled" if compiles_for(self.python) else "not compiled"
        parts = (self.architecture.value, self.python, compiled, *DEPENDENCIES)
        digest = hashlib.sha256("\0".join(parts).encode() + b"\0" + self.constraints).hexdigest()[:16]
        return f"{self.architecture.value}-{self.python}-{digest}"


def layer(spec: LayerSpec, cache: Path) -> Path:
    """The folder of the layer, installed now if it is not in the cache.

    Raises:
        Refused: pip could not; carries its last lines. TimedOut.
    """
    target = cache / "layers" / spec.key
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as name:
        made = Path(name) / "site-packages"
        _install(spec, made, Path(name))
        _untie(made)
        if compiles_for(spec.python):
            compile_below(made)
        _publish(made, target)
    return target


def _install(spec: LayerSpec, target: Path, scratch: Path) -> None:
    constraints = scratch / "constraints.txt"
    constraints.write_bytes(spec.constraints)
    options = (
        ("--target", str(target)),
        ("--platform", f"manylinux2014_{spec.architecture.value}"),
        ("--implementation", "cp"),
        ("--python-version", spec.python),
        ("--constraint", str(constraints)),
    )
    flags = ("--only-binary=:all:", "--no-compile", "--disable-pip-version-check", "--no-input")
    arguments = ("pip", "install", *flags, *(word for option in options for word in option), *DEPENDENCIES)
    purpose = f"install the agent's dependencies for {spec.architecture.value} and Python {spec.python}"
    run_module(arguments, purpose, _LIMIT, {"PIP_REQUIRE_VIRTUALENV": "0"})


def _untie(folder: Path) -> None:
    """Remove what names the machine that installed it: scripts with its interpreter's path, records of them."""
    shutil.rmtree(folder / "bin", ignore_errors=True)
    for info in folder.glob("*.dist-info"):
        for name in _TIED_TO_THE_BUILDER:
            (info / name).unlink(missing_ok=True)


def _publish(made: Path, target: Path) -> None:
    """Give the finished layer its name. Another builder may have been faster: its layer is as good."""
    try:
        os.rename(made, target)
    except OSError:
        if not target.is_dir():
            raise

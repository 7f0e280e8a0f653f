"""Builds a release: the agent, what it needs of `fleet`, and its dependencies in one executable file.

The file starts with nothing but a Python interpreter of the minor version and architecture it was built for. The same
input and interpreter give the same bytes, whatever the machine, folder or time. A finished release is kept in the
cache, keyed by all that decides its contents, so that building it again is a copy.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import zlib
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Final

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import Architecture, Release, Sha256, Version
from fleet.releases.bytecode import compile_below, compiles_for
from fleet.releases.closure import sources
from fleet.releases.defects.catalogue import HEALTHY, Misbehaviour
from fleet.releases.layer import LayerSpec, layer
from fleet.releases.pack import pack

AGENT: Final = "agent.__main__:main"
"""The entry point of the production agent."""
_MISBEHAVING: Final = "fleet.releases.defects.program"
"""The module that takes its place in a release that misbehaves."""
RUNNING_PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_ROOT: Final = Path(__file__).parents[2]
"""The folder that holds the packages `agent` and `fleet`: the project, or where it was installed."""
_PREAMBLE: Final = Path(__file__).with_name("preamble.py")
_PYTHON: Final = re.compile(r"3\.[0-9]{1,2}")


@dataclass(frozen=True, slots=True)
class BuiltRelease:
    """A release as a file. `size` is in bytes."""

    release: Release
    path: Path
    size: int
    architecture: Architecture


def build(
    version: Version,
    architecture: Architecture,
    folder: Path,
    *,
    entry: str = AGENT,
    extra: tuple[Path, ...] = (),
    misbehaviour: Misbehaviour = HEALTHY,
    python: str = RUNNING_PYTHON,
    cache: Path | None = None,
) -> BuiltRelease:
    """Write the release to `folder` (made if missing) as `fleet-agent-v<version>-<architecture>`.

    Args:
        entry: what runs when the release is started, `package.module:function`.
        extra: packages (folders) put beside `agent`, by their own names.
        misbehaviour: what is wrong with the program; see `faulty` for what is wrong with a file.
        python: the minor version of the interpreter on the device, such as `3.11`.
        cache: where dependency layers and finished releases are kept; None for `default_cache()`.

    Raises:
        InvalidValue: `python`, `entry` or `extra` cannot be right.
        Refused: pip or shiv could not; carries their last lines. TimedOut.
    """
    if _PYTHON.fullmatch(python) is None:
        raise InvalidValue(f"{python!r} is not a minor version of Python: write it as 3.11")
    cache = cache or default_cache()
    about: dict[str, object] = {"version": version, "architecture": architecture.value, "python": python}
    if misbehaviour != HEALTHY:
        about |= {"defect": misbehaviour.defect.value, "defect-after": misbehaviour.delay.ns}
        entry = f"{_MISBEHAVING}:main"
    plan = _Plan(version, architecture, entry, python, _contents(about, extra), _constraints())
    finished = _from_cache(plan, cache) or _make(plan, cache)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"fleet-agent-v{version}-{architecture.value}"
    _copy(finished, target)
    return BuiltRelease(Release(version=version, sha256=_sha256(target)), target, target.stat().st_size, architecture)


def running_architecture() -> Architecture:
    """The architecture of this machine. Raises: InvalidValue when releases are not built for it."""
    machine = platform.machine()
    try:
        return Architecture(machine)
    except ValueError:
        names = ", ".join(item.value for item in Architecture)
        raise InvalidValue(f"no releases are built for {machine!r}, only for {names}") from None


def default_cache() -> Path:
    """`.cache/releases` of the project, or the user's cache folder where the project is an installed package."""
    if (_ROOT / "pyproject.toml").is_file():
        return _ROOT / ".cache" / "releases"
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "harmony-fleet" / "releases"


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that decides a release. `contents` maps names below `site-packages` to bytes."""

    version: Version
    architecture: Architecture
    entry: str
    python: str
    contents: dict[str, bytes]
    constraints: bytes

    @property
    def layer(self) -> LayerSpec:
        return LayerSpec(self.architecture, self.python, self.constraints)

    @property
    def key(self) -> str:
        """Digest of everything that goes in, the packers included."""
        packers = (
            installed_version("shiv"),
            zlib.ZLIB_RUNTIME_VERSION,
            Path(__file__).with_name("pack.py").read_text(),
            Path(__file__).with_name("bytecode.py").read_text(),
        )
        digest = hashlib.sha256("\0".join((*packers, self.layer.key, self.entry)).encode())
        for name, data in (*self.contents.items(), ("preamble", _PREAMBLE.read_bytes())):
            digest.update(f"\0{name}\0{len(data)}\0".encode() + data)
        return digest.hexdigest()[:32]


def _contents(about: dict[str, object], extra: tuple[Path, ...]) -> dict[str, bytes]:
    beside = (_MISBEHAVING,) if "defect" in about else ()
    files = {str(path): (_ROOT / path).read_bytes() for path in sources(_ROOT, beside)}
    for package in extra:
        if not package.is_dir():
            raise InvalidValue(f"{package.name!r} is not the folder of a package")
        inside = sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        files |= {str(path.relative_to(package.parent)): path.read_bytes() for path in inside}
    return files | {"agent/release.json": (json.dumps(about) + "\n").encode()}


def _constraints() -> bytes:
    """The pinned versions the project is tested with; nothing where the file was not shipped."""
    file = _ROOT / "constraints.txt"
    return file.read_bytes() if file.is_file() else b""


def _from_cache(plan: _Plan, cache: Path) -> Path | None:
    """The finished release, unless there is none or its bytes are not the ones that its name promises."""
    found = sorted((cache / "finished" / plan.key).glob("[0-9a-f]*"))
    return next((path for path in found if _sha256(path) == path.name), None)


def _make(plan: _Plan, cache: Path) -> Path:
    dependencies = layer(plan.layer, cache)
    with tempfile.TemporaryDirectory() as name:
        own, made = Path(name) / "site-packages", Path(name) / "release"
        for inside, data in plan.contents.items():
            path = own / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if compiles_for(plan.python):
            compile_below(own)
        pack((dependencies, own), plan.entry, _PREAMBLE, made)
        finished = cache / "finished" / plan.key / _sha256(made)
        finished.parent.mkdir(parents=True, exist_ok=True)
        _copy(made, finished)
    return finished


def _copy(source: Path, target: Path) -> None:
    """Copy under a temporary name, then rename: the target is whole or not there."""
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".copy-", delete=False) as file:
        try:
            with source.open("rb") as data:
                shutil.copyfileobj(data, file)
            os.chmod(file.name, 0o755)
            os.replace(file.name, target)
        except BaseException:
            os.unlink(file.name)
            raise


def _sha256(path: Path) -> Sha256:
    with path.open("rb") as file:
        return Sha256(hashlib.file_digest(file, "sha256").hexdigest())

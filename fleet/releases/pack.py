"""Packs folders of packages into one executable zip with shiv, the same bytes for the same input on every machine.

shiv sorts what it packs and fixes the times, but takes file modes and the order of its own bootstrap from the machine.
The archive is therefore written once more, sorted, with fixed modes; that is also where it is compressed, where the
compiled modules come in, which shiv leaves out, and where the release is told to compile none itself.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fleet.contracts.errors import InvalidValue
from fleet.contracts.time import Duration
from fleet.releases.commands import run_module

_SHEBANG: Final = "/usr/bin/env python3"
_ENTRY: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_EPOCH: Final = "315532800"
_EPOCH_IN_ZIP: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = (stat.S_IFREG | 0o644) << 16
_LIMIT: Final = Duration.minutes(2)
_MAIN: Final = "__main__.py"
_WRITE_NOTHING: Final = b"import sys\n\nsys.dont_write_bytecode = True\n\n"
"""The first that runs of a release: see `bytecode`."""


def pack(folders: tuple[Path, ...], entry: str, preamble: Path, target: Path) -> None:
    """Write `target`: an executable zip of all that is in `folders`, which calls `entry` (`module:function`).

    What is compiled there goes in as it is.

    Raises:
        InvalidValue: `entry` is not of that form. Refused: shiv could not; carries its last lines. TimedOut.
    """
    if _ENTRY.fullmatch(entry) is None:
        raise InvalidValue(f"{entry!r} is not an entry point: write package.module:function")
    raw = target.with_name(target.name + ".raw")
    sources = (word for folder in folders for word in ("--site-packages", str(folder)))
    options = ("--reproducible", "--uncompressed", "--python", _SHEBANG, "--preamble", str(preamble))
    arguments = ("shiv", *options, *sources, "--entry-point", entry, "--output-file", str(raw))
    run_module(arguments, "pack the release", _LIMIT, {"SOURCE_DATE_EPOCH": _EPOCH})
    compiled = {
        f"site-packages/{path.relative_to(folder)}": path for folder in folders for path in folder.rglob("*.pyc")
    }
    _normalise(raw, compiled, target)
    raw.unlink()


def _normalise(raw: Path, compiled: Mapping[str, Path], target: Path) -> None:
    with zipfile.ZipFile(raw) as source, target.open("wb") as file:
        file.write(f"#!{_SHEBANG}\n".encode())
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for name in sorted({*source.namelist(), *compiled}):
                entry = zipfile.ZipInfo(name, date_time=_EPOCH_IN_ZIP)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = _MODE
                data = compiled[name].read_bytes() if name in compiled else source.read(name)
                archive.writestr(entry, _WRITE_NOTHING + data if name == _MAIN else data)
    os.chmod(target, 0o755)

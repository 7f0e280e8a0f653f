"""A copy of a device's card, for a second machine: what lies on it and nothing that is held in memory.

The device goes on running while its card is read. Its files are replaced by renaming and never written over, so that
each is copied whole; one that is renamed just then is not there.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

_NOT_ON_THE_CARD: Final = ("run", "proc", "opt")
"""Held in memory, the kernel's own, and the stand-ins, which every machine has from the harness."""
_LOGS: Final = "var/log"


def copy_card(source: Path, target: Path) -> None:
    """Copy the folder of a device. A link that leads into `source` leads to the same place in `target`.

    Raises: OSError.
    """
    for folder, names, files in os.walk(source):
        here = Path(folder).relative_to(source)
        names[:] = [name for name in names if not _is_left_out(here / name)]
        (target / here).mkdir(parents=True, exist_ok=True)
        shutil.copystat(source / here, target / here)
        for name in [*files, *(name for name in names if (source / here / name).is_symlink())]:
            _copy(source, target, here / name)


def _is_left_out(path: Path) -> bool:
    return str(path) in (*_NOT_ON_THE_CARD, _LOGS)


def _copy(source: Path, target: Path, path: Path) -> None:
    try:
        if (source / path).is_symlink():
            (target / path).symlink_to(_led(source, target, Path(os.readlink(source / path))))
        else:
            shutil.copy2(source / path, target / path)
    except FileNotFoundError:
        (target / path).unlink(missing_ok=True)  # Renamed since its folder was read.


def _led(source: Path, target: Path, link: Path) -> Path:
    return target / link.relative_to(source) if link.is_relative_to(source) else link

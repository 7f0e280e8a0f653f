"""Compiles the modules of a release when it is built, so that no device ever writes a compiled one.

An interpreter that imports a module writes down what it compiled, beside the module, at the first start: on a full disk
it leaves a part of it, and every later start fails at that part. So a release brings everything compiled, is told to
write nothing (`pack`), and what it brought is checked and mended like its other files.

The compiled files do not ask whether their module has changed: both are packed together, and never change.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from fleet.contracts.time import Duration
from fleet.releases.commands import run_module

_LIMIT: Final = Duration.minutes(5)


def compiles_for(python: str) -> bool:
    """Whether this interpreter can compile for that minor version. Else a release is compiled anew at each start."""
    return python == f"{sys.version_info.major}.{sys.version_info.minor}"


def compile_below(folder: Path) -> None:
    """Put a `.pyc` beside every module below the folder. The same bytes for the same modules and interpreter.

    Raises:
        Refused: a module is none; carries the last lines. TimedOut.
    """
    options = ("-q", "-f", "--invalidation-mode", "unchecked-hash", "-s", str(folder), "-p", "site-packages")
    run_module(
        ("compileall", *options, str(folder)),
        "compile the modules of the release",
        _LIMIT,
        {"PYTHONHASHSEED": "0", "PYTHONOPTIMIZE": "", "PYTHONPYCACHEPREFIX": ""},
        bare=True,
    )

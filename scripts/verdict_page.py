"""The page docs/reference/exit-codes.md, from the verdicts themselves."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Final, get_args

from harness.verdict import BAD_INPUT, Verdict, exit_code
from scripts.tables import section

_HEAD: Final = """\
# Verdicts and exit codes

This page is generated from `harness/verdict.py` by `make docs`.

Every scenario of a run ends in one verdict. `twin` exits with the code of the worst one. The last line of a run that did
not hold is the command that reproduces it.
"""


def page() -> str:
    """The whole page."""
    verdicts: tuple[type[Verdict], ...] = get_args(Verdict)
    rows = [(str(_code(kind)), f"`{kind.__name__}`", " ".join(str(inspect.getdoc(kind)).split())) for kind in verdicts]
    rows.append((str(BAD_INPUT), "none", "A file or an argument is wrong; nothing was started."))
    return "\n".join((_HEAD, section("Codes", "", ("exit code", "verdict", "meaning"), sorted(rows))))


def _code(kind: type[Verdict]) -> int:
    return exit_code(kind(**{field.name: "" for field in fields(kind)}))

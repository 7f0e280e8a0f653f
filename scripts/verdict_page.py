"""The page docs/reference/exit-codes.md, from the verdicts themselves."""

from __future__ import annotations

import inspect
from typing import Final, get_args

from harness.verdict import (
    BAD_INPUT,
    Crashed,
    HarnessBroken,
    Held,
    NotApplicable,
    Stuck,
    Verdict,
    Violated,
    exit_code,
)
from scripts.tables import section

_HEAD: Final = """\
# Verdicts and exit codes

This page is generated from `harness/verdict.py` by `make docs`.

Every scenario of a run ends in one verdict. `twin` exits with the code of the worst one. The last line of a run that
did not hold is the command that reproduces it.
"""


_EXAMPLES: Final[tuple[Verdict, ...]] = (
    Held(),
    Violated(rule="", evidence=""),
    Stuck(during="", waiting_for=()),
    Crashed(error="", traceback=""),
    NotApplicable(why=""),
    HarnessBroken(why=""),
)


def page() -> str:
    """The whole page."""
    assert tuple(type(verdict) for verdict in _EXAMPLES) == get_args(Verdict), "a verdict has no row"
    rows = [(str(exit_code(verdict)), f"`{type(verdict).__name__}`", _meaning(verdict)) for verdict in _EXAMPLES]
    rows.append((str(BAD_INPUT), "none", "A file or an argument is wrong; nothing was started."))
    return "\n".join((_HEAD, section("Codes", "", ("exit code", "verdict", "meaning"), sorted(rows))))


def _meaning(verdict: Verdict) -> str:
    return " ".join(str(inspect.getdoc(type(verdict))).split())

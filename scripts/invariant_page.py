"""The page docs/reference/invariants.md, from the registry of invariants."""

from __future__ import annotations

import inspect
from typing import Final

from harness.invariants import ALL
from scripts.tables import section

_HEAD: Final = """\
# Invariants

This page is generated from `harness/invariants` by `make docs`.

These hold at every moment of every scenario, on every target, whether a file names them or not. Each is a fold over the
journal in one small file, and a test plants a bug for each that it has to catch.
"""


def page() -> str:
    """The whole page."""
    rows = ((f"`{kind.name}`", _text(inspect.getmodule(kind)), _text(kind)) for kind in ALL)
    return "\n".join((_HEAD, section("All of them", "", ("name", "what holds", "how it is judged"), rows)))


def _text(documented: object) -> str:
    return " ".join(str(inspect.getdoc(documented)).partition("\n\n")[0].split())

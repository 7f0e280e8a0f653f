"""The page docs/reference/planted-bugs.md, from the planted bugs themselves."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Final

from scripts.tables import section
from tests.planted import registry, stories
from tests.planted.plant import CHECK, CRASHED, STUCK, Bug

_HEAD: Final = """\
# Planted bugs

This page is generated from `tests/planted/` by `make docs`.

Each is a mistake that an agent, an operator or the world below them could make. It is patched into the production code
in a test, the scenario is run on three devices in the virtual world, and one of the rules named here has to end the
run. A bug that nothing catches fails the build, and so does a scenario that does not hold without its bug
([why](../adr/021-planted-bugs.md)). `make planted` shows which rule caught each, after how much simulated and processor
time.

A rule is an [invariant](invariants.md), `{check}` (one of the scenario's own), `{stuck}` (what is desired was never
observed) or `{crashed}` (production code fell over). Where there are several, which one is first is the seed's doing.
A scenario in capitals is a small one of `tests/planted/stories.py`.
"""


def page() -> str:
    """The whole page."""
    head = _HEAD.format(check=CHECK, stuck=STUCK, crashed=CRASHED)
    count = f"There are {len(registry.BUGS)} of them.\n"
    return "\n".join((head, count, *_sections()))


def _sections() -> Iterator[str]:
    names = {value: name for name, value in vars(stories).items() if isinstance(value, str) and name.isupper()}
    for room, bugs in registry.ROOMS.items():
        text = " ".join((inspect.getdoc(importlib.import_module(room)) or "").split())
        title, _, rest = text.partition(": ")
        rows = (_row(bug, names) for bug in bugs)
        yield section(title, rest[:1].upper() + rest[1:], ("bug", "what it stands for", "scenario", "caught by"), rows)


def _row(bug: Bug, names: dict[str, str]) -> tuple[str, ...]:
    where = f"`{bug.scenario if bug.scenario.endswith('.toml') else names[bug.scenario]}`"
    if bug.cut:
        where += f", cut off at `{bug.cut}`"
    return bug.name, bug.stands_for, where, " or ".join(f"`{rule}`" for rule in bug.caught_by)

"""The drawing and the table in docs/explanation/upgrade.md, from the brain's own transition table.

Everything around them is written by hand and stays as it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from agent.events import Event
from agent.states import State
from agent.transitions import BEGINS, MOVES, WORKING, Move
from scripts.tables import section

FILE: Final = Path(__file__).parents[1] / "docs" / "explanation" / "upgrade.md"
_BEGIN: Final = "<!-- generated from agent/transitions.py by `make docs` -->\n"
_END: Final = "<!-- end of what is generated -->\n"
_GROUP: Final = "BeforeTheSwap"


def page() -> str:
    """The whole page with what is generated in its place."""
    text = FILE.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert end, f"{FILE.name} has lost its marks"
    return before + _BEGIN + "\n" + diagram() + "\n" + table() + "\n" + _END + after


def diagram() -> str:
    """The states and moves for Mermaid. What every phase before the swap shares is drawn once."""
    inside = [move for move in MOVES if move.state in WORKING and move.to in WORKING and _is_forward(move)]
    shared, single = _split([move for move in MOVES if move not in inside])
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    [*] --> {state.__name__}" for state in BEGINS]
    lines += [f"    state {_GROUP} {{"] + [f"        {line}" for line in _edges(inside)] + ["    }"]
    lines += [f"    {line}" for line in _edges(single)]
    lines += [f"    {line.replace(WORKING[0].__name__, _GROUP, 1)}" for line in _edges(shared)]
    return "\n".join([*lines, "    Leaving --> [*]", "```", ""])


def table() -> str:
    """Every move with its reason."""
    begins = [("*start*", "", f"`{state.__name__}`", why) for state, why in BEGINS.items()]
    rows = [
        (", ".join(f"`{state.__name__}`" for state in states), f"`{event.__name__}`", f"`{to.__name__}`", why)
        for (event, to, why), states in _grouped().items()
    ]
    return section("Every move", "", ("from", "event", "to", "why"), [*begins, *rows], level=3)


def _grouped() -> dict[tuple[type[Event], type[State], str], list[type[State]]]:
    found: dict[tuple[type[Event], type[State], str], list[type[State]]] = {}
    for move in MOVES:
        found.setdefault((move.event, move.to, move.why), []).append(move.state)
    return found


def _is_forward(move: Move) -> bool:
    return WORKING.index(move.to) == WORKING.index(move.state) + 1


def _split(moves: list[Move]) -> tuple[list[Move], list[Move]]:
    """The moves that all phases before the swap share, each once, and all others."""
    shared, single = [], []
    for move in moves:
        same = [other.state for other in moves if (other.event, other.to) == (move.event, move.to)]
        if move.state not in WORKING or not set(WORKING) <= set(same):
            single.append(move)
        elif move.state is WORKING[0]:
            shared.append(move)
    return shared, single


def _edges(moves: list[Move]) -> list[str]:
    labels: dict[tuple[str, str], dict[str, None]] = {}
    for move in moves:
        labels.setdefault((move.state.__name__, move.to.__name__), {})[_words(move.event.__name__)] = None
    return [f"{state} --> {to}: {', '.join(words)}" for (state, to), words in labels.items()]


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()

"""The asynchronous generators that are open, in the order in which they were begun, and whose each one is.

Python tells a loop when a generator begins and when an open one is dropped, and leaves the rest to the loop. By the
time of the latter, weak references to the generator are dead already; so they are found by address here, which no
other generator can have had since.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator
from typing import Any, Final

from sim.tasks import Owner

Generator = AsyncGenerator[Any, Any]

_MANY: Final = 64
"""Generators that may have begun before it is looked which of them are still there."""


class OpenGenerators:
    """Who began which generator."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[weakref.ref[Generator], Owner | None]] = {}
        self._many = _MANY

    def begin(self, generator: Generator, owner: Owner | None) -> None:
        """A generator was begun by an owner's code."""
        self._begun.pop(id(generator), None)
        self._begun[id(generator)] = weakref.ref(generator), owner
        if len(self._begun) > self._many:
            self._begun = {key: item for key, item in self._begun.items() if item[0]() is not None}
            self._many = 2 * len(self._begun) + _MANY

    def drop(self, generator: Generator) -> Owner | None:
        """An open generator was dropped; whose it was."""
        _, owner = self._begun.pop(id(generator), (None, None))
        return owner

    def take(self, owner: Owner | None) -> list[Generator]:
        """The generators of an owner that are still there, oldest first, closed ones included. Forgets them."""
        taken = [item for item in self._of(owner) if item is not None]
        for generator in taken:
            del self._begun[id(generator)]
        return taken

    def owners(self) -> list[Owner | None]:
        """Everyone who has a generator that is still there, in the order of their first."""
        owners = [owner for reference, owner in self._begun.values() if reference() is not None]
        return list(dict.fromkeys(owners))

    def has(self, owner: Owner | None) -> bool:
        """Whether an owner has a generator that is still there."""
        return any(item is not None for item in self._of(owner))

    def _of(self, owner: Owner | None) -> list[Generator | None]:
        return [reference() for reference, whose in self._begun.values() if whose is owner]

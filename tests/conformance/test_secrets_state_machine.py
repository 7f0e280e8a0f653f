"""All places that keep secrets do what one small model says, whatever is asked of them in whatever order.

Each example drives every place and the model with the same operations and compares what comes back, the class of the
error included.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fleet.capabilities.secrets import Secret, SecretSeen
from fleet.contracts.errors import Conflict, FleetError, InvalidValue, NotFound, Refused
from fleet.contracts.ids import ObjectName
from fleet.secrets.store import Secrets
from tests.conformance.secret_labs import MODELLED, Lab

EXAMPLES = int(os.environ.get("FLEET_SECRET_EXAMPLES", "40"))
MEMORY = Path("/dev/shm")
"""Where syncing a file costs nothing, if there is such a place."""
A = ObjectName("a")
NAMES = st.sampled_from([A, ObjectName("b-password")])
VALUES = st.one_of(st.just(b""), st.binary(min_size=1, max_size=40))
Seen = tuple[int, bytes] | type[FleetError]


@dataclass
class Model:
    """What is kept: the values of each name, oldest first; and which names were damaged."""

    values: dict[ObjectName, list[bytes]] = field(default_factory=dict)
    damaged: set[ObjectName] = field(default_factory=set)

    def ensure(self, name: ObjectName, value: bytes) -> Seen:
        if name not in self.values and not value:
            return Refused
        self.values.setdefault(name, [value])
        return self.read(name)

    def read(self, name: ObjectName) -> Seen:
        if name not in self.values:
            return NotFound
        return InvalidValue if name in self.damaged else (len(self.values[name]), self.values[name][-1])

    def previous(self, name: ObjectName) -> Seen:
        if name not in self.values or (name not in self.damaged and len(self.values[name]) == 1):
            return NotFound
        return InvalidValue if name in self.damaged else (len(self.values[name]) - 1, self.values[name][-2])

    def rotate(self, name: ObjectName, value: bytes, last: int) -> Seen:
        now = self.read(name)
        if isinstance(now, type):
            return now
        if now[0] != last:
            return Conflict
        if not value:
            return Refused
        self.values[name].append(value)
        return self.read(name)


async def seen(act: Awaitable[Secret]) -> Seen:
    try:
        secret = await act
    except FleetError as error:
        return type(error)
    return secret.version, secret.value


class Places(RuleBasedStateMachine):
    """Every place beside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.folder = self.stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None))
        self.labs = self.runner.run(self._open())

    async def _open(self) -> dict[str, Lab]:
        folder = Path(self.folder)
        return {name: await self.stack.enter_async_context(made(folder)) for name, made in MODELLED.items()}

    def teardown(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()

    def compare(self, expected: Seen, act: Callable[[Secrets], Awaitable[Secret]]) -> None:
        async def told() -> dict[str, Seen]:
            return {name: await seen(act(Secrets(lab.documents(), lab.clock))) for name, lab in self.labs.items()}

        assert self.runner.run(told()) == dict.fromkeys(self.labs, expected)

    @initialize(value=st.binary(min_size=1, max_size=40))
    def begin(self, value: bytes) -> None:
        """Most of what can go wrong goes wrong with a secret that is there."""
        self.ensure(A, value)

    @rule(name=NAMES, value=VALUES)
    def ensure(self, name: ObjectName, value: bytes) -> None:
        self.compare(self.model.ensure(name, value), lambda store: store.ensure(name, lambda: value))

    @rule(name=NAMES)
    def read(self, name: ObjectName) -> None:
        self.compare(self.model.read(name), lambda store: store.read(name))

    @rule(name=NAMES)
    def previous(self, name: ObjectName) -> None:
        self.compare(self.model.previous(name), lambda store: store.previous(name))

    @rule(name=NAMES, value=VALUES)
    def rotate(self, name: ObjectName, value: bytes) -> None:
        self.rotate_after(name, value, len(self.model.values.get(name, ())))

    @rule(name=NAMES, value=VALUES, ahead=st.sampled_from([-1, 1, 2]))
    def rotate_another_version(self, name: ObjectName, value: bytes, ahead: int) -> None:
        self.rotate_after(name, value, len(self.model.values.get(name, ())) + ahead)

    def rotate_after(self, name: ObjectName, value: bytes, last: int) -> None:
        self.compare(self.model.rotate(name, value, last), lambda store: store.rotate(name, lambda: value, last))

    @rule(name=NAMES, is_emptied=st.booleans())
    def damage(self, name: ObjectName, is_emptied: bool) -> None:
        if self.model.read(name) in (NotFound, InvalidValue):
            return
        self.model.damaged.add(name)
        for lab in self.labs.values():
            self.runner.run(lab.empty(name) if is_emptied else lab.damage(name))

    @invariant()
    def every_place_lists_the_same(self) -> None:
        async def told(lab: Lab) -> list[tuple[ObjectName, int]]:
            found = await Secrets(lab.documents(), lab.clock).seen()
            return [(item.name, item.version if isinstance(item, SecretSeen) else 0) for item in found]

        expected = [
            (name, 0 if name in self.model.damaged else len(values))
            for name, values in sorted(self.model.values.items())
        ]
        for place, lab in self.labs.items():
            assert self.runner.run(told(lab)) == expected, place


TestPlaces = Places.TestCase
TestPlaces.settings = settings(max_examples=EXAMPLES, stateful_step_count=20, deadline=None)

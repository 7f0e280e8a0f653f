"""Runs a course of operations on one maker and writes down what could be observed of each.

Everything that may be compared is settled before the next operation: a write without an answer has been taken in, and
every subscription has delivered what it will. So the observations of two makers are equal, or one of them is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, assert_never

from fleet.capabilities.bus import Bus, Deleted, Stored, Subscription
from fleet.capabilities.bus import Request as Asked
from fleet.capabilities.clock import Clock
from fleet.contracts.errors import Conflict, FleetError, NotPermitted, Refused
from fleet.contracts.ids import DeviceId, Revision
from fleet.contracts.layout import BUCKETS, Bucket, BucketSpec
from fleet.contracts.permissions import EVERYTHING, Permissions, of_device
from fleet.contracts.time import Duration
from sim.nats.subjects import may_publish
from tests.conformance.bus.operations import (
    Crash,
    Delete,
    EndSubscription,
    Ensure,
    Entries,
    Get,
    Guess,
    Keep,
    Listen,
    LoseTail,
    MayLogIn,
    Operation,
    Post,
    Put,
    RawRequest,
    RawWrite,
    Reopen,
    Request,
    Restore,
    Serve,
    Update,
)

CLIENTS: Final = ("operator", "dev-1", "dev-2")
RIGHTS: Final[dict[str, Permissions]] = {
    name: EVERYTHING if name == "operator" else of_device(DeviceId(name)) for name in CLIENTS
}
USED: Final = (Bucket.DESIRED, Bucket.STATE)
"""The bucket with a history and one of those without: the others differ in name alone."""
SPECS: Final = {spec.bucket: spec for spec in BUCKETS}
_FAR: Final = Revision(2**40)
_MOMENT: Final = Duration.millis(2)
_SILENCE: Final = Duration.millis(60)
"""How long to wait for an answer that will not come."""
_PATIENCE: Final = Duration.seconds(20)

Seen = tuple[object, ...]


class Lab(Protocol):
    """One maker: a server with the buckets of `USED`, empty, and what can be done to it."""

    @property
    def clock(self) -> Clock: ...

    def bus(self, name: str) -> Bus:
        """A new client."""
        ...

    async def ensure(self, spec: BucketSpec) -> None:
        """As `BusAdmin.ensure_bucket`."""
        ...

    async def write_raw(
        self, user: str, bucket: Bucket, key: bytes, lines: tuple[bytes, ...], value: bytes
    ) -> Revision: ...

    async def ask_raw(self, user: str, subject: str) -> None: ...

    async def kill(self) -> None: ...

    async def restart(self) -> None: ...

    async def lose_tail(self, bucket: Bucket, writes: int) -> None:
        """While it is down."""
        ...

    async def keep(self) -> None:
        """While it is down."""
        ...

    async def restore(self) -> None:
        """While it is down. Nothing when nothing was kept."""
        ...


@dataclass
class Held:
    """A subscription of the course, and what it has delivered."""

    client: str
    bucket: Bucket | None
    subject: str
    is_silent: bool = False
    subscription: Subscription | None = None
    heard: list[object] = field(default_factory=list)


async def observe(lab: Lab, course: tuple[Operation, ...]) -> list[Seen]:
    """Run a course. The last observation is what stands in the buckets in the end."""
    run = _Run(lab)
    await run.begin()
    try:
        seen = [await run.step(operation) for operation in course]
        return [*seen, await run.settled(run.final())]
    finally:
        await run.end()


class _Run:
    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._buses: dict[str, Bus] = {}
        self._sessions = dict.fromkeys(CLIENTS, 0)
        self._held: list[Held] = []

    async def begin(self) -> None:
        for name in CLIENTS:
            self._open(name)
        await self._until_connected(True)

    async def end(self) -> None:
        await asyncio.gather(*(bus.close() for bus in self._buses.values()))

    async def final(self) -> Seen:
        listings = [await self._buses["operator"].entries(bucket) for bucket in USED]
        return ("at the end", *listings, *await self._deliveries(), tuple(self._sessions.values()))

    async def settled(self, seeing: Awaitable[Seen]) -> Seen:
        """What is seen, be it an error."""
        try:
            return await seeing
        except FleetError as error:
            return (type(error).__name__,)

    async def step(self, operation: Operation) -> Seen:
        try:
            return await self._do(operation)
        except FleetError as error:
            told = (str(error),) if isinstance(operation, RawWrite) and isinstance(error, (Refused, Conflict)) else ()
            return (type(error).__name__, *told)

    async def _do(self, operation: Operation) -> Seen:  # one arm per operation
        match operation:
            case Put(client, bucket, key, value):
                return ("stored", await self._buses[client].put(bucket, key, value))
            case Post(client, bucket, key, value):
                self._buses[client].post(bucket, key, value)
                await self._taken_in(client, bucket)
                return ("posted",)
            case Update(client, bucket, key, value, last):
                expected = await self._guess(bucket, key, last)
                return ("stored", await self._buses[client].update(bucket, key, value, expected))
            case Delete(client, bucket, key, last):
                stale = None if last is None else await self._guess(bucket, key, last)
                await self._buses[client].delete(bucket, key, stale)
                return ("deleted",)
            case MayLogIn(client):
                return ("let in", await self._buses[client].may_log_in())
            case Get(client, bucket, key):
                return ("got", await self._buses[client].get(bucket, key))
            case Entries(client, bucket, prefix):
                return ("listed", await self._buses[client].entries(bucket, prefix))
            case Request():
                return await self._request(operation)
            case Listen() | Serve() | EndSubscription():
                return await self._subscriptions(operation)
            case RawWrite(user, bucket, key, lines, value):
                return ("stored", await self._lab.write_raw(user, bucket, key, lines, value))
            case RawRequest(user, subject):
                await self._lab.ask_raw(user, subject)
                return ("answered",)
            case Ensure(bucket, history):
                spec = SPECS[bucket]
                await self._lab.ensure(BucketSpec(bucket, history, spec.rollup))
                return ("stands",)
            case Reopen(client):
                return await self._reopen(client)
            case Crash() | LoseTail() | Keep() | Restore():
                return await self._outage(operation)
            case _:
                assert_never(operation)

    async def _guess(self, bucket: Bucket, key: str, guess: Guess) -> Revision:
        found = await self._buses["operator"].get(bucket, key)
        newest = 0 if found is None else found.revision
        match guess:
            case Guess.NEWEST:
                return Revision(newest)
            case Guess.NONE:
                return Revision(0)
            case Guess.OLDER:
                return Revision(max(newest - 1, 0))
            case Guess.NEWER:
                return Revision(newest + 1)

    # --- subscriptions ------------------------------------------------------------------------------

    async def _subscriptions(self, operation: Listen | Serve | EndSubscription) -> Seen:
        match operation:
            case Listen(client, bucket, prefix):
                held = Held(client, bucket, prefix)
                held.subscription = self._buses[client].listen(bucket, prefix, held.heard.append)
            case Serve(client, subject, answer):
                held = Held(client, None, subject, is_silent=answer is None)
                held.subscription = self._buses[client].serve(subject, _answering(held, answer))
            case EndSubscription(number):
                return await self._end_subscription(number)
        self._held.append(held)
        await self._taken_in(held.client, Bucket.STATE)
        return ("refused", type(held.subscription.refused).__name__)

    async def _end_subscription(self, number: int) -> Seen:
        if not self._held:
            return ("none",)
        await self._settle()
        held = self._held.pop(number % len(self._held))
        assert held.subscription is not None
        held.subscription.close()
        held.subscription.close()
        await self._taken_in(held.client, Bucket.STATE)
        return ("ended", tuple(held.heard))

    async def _request(self, operation: Request) -> Seen:
        """Short when all who hear it stay silent, which has to be waited for."""
        serving = [held for held in self._held if held.bucket is None and _covers(held.subject, operation.subject)]
        hearing = [held for held in serving if held.subscription is not None and held.subscription.refused is None]
        is_heard = bool(hearing) and may_publish(RIGHTS[operation.client], operation.subject)
        is_silent = is_heard and all(held.is_silent for held in hearing)
        bus = self._buses[operation.client]
        answer = await bus.request(operation.subject, operation.payload, _SILENCE if is_silent else _PATIENCE)
        return ("answer", answer if sum(not held.is_silent for held in hearing) == 1 else b"one of several")

    async def _settle(self) -> None:
        """Return when every subscription has delivered what it will."""
        for bucket in USED:
            await self._taken_in("operator", bucket)
        for client, bucket in dict.fromkeys((held.client, held.bucket or Bucket.STATE) for held in self._held):
            await self._heard(client, bucket)

    async def _heard(self, client: str, bucket: Bucket) -> None:
        key = "z" if client == "operator" else f"{client}.z"
        await self._buses[client].get(bucket, key)

    async def _taken_in(self, client: str, bucket: Bucket) -> None:
        """Return when all that a client has sent was acted on: a write that cannot be accepted goes behind it."""
        try:
            await self._buses[client].delete(bucket, f"{client}.z", _FAR)
        except (Conflict, NotPermitted):
            return
        raise AssertionError("the impossible revision was accepted")

    async def _deliveries(self) -> tuple[tuple[object, ...], ...]:
        await self._settle()
        return tuple(tuple(held.heard) for held in self._held)

    # --- connections --------------------------------------------------------------------------------

    def _open(self, name: str) -> None:
        bus = self._buses[name] = self._lab.bus(name)
        bus.on_session(lambda: self._note_session(name))

    def _note_session(self, name: str) -> None:
        self._sessions[name] += 1

    async def _reopen(self, client: str) -> Seen:
        await self._settle()
        gone = [held for held in self._held if held.client == client]
        self._held = [held for held in self._held if held.client != client]
        await self._buses[client].close()
        closed = self._buses[client].is_connected()
        self._open(client)
        await self._until_connected(True, client)
        return ("reopened", closed, tuple(tuple(held.heard) for held in gone))

    async def _outage(self, operation: Crash | LoseTail | Keep | Restore) -> Seen:
        before = await self._deliveries()
        await self._lab.kill()
        await self._until_connected(False)
        told = await self.step(Put("operator", Bucket.STATE, "dev-1.a", b"nobody is there"))
        match operation:
            case Crash():
                pass
            case LoseTail(bucket, writes):
                await self._lab.lose_tail(bucket, writes)
            case Keep():
                await self._lab.keep()
            case Restore():
                await self._lab.restore()
        await self._lab.restart()
        await self._until_connected(True)
        await self._settle()
        standing = [await self._buses["operator"].entries(bucket) for bucket in USED]
        return ("back", told, before, *standing, tuple(self._sessions.values()))

    async def _until_connected(self, wanted: bool, *names: str) -> None:
        async with self._lab.clock.timeout(_PATIENCE):
            for name in names or CLIENTS:
                while self._buses[name].is_connected() is not wanted:
                    await self._lab.clock.sleep(_MOMENT)


def _answering(held: Held, answer: bytes | None) -> Callable[[Asked], bytes | None]:
    def handler(request: Asked) -> bytes | None:
        held.heard.append((request.subject, request.payload))
        return None if answer is None else request.payload + answer

    return handler


def _covers(served: str, subject: str) -> bool:
    return served == subject or (served.endswith(".*") and subject.rpartition(".")[0] == served[:-2])


def shown(seen: object) -> str:
    """An observation for people, with long values cut."""
    match seen:
        case Stored(bucket, key, revision, value):
            return f"{bucket.value}/{key[:60]!a}@{int(revision)}={_cut(value)}"
        case Deleted(bucket, key, revision):
            return f"{bucket.value}/{key[:60]!a}@{int(revision)} deleted"
        case bytes():
            return _cut(seen)
        case tuple():
            return f"({', '.join(shown(item) for item in seen)})"
        case _:
            return repr(seen)


def _cut(value: bytes) -> str:
    return repr(value) if len(value) <= 40 else f"{value[:20]!r}… ({len(value)} bytes)"

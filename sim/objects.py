"""A model of the Kubernetes API behind the Objects port: one version counter, optimistic concurrency, watches.

Modelled: conflicts, generations, the status subresource, latency, a watch cache that forgets, an API that goes away
and comes back with all it had, a version from the future (a watch from it stays silent).
Not modelled: admission, authorisation, namespaces, finalizers, owner references, server-side apply, bookmarks, paging,
objects that do not fit their schema, and answers that are lost while the API is up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, Generic, Protocol, TypeVar, cast

from fleet.capabilities.clock import Chance
from fleet.capabilities.objects import Applied, Listing, Removed, WatchEvent
from fleet.contracts.errors import Conflict, Disconnected, FleetError, NotFound, Refused, Unavailable
from fleet.contracts.ids import ObjectName
from fleet.contracts.object_changes import at_version, created, replaced, status_replaced, to_json
from fleet.contracts.objects import Object
from fleet.contracts.time import Duration

O = TypeVar("O", bound=Object)  # noqa: E741 - the one-letter name of the type variable, as in the ports
R = TypeVar("R")

LATENCY: Final = Duration.millis(4)
"""From the call to its answer."""
_REMEMBERED: Final = 20_000
"""Changes the watch cache holds before it forgets the older half."""


class Timers(Protocol):
    """Timers of the world."""

    def after(self, delay: Duration, callback: Callable[..., None], *args: object) -> object:
        """Call back once after `delay`."""
        ...


class Observer(Protocol):
    """Told of every change at once and in order. Must not raise."""

    def object_stored(self, kind: str, name: str, value: bytes) -> None:
        """An object was created or changed; `value` is its JSON."""
        ...

    def object_removed(self, kind: str, name: str) -> None:
        """An object was deleted."""
        ...


class SimObjects:
    """The Objects port. One instance is the API server of a world; every client calls the same one."""

    def __init__(self, kernel: Timers, chance: Chance, latency: Duration = LATENCY) -> None:
        self._kernel = kernel
        self._chance = chance
        self._half = latency // 2
        self._objects: dict[str, dict[ObjectName, Object]] = {}
        self._version = 0
        self._changes: list[tuple[str, WatchEvent[Object]]] = []
        self._forgotten = 0
        self._waiting: dict[str, list[asyncio.Future[int | None]]] = {}
        """The watches that have told everything of their kind."""
        self._observers: tuple[Observer, ...] = ()
        self.up = True
        self.starts = 0

    # --- the port -----------------------------------------------------------------------------------

    async def list(self, kind: type[O]) -> Listing[O]:
        """As the port says."""
        return await self._call(lambda: self._list(kind))

    async def get(self, kind: type[O], name: ObjectName) -> O:
        """As the port says."""
        return await self._call(lambda: self._stored(kind, name))

    async def create(self, item: O) -> O:
        """As the port says."""
        return await self._call(lambda: self._create(item))

    async def replace(self, item: O) -> O:
        """As the port says."""
        return await self._call(lambda: self._change(item, replaced))

    async def replace_status(self, item: O) -> O:
        """As the port says."""
        return await self._call(lambda: self._change(item, status_replaced))

    async def delete(self, kind: type[O], name: ObjectName) -> None:
        """As the port says."""
        await self._call(lambda: self._delete(kind, name))

    def watch(self, kind: type[O], since: str) -> AsyncIterator[WatchEvent[O]]:
        """As the port says."""
        return _Watch(self, kind, since)

    # --- what the world does to it ------------------------------------------------------------------

    def observe(self, observer: Observer) -> None:
        """Tell `observer` of every change from now on."""
        self._observers = (*self._observers, observer)

    def stop(self) -> None:
        """The API goes away: calls fail, watches end, the objects stay."""
        self.up = False
        for kind in tuple(self._waiting):
            self._wake(kind, None)

    def start(self) -> None:
        """The API is back."""
        self.up = True
        self.starts += 1

    def compact(self) -> None:
        """Forget all changes: a watch from before now is refused."""
        self._forget(len(self._changes))

    # --- for the watches ----------------------------------------------------------------------------

    def change_after(self, version: int) -> tuple[str, WatchEvent[Object]] | None:
        """The change that made version `version + 1`, with its kind. Raises: Refused when it is forgotten."""
        index = version - self._forgotten
        if index < 0:
            raise Refused("too old resource version")
        return self._changes[index] if index < len(self._changes) else None

    async def changed(self, kind: str) -> int | None:
        """Return soon after the next change of that kind, with the version before it; None: the API went away.

        Changes of other kinds wake nobody: a leader that renews its lease would wake every watch every few seconds.
        """
        waiter: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(kind, []).append(waiter)
        return await waiter

    # --- calls --------------------------------------------------------------------------------------

    async def _call(self, action: Callable[[], R]) -> R:
        """The request arrives, and acts, after half the latency, even if its sender is dead by then."""
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._kernel.after(self._half, self._act, action, answer)
        return cast(R, await answer)

    def _act(self, action: Callable[[], object], answer: asyncio.Future[object]) -> None:
        result: object
        try:
            if not self.up:
                raise Unavailable("the API does not answer")
            result = action()
        except FleetError as error:
            result = error
        self._kernel.after(self._half, self._answer, answer, result, self.starts)

    def _answer(self, answer: asyncio.Future[object], result: object, starts: int) -> None:
        if answer.done():
            return
        if isinstance(result, FleetError):
            answer.set_exception(result)
        elif not self.up or starts != self.starts:
            answer.set_exception(Disconnected("the API went away before it answered"))
        else:
            answer.set_result(result)

    # --- what calls do ------------------------------------------------------------------------------

    def _list(self, kind: type[O]) -> Listing[O]:
        items = self._objects.get(kind.kind_name, {})
        return Listing(tuple(cast(O, items[name]) for name in sorted(items)), (), str(self._version))

    def _stored(self, kind: type[O], name: ObjectName) -> O:
        item = self._objects.get(kind.kind_name, {}).get(name)
        if item is None:
            raise NotFound(f"{kind.kind_name} {name} does not exist")
        return cast(O, item)

    def _create(self, item: O) -> O:
        if item.name in self._objects.get(item.kind_name, {}):
            raise Conflict(f"{item.kind_name} {item.name} exists")
        return self._store(created(item, self._chance.token()))

    def _change(self, item: O, how: Callable[[O, O], O]) -> O:
        stored = self._stored(type(item), item.name)
        changed = how(stored, item)
        return stored if changed is stored else self._store(changed)

    def _store(self, item: O) -> O:
        item = at_version(item, str(self._version + 1))
        self._objects.setdefault(item.kind_name, {})[item.name] = item
        self._record(item.kind_name, Applied(item))
        value = to_json(item) if self._observers else b""
        for observer in self._observers:
            observer.object_stored(item.kind_name, item.name, value)
        return item

    def _delete(self, kind: type[O], name: ObjectName) -> None:
        self._stored(kind, name)
        del self._objects[kind.kind_name][name]
        self._record(kind.kind_name, Removed(kind.kind_name, name))
        for observer in self._observers:
            observer.object_removed(kind.kind_name, name)

    def _record(self, kind: str, event: WatchEvent[Object]) -> None:
        self._version += 1
        self._changes.append((kind, event))
        if len(self._changes) > _REMEMBERED:
            self._forget(_REMEMBERED // 2)
        self._wake(kind, self._version - 1)

    def _forget(self, count: int) -> None:
        del self._changes[:count]
        self._forgotten += count

    def _wake(self, kind: str, before: int | None) -> None:
        for waiter in self._waiting.pop(kind, ()):
            self._kernel.after(self._half, _finish, waiter, before)


class _Watch(Generic[O]):
    """One watch. Holds nothing but its place, so that one which its process has left behind costs nothing."""

    def __init__(self, api: SimObjects, kind: type[O], since: str) -> None:
        self._api = api
        self._kind = kind
        self._since = since
        self._place: int | None = None
        self._starts = api.starts

    def __aiter__(self) -> _Watch[O]:
        return self

    async def __anext__(self) -> WatchEvent[O]:
        if self._place is None:
            if not self._api.up:
                raise Unavailable("the API does not answer")
            self._starts = self._api.starts
            self._place = _version(self._since)
        while True:
            if not self._api.up or self._api.starts != self._starts:
                raise Disconnected("the API went away")
            change = self._api.change_after(self._place)
            if change is None:
                before = await self._api.changed(self._kind.kind_name)
                self._place = self._place if before is None else before
                continue
            self._place += 1
            kind, event = change
            if kind == self._kind.kind_name:
                return cast("WatchEvent[O]", event)


def _version(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise Refused(f"{text!r} is not a resource version") from None


def _finish(waiter: asyncio.Future[int | None], before: int | None) -> None:
    if not waiter.done():
        waiter.set_result(before)

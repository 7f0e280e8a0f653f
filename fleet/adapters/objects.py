"""The Objects port without a cluster: objects in the KV bucket `objects`, one key `<Kind>.<name>` each.

The resource version is the revision, optimistic concurrency is the bus's compare-and-swap. A watch hears the
republished writes and reads the bucket again at each session, because what was written in between is not delivered;
delete markers stand in the bucket, so a deletion is found then as well.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from pydantic import ValidationError

from fleet.capabilities.bus import Bus, Deleted, Entry, Stored
from fleet.capabilities.clock import Chance
from fleet.capabilities.objects import Applied, InvalidObject, Listing, Removed, WatchEvent
from fleet.contracts.errors import (
    Conflict,
    Disconnected,
    InvalidValue,
    NotFound,
    Refused,
    TimedOut,
    Unavailable,
)
from fleet.contracts.ids import ObjectName, Revision
from fleet.contracts.layout import Bucket
from fleet.contracts.object_changes import at_version, created, replaced, status_replaced, to_json
from fleet.contracts.objects import Object

O = TypeVar("O", bound=Object)  # noqa: E741 - the one-letter name of the type variable, as in the ports


class StandaloneObjects:
    """The Objects port on any Bus."""

    def __init__(self, bus: Bus, chance: Chance) -> None:
        self._bus = bus
        self._chance = chance

    async def list(self, kind: type[O]) -> Listing[O]:
        """As the port says."""
        entries = await self._bus.entries(Bucket.OBJECTS, kind.kind_name)
        read = [_read(kind, entry) for entry in entries if isinstance(entry, Stored)]
        items = [item for item in read if not isinstance(item, InvalidObject)]
        return Listing(
            tuple(sorted(items, key=lambda item: item.name)),
            tuple(item for item in read if isinstance(item, InvalidObject)),
            str(int(entries[-1].revision)) if entries else "0",
        )

    async def get(self, kind: type[O], name: ObjectName) -> O:
        """As the port says."""
        item = _read(kind, await self._entry(kind, name))
        if isinstance(item, InvalidObject):
            raise InvalidValue(f"{kind.kind_name} {name}: {item.reason}")
        return item

    async def create(self, item: O) -> O:
        """As the port says."""
        item = created(item, self._chance.token())
        try:
            return await self._write(item, Revision(0))
        except Conflict as error:
            raise Conflict(f"{item.kind_name} {item.name} exists") from error

    async def replace(self, item: O) -> O:
        """As the port says."""
        return await self._change(item, replaced)

    async def replace_status(self, item: O) -> O:
        """As the port says."""
        return await self._change(item, status_replaced)

    async def delete(self, kind: type[O], name: ObjectName) -> None:
        """As the port says."""
        while True:
            entry = await self._entry(kind, name)
            try:
                return await self._bus.delete(Bucket.OBJECTS, entry.key, entry.revision)
            except Conflict:
                continue

    async def watch(self, kind: type[O], since: str) -> AsyncIterator[WatchEvent[O]]:
        """As the port says. Ends with `Refused` also when the store went back behind what was seen: list again then."""
        changes = _Changes(self._bus, kind.kind_name, _version(since))
        try:
            while True:
                event = _event(kind, await changes.next())
                if event is not None:
                    yield event
        finally:
            changes.close()

    async def _entry(self, kind: type[O], name: ObjectName) -> Stored:
        entry = await self._bus.get(Bucket.OBJECTS, _key(kind, name))
        if not isinstance(entry, Stored):
            raise NotFound(f"{kind.kind_name} {name} does not exist")
        return entry

    async def _change(self, item: O, how: Callable[[O, O], O]) -> O:
        stored = await self.get(type(item), item.name)
        changed = how(stored, item)
        if changed is stored:
            return stored
        return await self._write(changed, Revision(int(stored.metadata.resource_version)))

    async def _write(self, item: O, last: Revision) -> O:
        value = to_json(at_version(item, ""))
        revision = await self._bus.update(Bucket.OBJECTS, _key(type(item), item.name), value, last)
        return at_version(item, str(int(revision)))


class _Changes:
    """The entries of one kind that are newer than what was seen, over any number of sessions.

    The bus announces a session that stands already as well: that is the first reading.
    """

    def __init__(self, bus: Bus, kind: str, since: int) -> None:
        self._bus = bus
        self._kind = kind
        self._since = since
        self._seen: dict[str, int] = {}
        self._heard: deque[Entry] = deque()
        self._stir = asyncio.Event()
        self._reread = False
        self._subscriptions = (
            bus.listen(Bucket.OBJECTS, kind, self._on_entry),
            bus.on_session(self._on_session),
        )

    async def next(self) -> Entry:
        """The next one, in the order of revisions per key. Raises: Disconnected, Refused."""
        while True:
            if self._reread:
                self._reread = False
                self._heard.extend(await self._read())
            while self._heard:
                entry = self._heard.popleft()
                if self._is_news(entry):
                    return entry
            self._stir.clear()
            await self._stir.wait()

    def close(self) -> None:
        """Hear nothing more."""
        for subscription in self._subscriptions:
            subscription.close()

    def _on_entry(self, entry: Entry) -> None:
        self._heard.append(entry)
        self._stir.set()

    def _on_session(self) -> None:
        self._reread = True
        self._stir.set()

    def _is_news(self, entry: Entry) -> bool:
        if entry.revision <= self._seen.get(entry.key, self._since):
            return False
        self._seen[entry.key] = entry.revision
        return True

    async def _read(self) -> tuple[Entry, ...]:
        try:
            entries = await self._bus.entries(Bucket.OBJECTS, self._kind)
        except (Unavailable, TimedOut) as error:
            raise Disconnected("the store went away") from error
        newest_seen = max(self._seen.values(), default=self._since)
        if (entries[-1].revision if entries else 0) < newest_seen:
            raise Refused("the store went back behind what was seen of it")
        return entries


def _key(kind: type[Object], name: ObjectName) -> str:
    return f"{kind.kind_name}.{name}"


def _version(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise Refused(f"{text!r} is not a resource version") from None


def _event(kind: type[O], entry: Entry) -> WatchEvent[O] | None:
    match entry:
        case Stored():
            item = _read(kind, entry)
            return item if isinstance(item, InvalidObject) else Applied(item)
        case Deleted(_, key):
            name = key.partition(".")[2]
            return Removed(kind.kind_name, ObjectName(name)) if ObjectName.pattern.fullmatch(name) else None


def _read(kind: type[O], entry: Stored) -> O | InvalidObject:
    name = entry.key.partition(".")[2]
    try:
        item = kind.model_validate_json(entry.value)
    except ValidationError as error:
        return InvalidObject(kind.kind_name, name, _explain(kind, error))
    if item.name != name:
        return InvalidObject(kind.kind_name, name, "the object inside has another name")
    return at_version(item, str(int(entry.revision)))


def _explain(kind: type[Object], error: ValidationError) -> str:
    """What is wrong, without a word of the value: it may hold anything."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    parts = [f"{'.'.join(map(str, problem['loc'])) or 'value'}: {problem['msg']}" for problem in problems[:3]]
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return f"not a {kind.kind_name}: {'; '.join(parts)}{more}"

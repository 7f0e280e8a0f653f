"""What is seen of a real bus: every accepted write as the server republishes it, and every request.

NATS does not tell who wrote or asked. The journal therefore names whose key or subject it is, by the layout, or the
harness where the harness wrote: on this target the invariant on foreign keys can find nothing. That a device cannot
write what is not its own is the server's doing here, and the conformance suite proves its permissions.
"""

from __future__ import annotations

from collections.abc import Callable

from fleet.capabilities.bus import Bus, Deleted, Entry, Request, Stored, Subscription
from fleet.capabilities.clock import Clock
from fleet.contracts.errors import TimedOut
from fleet.contracts.ids import Revision
from fleet.contracts.layout import Bucket
from fleet.contracts.time import Duration, Instant
from sim.journal import (
    Event,
    HeartbeatStored,
    Journal,
    KvDeleted,
    KvStored,
    ObjectRemoved,
    ObjectStored,
    RequestSent,
)

OPERATOR = "operator"
HARNESS = "harness"
ENROLMENT = "enrolment"
_TAPPED = ("fleet.stop.*", "fleet.lock.*")
_SETTLE = Duration.seconds(10)
_LOOK_AGAIN = Duration.millis(10)


class BusWatch:
    """Records what goes over `bus`, from `start` on. A tap on requests never answers one."""

    def __init__(self, bus: Bus, journal: Journal, now: Callable[[], Instant]) -> None:
        self._bus = bus
        self._journal = journal
        self._now = now
        self._seen = dict.fromkeys(Bucket, Revision(0))
        self._newest: dict[Bucket, dict[str, Revision]] = {bucket: {} for bucket in Bucket}
        self._raw: dict[tuple[Bucket, str, bytes], None] = {}
        self._open: list[Subscription] = []
        self._waiting: list[Entry] | None = None

    def start(self) -> None:
        """Subscribe. What this connection writes later is certain to be seen."""
        self._open += [self._bus.listen(bucket, "", self._entry) for bucket in Bucket]
        self._open += [self._bus.serve(subject, self._request) for subject in _TAPPED]

    def stop(self) -> None:
        """Record nothing any more."""
        for subscription in self._open:
            subscription.close()
        self._open.clear()

    def expect_raw(self, bucket: Bucket, key: bytes, value: bytes) -> None:
        """The harness is about to write this past all checks: it is the writer, whosever key that is."""
        self._raw[bucket, key.decode("utf-8", "surrogateescape"), value] = None

    async def catch_up(self) -> None:
        """After a restart of the server: record what it accepted and could not republish any more.

        Call it while nobody else can write. Raises: as `Bus.entries`.
        """
        self._waiting = []
        try:
            missed = [entry for bucket in Bucket for entry in await self._bus.entries(bucket) if self._is_new(entry)]
        finally:
            waiting, self._waiting = self._waiting, None
        for entry in (*missed, *waiting):
            if self._is_new(entry):
                self._entry(entry)

    async def look_again(self, buckets: tuple[Bucket, ...]) -> None:
        """The server lost the newest writes of these: record what they hold now, as written by the harness.

        The revisions begin again where each ends. Heartbeats are left out: the next ones replace them. Call it while
        nobody else can write. Raises: as `Bus.entries`.
        """
        for bucket in buckets:
            entries = {entry.key: entry for entry in await self._bus.entries(bucket)}
            known = self._newest[bucket]
            self._seen[bucket] = max((entry.revision for entry in entries.values()), default=Revision(0))
            if bucket is not Bucket.HEARTBEAT:
                for key in sorted({*entries, *known}):
                    entry = entries.get(key, Deleted(bucket, key, self._seen[bucket]))
                    if entry.revision != known.get(key):
                        self._journal.record(self._event(entry, HARNESS))
            self._newest[bucket] = {key: entry.revision for key, entry in entries.items()}

    async def settle(self, clock: Clock) -> None:
        """Return when every write accepted so far has been recorded. `clock` is not paced.

        Raises:
            TimedOut: the server does not republish what it accepted. Otherwise as `Bus.entries`.
        """
        for bucket in Bucket:
            entries = await self._bus.entries(bucket)
            newest = max((entry.revision for entry in entries), default=Revision(0))
            try:
                async with clock.timeout(_SETTLE):
                    while self._seen[bucket] < newest:
                        await clock.sleep(_LOOK_AGAIN)
            except TimeoutError:
                text = f"revision {newest:d} of bucket {bucket} was accepted and not republished within {_SETTLE}"
                raise TimedOut(text) from None

    def _is_new(self, entry: Entry) -> bool:
        return entry.revision > self._seen[entry.bucket]

    def _entry(self, entry: Entry) -> None:
        if self._waiting is not None:
            self._waiting.append(entry)
            return
        self._seen[entry.bucket] = max(self._seen[entry.bucket], entry.revision)
        self._newest[entry.bucket][entry.key] = entry.revision
        self._journal.record(self._event(entry, self._writer(entry)))

    def _writer(self, entry: Entry) -> str:
        raw = isinstance(entry, Stored) and self._raw.pop((entry.bucket, entry.key, entry.value), 0) is None
        return HARNESS if raw else _owner(entry.bucket, entry.key)

    def _event(self, entry: Entry, writer: str) -> Event:
        now, of_object = self._now(), _object_of(entry)
        match entry:
            case Stored(value=value) if of_object is not None:
                return ObjectStored(now, *of_object, value)
            case Deleted() if of_object is not None:
                return ObjectRemoved(now, *of_object)
            case Stored(bucket, key, revision, value):
                kind = HeartbeatStored if bucket is Bucket.HEARTBEAT else KvStored
                return kind(now, bucket, key, revision, writer, value)
            case Deleted(bucket, key, revision):
                return KvDeleted(now, bucket, key, revision, writer)

    def _request(self, request: Request) -> bytes | None:
        _, kind, device = request.subject.split(".", 2)
        sender = OPERATOR if kind == "stop" else device
        self._journal.record(RequestSent(self._now(), request.subject, sender, request.payload))
        return None


def _object_of(entry: Entry) -> tuple[str, str] | None:
    """Kind and name of the object under a key; None where none belongs."""
    match (entry.bucket, *entry.key.split(".")):
        case (Bucket.OBJECTS, kind, name):
            return kind, name
        case _:
            return None


def _owner(bucket: Bucket, key: str) -> str:
    """Whose key it is."""
    match bucket:
        case Bucket.DESIRED | Bucket.OBJECTS:
            return OPERATOR
        case Bucket.IDENTITY:
            return ENROLMENT
        case Bucket.INFO:
            return key
        case Bucket.STATE | Bucket.HEARTBEAT:
            return key.split(".", 1)[0]

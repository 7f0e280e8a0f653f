"""The message bus: KV buckets with revisions, republished writes, request/reply. Bytes in, bytes out.

Low enough that the real codec runs above every implementation. Measured behaviour of the real server that
implementations must keep: a write that timed out may still land (`TimedOut` is `Unknown`); republished writes
are at most once and arrive in revision order; nothing is delivered for what was written while disconnected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fleet.contracts.errors import NotPermitted
from fleet.contracts.ids import Revision
from fleet.contracts.layout import Bucket, BucketSpec
from fleet.contracts.time import Duration


@dataclass(frozen=True, slots=True)
class Stored:
    """The newest entry under a key. Keys are as hostile as values: bytes that are not UTF-8 come surrogate-escaped."""

    bucket: Bucket
    key: str
    revision: Revision
    value: bytes


@dataclass(frozen=True, slots=True)
class Deleted:
    """The key was deleted, purged or expired at this revision."""

    bucket: Bucket
    key: str
    revision: Revision


Entry = Stored | Deleted


@dataclass(frozen=True, slots=True)
class Request:
    """A message that wants an answer."""

    subject: str
    payload: bytes


class Subscription(Protocol):
    """Something that can be ended."""

    @property
    def refused(self) -> NotPermitted | None:
        """Why nothing is delivered, once the server has said that the client may not listen there; None while it may.

        Another session may be another answer. A notification of sessions is never refused.
        """
        ...

    def close(self) -> None:
        """End it. Nothing is delivered any more. Closing twice is harmless."""
        ...


class Bus(Protocol):
    """One client's connection, kept up for the life of the process: reconnects are the implementation's business."""

    def on_session(self, callback: Callable[[], None]) -> Subscription:
        """Call back at each established session, soon if one stands already. The moment to re-read everything."""
        ...

    def is_connected(self) -> bool:
        """Whether a session stands right now, as far as this side can know."""
        ...

    async def may_log_in(self) -> bool:
        """Whether a new connection is let in now: opens one beside the one that stands, and leaves it.

        False when it is not, for whatever reason, and when nobody says so in time.
        """
        ...

    async def put(self, bucket: Bucket, key: str, value: bytes) -> Revision:
        """Write, whatever stands there.

        Raises:
            Unavailable: no connection, nothing was sent.
            TimedOut, Disconnected: may or may not land, now or after the reconnect. Look what stands there first.
            TooLarge, NotPermitted: refused.
        """
        ...

    def post(self, bucket: Bucket, key: str, value: bytes) -> None:
        """Write without waiting, and without ever knowing whether it was stored: for what is said again anyway.

        Raises:
            Unavailable: no connection, nothing was sent.
            TooLarge, Refused: not sent either. A write that is not permitted is lost in silence.
        """
        ...

    async def update(self, bucket: Bucket, key: str, value: bytes, last: Revision) -> Revision:
        """Write if the newest revision of the key (0: no value stands there, never written or deleted) is `last`.

        Raises:
            Conflict: it is not. Otherwise as `put`.
        """
        ...

    async def delete(self, bucket: Bucket, key: str, last: Revision | None = None) -> None:
        """Delete; with `last`, only if that is still the newest revision. Raises as `update`."""
        ...

    async def get(self, bucket: Bucket, key: str) -> Entry | None:
        """The newest entry by direct get; None when there never was one.

        Raises:
            Unavailable, TimedOut, Disconnected, NotPermitted.
        """
        ...

    async def entries(self, bucket: Bucket, prefix: str = "") -> tuple[Entry, ...]:
        """The newest entry of every key that begins with the token(s) `prefix` ("" for all), in revision order.

        For the operator: a device is not permitted to list, not even its own keys. Raises as `get`.
        """
        ...

    def listen(self, bucket: Bucket, prefix: str, callback: Callable[[Entry], None]) -> Subscription:
        """Call back for accepted writes under keys that begin with the token(s) `prefix` ("" for all).

        `prefix` is whole dot-separated tokens: `"dev-1"` gets `dev-1.agent`, not `dev-10.agent`. The subscription
        outlives reconnects. The callback must not raise.
        """
        ...

    async def request(self, subject: str, payload: bytes, timeout: Duration) -> bytes:
        """Ask and wait for the first answer.

        Raises:
            Unavailable: no connection, or nobody serves the subject.
            NotPermitted, TooLarge; Refused: `subject` is none.
            TimedOut, Disconnected: the other side may have acted.
        """
        ...

    def serve(self, subject: str, handler: Callable[[Request], bytes | None]) -> Subscription:
        """Answer requests on a subject (a last token `*` matches any). None means: not for me, stay silent.

        Raises:
            TooLarge, Refused: `subject` is none.
        """
        ...

    async def close(self) -> None:
        """Leave in order. Nothing is delivered any more."""
        ...


class BusAdmin(Protocol):
    """What the installation may do: make buckets. Separate, because programs must not."""

    async def ensure_bucket(self, spec: BucketSpec) -> None:
        """Make the bucket, or do nothing when it stands with this very configuration.

        Raises:
            Refused: it stands with another configuration. Unavailable, TimedOut.
        """
        ...

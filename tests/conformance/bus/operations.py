"""What is done to a bus in a course: values, made before it is run, so that two makers run the very same ones.

A revision in an operation is a guess, because only the run knows the revisions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fleet.contracts.layout import Bucket


class Guess(Enum):
    """The revision that a writer expects, by what stands there when the operation is run."""

    NEWEST = "newest"
    """What stands there, a delete marker included; 0 when nothing does."""
    NONE = "none"
    """0: no value stands there."""
    OLDER = "older"
    NEWER = "newer"


@dataclass(frozen=True, slots=True)
class Put:
    client: str
    bucket: Bucket
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Post:
    client: str
    bucket: Bucket
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Update:
    client: str
    bucket: Bucket
    key: str
    value: bytes
    last: Guess


@dataclass(frozen=True, slots=True)
class Delete:
    client: str
    bucket: Bucket
    key: str
    last: Guess | None


@dataclass(frozen=True, slots=True)
class MayLogIn:
    client: str


@dataclass(frozen=True, slots=True)
class Get:
    client: str
    bucket: Bucket
    key: str


@dataclass(frozen=True, slots=True)
class Entries:
    client: str
    bucket: Bucket
    prefix: str


@dataclass(frozen=True, slots=True)
class Listen:
    client: str
    bucket: Bucket
    prefix: str


@dataclass(frozen=True, slots=True)
class Serve:
    """Answer a subject with the payload and `answer` behind it; None: stay silent."""

    client: str
    subject: str
    answer: bytes | None


@dataclass(frozen=True, slots=True)
class EndSubscription:
    """Close the subscription that was made as this one, counted round; nothing when there is none."""

    number: int


@dataclass(frozen=True, slots=True)
class Request:
    client: str
    subject: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class RawWrite:
    """A write past every check of a client library."""

    user: str
    bucket: Bucket
    key: bytes
    lines: tuple[bytes, ...]
    value: bytes


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A request to the server's API with which a device might reach beyond its keys."""

    user: str
    subject: str


@dataclass(frozen=True, slots=True)
class Ensure:
    """Make the bucket again, with this history."""

    bucket: Bucket
    history: int


@dataclass(frozen=True, slots=True)
class Reopen:
    """A program ends and another one with the same name begins."""

    client: str


@dataclass(frozen=True, slots=True)
class Crash:
    """kill -9 of the server, and its restart on the same store."""


@dataclass(frozen=True, slots=True)
class LoseTail:
    """The server's machine loses power: acknowledged writes are gone, and their revisions are used again."""

    bucket: Bucket
    writes: int


@dataclass(frozen=True, slots=True)
class Keep:
    """Stop the server, copy its store, and start it again."""


@dataclass(frozen=True, slots=True)
class Restore:
    """Kill the server and restart it on the copy of its store; on its own one when none was kept."""


Operation = (
    Put
    | Post
    | Update
    | Delete
    | MayLogIn
    | Get
    | Entries
    | Listen
    | Serve
    | EndSubscription
    | Request
    | RawWrite
    | RawRequest
    | Ensure
    | Reopen
    | Crash
    | LoseTail
    | Keep
    | Restore
)


MEANINGLESS = (b"garbage", b": nameless", b"kv-operation: DEL", b"nats-rollup: all")
"""Lines of a header that are stored and mean nothing to anybody."""


def features(operation: Operation) -> tuple[str, ...]:
    """The names by which the table of the model's surface knows what an operation exercises."""
    lines = operation.lines if isinstance(operation, RawWrite) else ()
    return (type(operation).__name__, *(feature_of(line) for line in lines))


def feature_of(line: bytes) -> str:
    """The name for a line of a header."""
    return "header of any other name" if line in MEANINGLESS else f"header {line.partition(b':')[0].decode()}"

"""What a server with our buckets reads from the header of a write: conditions, markers, and what it refuses.

A header is its lines, as they came. The server looks for a name at the beginning of a line, in exactly its case, and
takes the first that it finds; readers of what was stored take the last, because the server appends its own. A name
without a value counts as missing. Refusals come in a fixed order, whatever the order of the lines.
"""

from __future__ import annotations

from typing import Final

from fleet.contracts.errors import Conflict, FleetError, Refused
from fleet.contracts.layout import Bucket

Lines = tuple[bytes, ...]

_DELETING: Final = (b"DEL", b"PURGE")
_NEVER: Final = b"never"
_UNITS: Final = b"smh"


def size_of(lines: Lines) -> int:
    """Bytes of a header on the wire, which count as part of the message."""
    return 0 if not lines else len(b"NATS/1.0\r\n\r\n") + sum(len(line) + 2 for line in lines)


def is_marker(lines: Lines) -> bool:
    """Whether a reader takes the message for the end of its key."""
    return _last(lines, b"KV-Operation") in _DELETING or _last(lines, b"Nats-Marker-Reason") is not None


def refusal(lines: Lines, bucket: Bucket, sequence: int, newest: int) -> FleetError | None:
    """Why a write with this header is refused; None when it is not.

    Args:
        sequence: of the bucket's newest write.
        newest: the revision of the key's newest message, 0 when there is none.
    """
    if _first(lines, b"Nats-Batch-Id"):
        return Refused("atomic publish is disabled")
    if _first(lines, b"Nats-Incr"):
        return Refused("message counters is disabled")
    stream = _first(lines, b"Nats-Expected-Stream")
    if stream and stream != f"KV_{bucket.value}".encode():
        return Refused("expected stream does not match")
    lifetime = _first(lines, b"Nats-TTL")
    if lifetime and _is_lifetime(lifetime):
        return Refused("per-message TTL is disabled")
    return _unexpected(lines, sequence, newest) or _unsupported(lines)


def _unexpected(lines: Lines, sequence: int, newest: int) -> FleetError | None:
    """A condition on what was written before that does not hold."""
    for name, actual in ((b"Nats-Expected-Last-Subject-Sequence", newest), (b"Nats-Expected-Last-Sequence", sequence)):
        expected = _first(lines, name)
        if expected and _number(expected) != actual:
            return Conflict(f"wrong last sequence: {actual}")
    return None


def _unsupported(lines: Lines) -> FleetError | None:
    """What the buckets do not offer, or what no bucket takes."""
    if _first(lines, b"Nats-Schedule"):
        return Refused("message schedules is disabled")
    if _first(lines, b"Nats-Stream-Source"):
        return Refused("message stream source header is not allowed")
    if _first(lines, b"Nats-Expected-Last-Msg-Id"):
        return Refused("wrong last msg ID: ")
    if _first(lines, b"Nats-Rollup"):
        return Refused("rollup not permitted")
    if _first(lines, b"Nats-TTL"):
        return Refused("invalid per-message TTL")
    return None


def _first(lines: Lines, name: bytes) -> bytes:
    for line in lines:
        if line.startswith(name + b":"):
            return line[len(name) + 1 :].lstrip(b" ")
    return b""


def _last(lines: Lines, name: bytes) -> bytes | None:
    for line in reversed(lines):
        if line.startswith(name + b":"):
            return line[len(name) + 1 :].strip(b" ")
    return None


def _number(text: bytes) -> int:
    """What is no number is the number of no write."""
    return int(text) if text.isdigit() else -1


def _is_lifetime(text: bytes) -> bool:
    return text == _NEVER or _number(text.rstrip(_UNITS)) > 0

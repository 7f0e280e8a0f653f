"""Everything that was ever seen to stand in a bucket and that no reader expects: keys, values and headers.

Values only. Each one says what the real server makes of it, which a conformance test holds against the real server: it
is stored as a value, it is stored as a deletion, or it is refused. Sources: the keys that a client library would refuse
and a raw PUB stores; forged JetStream and KV headers; and what truncated or foreign writers leave behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import cycle
from typing import Final

from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import MAX_VALUE_BYTES, Bucket


class Becomes(Enum):
    """What the server makes of it."""

    VALUE = "value"
    DELETION = "deletion"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class BadEntry:
    """One write. `headers` are whole lines after the version line, each with its CR LF."""

    name: str
    key: bytes
    value: bytes
    headers: bytes
    becomes: Becomes


VALUES: Final = (
    ("empty", b""),
    ("not-json", b"hello"),
    ("not-utf-8", b"\xff\xfe\x00"),
    ("truncated-json", b'{"v":"1.0","device":"dev'),
    ("null", b"null"),
    ("a-list", b"[1,2,3]"),
    ("another-major", b'{"v":"2.0"}'),
    ("no-version", b"{}"),
    ("deeply-nested", b"[" * 2000),
    ("a-number-too-long", b'{"v":' + b"9" * 5000 + b"}"),
    ("a-lone-surrogate", b'{"v":"1.0","device":"\\ud800"}'),
    ("as-large-as-can-be", b"x" * MAX_VALUE_BYTES),
)
"""Under a key that a record belongs under."""

_KEYS: Final = (
    ("literal-star", b"*"),
    ("literal-star-below", b"stranger.*"),
    ("literal-greater", b">"),
    ("literal-greater-below", b"stranger.>"),
    ("a-zero-byte", b"stranger\x00.a"),
    ("not-ascii", "stránger.a".encode()),
    ("not-utf-8", b"\xff\xfe.agent"),
    ("a-colon", b"stranger:a"),
    ("a-hash", b"#"),
    ("a-percent-sign", b"stranger%d"),
    ("a-vertical-tab", b"stranger\x0b.a"),
    ("upper-case", b"STRANGER.agent"),
    ("a-hundred-tokens", b".".join([b"t"] * 100)),
    ("very-long", b"k" * 3800),
)
_UNSTORABLE_KEYS: Final = (("an-empty-token", b"stranger..a"), ("a-dot-at-the-end", b"stranger."))

_HEADERS: Final = (
    ("an-unknown-operation", b"KV-Operation: EXPLODE\r\n", Becomes.VALUE),
    ("a-deletion-with-a-body", b"KV-Operation: DEL\r\n", Becomes.DELETION),
    ("a-lower-case-operation", b"kv-operation: DEL\r\n", Becomes.VALUE),
    ("a-forged-expiry", b"Nats-Marker-Reason: MaxAge\r\n", Becomes.DELETION),
    ("a-forged-sequence", b"Nats-Sequence: 1\r\n", Becomes.VALUE),
    ("a-forged-subject", b"Nats-Subject: $KV.desired.device-001.agent\r\n", Becomes.VALUE),
    ("a-forged-status", b"Status: 404\r\n", Becomes.VALUE),
    ("a-line-without-a-colon", b"this is no header\r\n", Becomes.VALUE),
    ("a-rollup-of-the-bucket", b"Nats-Rollup: all\r\n", Becomes.REFUSED),
    ("a-rollup-of-the-key", b"Nats-Rollup: sub\r\n", Becomes.REFUSED),
    ("a-rollup-of-nothing", b"Nats-Rollup: bogus\r\n", Becomes.REFUSED),
    ("a-time-to-live", b"Nats-TTL: 1\r\n", Becomes.REFUSED),
    ("another-stream", b"Nats-Expected-Stream: KV_other\r\n", Becomes.REFUSED),
    ("a-sequence-to-come", b"Nats-Expected-Last-Sequence: 999999999\r\n", Becomes.REFUSED),
    ("a-message-id-before-it", b"Nats-Expected-Last-Msg-Id: never\r\n", Becomes.REFUSED),
)


def of_bucket(bucket: Bucket) -> tuple[BadEntry, ...]:
    """All of them, under keys that no device of a scenario owns. No key comes twice."""
    found = [BadEntry(f"key-{name}", key, b"{}", b"", Becomes.VALUE) for name, key in _KEYS]
    found += [BadEntry(f"key-{name}", key, b"{}", b"", Becomes.REFUSED) for name, key in _UNSTORABLE_KEYS]
    for name, value in VALUES:
        found.append(BadEntry(f"value-{name}", _plausible(bucket, f"value-{name}"), value, b"", Becomes.VALUE))
    too_large = b"x" * (2 * MAX_VALUE_BYTES)
    found.append(BadEntry("value-too-large", _plausible(bucket, "large"), too_large, b"", Becomes.REFUSED))
    for name, headers, becomes in _HEADERS:
        found.append(BadEntry(f"header-{name}", _plausible(bucket, f"header-{name}"), b"junk", headers, becomes))
    return tuple(found)


def over(keys: tuple[str, ...]) -> tuple[tuple[str, bytes], ...]:
    """A bad value for each of these keys."""
    return tuple(zip(sorted(keys), cycle(value for _, value in VALUES), strict=False))


def belongs_to(device: DeviceId, bucket: Bucket, key: str) -> bool:
    """Whether a key of a bucket is about a device."""
    match bucket:
        case Bucket.OBJECTS:
            return key == f"Device.{device}"
        case Bucket.INFO | Bucket.IDENTITY:
            return key == device
        case Bucket.DESIRED | Bucket.STATE | Bucket.HEARTBEAT:
            return key.startswith(f"{device}.")


def _plausible(bucket: Bucket, name: str) -> bytes:
    """A key that a record could stand under, of a device that does not exist."""
    device = f"stranger-{name}"[:60].rstrip("-")
    match bucket:
        case Bucket.DESIRED:
            key = f"{device}.agent"
        case Bucket.STATE:
            key = f"{device}.upgrade"
        case Bucket.HEARTBEAT:
            key = f"{device}.a"
        case Bucket.OBJECTS:
            key = f"Device.{device}"
        case Bucket.INFO | Bucket.IDENTITY:
            key = device
    return key.encode()

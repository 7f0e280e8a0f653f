"""What the bus says to a NATS server and what it hears: subjects, frames, acknowledgements. Nothing here does I/O.

Everything that arrives may have been made by a hostile writer; nothing here raises because of it except for what is
said in the docstrings.
"""

from __future__ import annotations

import json
import re
from typing import Final

from fleet.adapters.nats_wire import Frame, Headers
from fleet.capabilities.bus import Deleted, Entry, Stored
from fleet.contracts.errors import Conflict, Definite, Refused, TimedOut, TooLarge, Unavailable
from fleet.contracts.ids import Revision
from fleet.contracts.layout import Bucket

WRONG_LAST_SEQUENCE: Final = 10071
MESSAGE_TOO_LARGE: Final = 10054
STREAM_EXISTS: Final = 10058
DELETE: Final = b"NATS/1.0\r\nKV-Operation: DEL\r\n"
PUT: Final = b"NATS/1.0\r\n"
_ANSWERABLE: Final = re.compile(r"_INBOX_[-a-zA-Z0-9_]+(?:\.[-a-zA-Z0-9_]+)+|_R_\.[a-zA-Z0-9]{6}\.[a-zA-Z0-9]+")
_DELETING: Final = ("DEL", "PURGE")
_FORBIDDEN: Final = re.compile(r"'Permissions Violation for (Publish|Subscription) to \"([^\"]*)\"")
MAX_CONTROL_LINE: Final = 4096
"""Bytes of a line of the protocol, without its end. At a longer one the server ends the connection."""


def value_subject(bucket: Bucket, key: str) -> str:
    """What a write to a key is published on."""
    return f"$KV.{bucket.value}.{key}"


def direct_get_subject(bucket: Bucket, key: str) -> str:
    """What a direct get of one key is requested on."""
    return f"$JS.API.DIRECT.GET.KV_{bucket.value}.$KV.{bucket.value}.{key}"


def listing_subject(bucket: Bucket) -> str:
    """What a direct get of many keys is requested on."""
    return f"$JS.API.DIRECT.GET.KV_{bucket.value}"


def listing_request(bucket: Bucket, prefix: str, start: int, count: int) -> bytes:
    """The body of a listing: up to `count` messages below `prefix`, from revision `start` on."""
    below = value_subject(bucket, f"{prefix}.>" if prefix else ">")
    return json.dumps({"seq": start, "next_by_subj": below, "batch": count}).encode()


def publish(subject: str, reply: str, payload: bytes, header: bytes = b"") -> bytes:
    """The protocol line of a message. `header` begins with `NATS/1.0`, every line of it ends, without the empty one.

    Raises:
        TooLarge: the server would end the connection at such a line.
    """
    to = f"{subject} {reply} " if reply else f"{subject} "
    if not header:
        return _line(f"PUB {to}{len(payload)}") + payload + b"\r\n"
    head = header + b"\r\n"
    return _line(f"HPUB {to}{len(head)} {len(head) + len(payload)}") + head + payload + b"\r\n"


def subscribe(subject: str, sid: int, queue: str = "") -> bytes:
    """The protocol line that asks for messages, or for the share of one in a group. Raises: TooLarge."""
    return _line(f"SUB {subject} {queue} {sid}" if queue else f"SUB {subject} {sid}")


def unsubscribe(sid: int) -> bytes:
    """The protocol line that asks for no more of them."""
    return _line(f"UNSUB {sid}")


def _line(text: str) -> bytes:
    line = text.encode()
    if len(line) > MAX_CONTROL_LINE:
        raise TooLarge(f"a line of {len(line)} bytes: {MAX_CONTROL_LINE} are the most that the server takes")
    return line + b"\r\n"


def forbidden(error: str) -> tuple[str, str] | None:
    """What an error that the server reports says no to: `publish` or `subscription`, and the subject."""
    found = _FORBIDDEN.match(error)
    return None if found is None else (found[1].lower(), found[2])


def with_expected(header: bytes, last: int | None) -> bytes:
    """A write's header that also asks for the newest revision of the key to be `last` (None: whatever it is)."""
    if last is None:
        return b"" if header == PUT else header
    return header + f"Nats-Expected-Last-Subject-Sequence: {int(last)}\r\n".encode()


def is_no_responders(frame: Frame) -> bool:
    """Whether the server says that nobody listens to the subject of a request."""
    return not frame.payload and Headers(frame.header).status == "503"


def reply_subject(frame: Frame) -> str | None:
    """Where the answer to a request may go; None when nowhere.

    Only to an inbox, or to what the server made of one between two accounts (it takes no such subject from a client).
    The asker chooses the subject and the answer is published with the permissions of whoever answers: a device could
    otherwise have the operator write any key for it.
    """
    reply = frame.reply.decode("ascii", "replace")
    return reply if _ANSWERABLE.fullmatch(reply) else None


def acknowledged(frame: Frame) -> Revision:
    """The revision of an accepted write.

    Raises:
        Unavailable, Conflict, TooLarge, Refused: it was not accepted. TimedOut: the answer cannot be read.
    """
    if is_no_responders(frame):
        raise Unavailable("there is no such bucket, or the server does not serve it now")
    match _json(frame.payload):
        case {"error": dict(error)}:
            raise refusal(error)
        case {"seq": int(number)} if number > 0:
            return Revision(number)
        case _:
            raise TimedOut("the server's acknowledgement cannot be read")


def refusal(error: dict[str, object]) -> Definite:
    """The error that an API answer stands for."""
    text = str(error.get("description", "refused"))
    match error.get("err_code"), error.get("code"):
        case 10071, _:
            return Conflict(text)
        case 10054, _:
            return TooLarge(text)
        case _, 503:
            return Unavailable(text)
        case _:
            return Refused(text)


def republished(frame: Frame, bucket: Bucket) -> Entry | None:
    """The stored write that a republished message tells of; None when it is none."""
    prefix = f"fleet.{bucket.value}.".encode()
    if not frame.subject.startswith(prefix):
        return None
    key = frame.subject[len(prefix) :].decode("utf-8", "surrogateescape")
    return _entry(Headers(frame.header), bucket, key, frame.payload)


def gotten(frame: Frame, bucket: Bucket, key: str) -> Entry | None:
    """What a direct get of one key found.

    Raises:
        Unavailable: no such bucket. Refused.
    """
    headers = Headers(frame.header)
    entry = _entry(headers, bucket, key, frame.payload)
    if entry is None:
        _check_status(headers)
    return entry


def listed(frame: Frame, bucket: Bucket) -> Entry | int:
    """One message of a listing's answer: an entry, or at its end the number of messages that are left.

    Raises:
        Unavailable: no such bucket. Refused.
    """
    headers = Headers(frame.header)
    prefix = value_subject(bucket, "")
    subject = headers.last(b"Nats-Subject")
    if subject is not None and subject.startswith(prefix):
        entry = _entry(headers, bucket, subject[len(prefix) :], frame.payload)
        if entry is not None:
            return entry
    if headers.status == "204":
        return headers.number(b"Nats-Num-Pending") or 0
    _check_status(headers)
    return 0


def _check_status(headers: Headers) -> None:
    match headers.status:
        case "404":
            return
        case "503":
            raise Unavailable("there is no such bucket, or the server does not serve it now")
        case status:
            raise Refused(f"a direct get was answered with status {status or 'none'}")


def _entry(headers: Headers, bucket: Bucket, key: str, payload: bytes) -> Entry | None:
    number = headers.number(b"Nats-Sequence")
    if number is None:
        return None
    if headers.last(b"KV-Operation") in _DELETING or headers.last(b"Nats-Marker-Reason") is not None:
        return Deleted(bucket, key, Revision(number))
    return Stored(bucket, key, Revision(number), payload)


def _json(data: bytes) -> object:
    try:
        content: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return content

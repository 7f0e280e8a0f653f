"""What is said to a NATS server and heard from it, hostile answers included."""

from __future__ import annotations

import json

import pytest

from fleet.adapters import nats_messages as messages
from fleet.adapters.nats_wire import Frame, Headers
from fleet.capabilities.bus import Deleted, Stored
from fleet.contracts.errors import Conflict, FleetError, Refused, TimedOut, TooLarge, Unavailable
from fleet.contracts.ids import Revision
from fleet.contracts.layout import Bucket

STATE = Bucket.STATE


def frame(payload: bytes = b"", header: bytes = b"", subject: bytes = b"fleet.state.d.a", reply: bytes = b"") -> Frame:
    return Frame(1, subject, reply, header, payload)


def head(*lines: bytes, status: bytes = b"") -> bytes:
    first = b"NATS/1.0" + (b" " + status if status else b"")
    return b"\r\n".join((first, *lines, b"", b""))


def test_a_message_is_written_as_the_protocol_wants_it() -> None:
    assert messages.publish("a.b", "", b"xyz") == b"PUB a.b 3\r\nxyz\r\n"
    assert messages.publish("a.b", "in.1", b"xyz") == b"PUB a.b in.1 3\r\nxyz\r\n"
    written = messages.publish("a.b", "in.1", b"xyz", messages.with_expected(messages.DELETE, 7))
    line, _, rest = written.partition(b"\r\n")
    verb, subject, reply, header_size, size = line.split(b" ")
    assert (verb, subject, reply) == (b"HPUB", b"a.b", b"in.1")
    assert rest[: int(header_size)] == head(b"KV-Operation: DEL", b"Nats-Expected-Last-Subject-Sequence: 7")
    assert rest[int(header_size) : int(size)] == b"xyz"
    assert rest[int(size) :] == b"\r\n"


def test_a_plain_write_has_no_header() -> None:
    assert messages.with_expected(messages.PUT, None) == b""
    assert messages.with_expected(messages.DELETE, None) == messages.DELETE
    assert b"Sequence: 0" in messages.with_expected(messages.PUT, 0)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"error": {"code": 400, "err_code": 10071, "description": "wrong last sequence: 2"}, "seq": 0}, Conflict),
        ({"error": {"code": 400, "err_code": 10054, "description": "message size"}, "seq": 0}, TooLarge),
        ({"error": {"code": 503, "err_code": 10077, "description": "maximum bytes"}, "seq": 0}, Unavailable),
        ({"error": {"code": 500, "err_code": 10111, "description": "rollup"}, "seq": 0}, Refused),
        ({"error": {}}, Refused),
        ({"seq": 0}, TimedOut),
        ({"seq": "7"}, TimedOut),
        ([], TimedOut),
    ],
)
def test_a_write_that_was_not_acknowledged_says_what_is_known(answer: object, expected: type[FleetError]) -> None:
    with pytest.raises(FleetError) as caught:
        messages.acknowledged(frame(json.dumps(answer).encode()))
    assert type(caught.value) is expected


def test_an_acknowledgement_is_a_revision() -> None:
    assert messages.acknowledged(frame(b'{"stream":"KV_state","seq":36,"duplicate":true}')) == Revision(36)
    with pytest.raises(Unavailable):
        messages.acknowledged(frame(header=head(status=b"503")))
    for payload in (b"", b"\xff", b"[" * 100_000):
        with pytest.raises(TimedOut):
            messages.acknowledged(frame(payload))


def test_of_several_headers_the_last_is_the_servers() -> None:
    forged = head(b"Nats-Sequence: 999", b"Nats-Subject: evil", b"Nats-Subject: $KV.state.d.a", b"Nats-Sequence: 12")
    assert messages.republished(frame(b"v", forged), STATE) == Stored(STATE, "d.a", Revision(12), b"v")
    assert messages.listed(frame(b"v", forged), STATE) == Stored(STATE, "d.a", Revision(12), b"v")


def test_a_stored_message_that_looks_like_a_status_is_a_message() -> None:
    for status in (b"404 \xff", b"204 EOB", b"503"):
        forged = head(b"Nats-Subject: $KV.state.d.a", b"Nats-Sequence: 12", status=status)
        assert messages.gotten(frame(b"v", forged), STATE, "d.a") == Stored(STATE, "d.a", Revision(12), b"v")
        assert messages.listed(frame(b"v", forged), STATE) == Stored(STATE, "d.a", Revision(12), b"v")


@pytest.mark.parametrize(
    "marker", [b"KV-Operation: DEL", b"KV-Operation: PURGE", b"Nats-Marker-Reason: MaxAge", b"KV-Operation:DEL"]
)
def test_a_marker_is_a_deletion(marker: bytes) -> None:
    header = head(marker, b"Nats-Sequence: 12")
    assert messages.gotten(frame(b"body", header), STATE, "d.a") == Deleted(STATE, "d.a", Revision(12))


@pytest.mark.parametrize("marker", [b"kv-operation: DEL", b"KV-Operation: NONSENSE", b"garbage", b":", b"\xff: \xff"])
def test_anything_else_is_a_value(marker: bytes) -> None:
    header = head(marker, b"Nats-Sequence: 12")
    assert messages.gotten(frame(b"", header), STATE, "d.a") == Stored(STATE, "d.a", Revision(12), b"")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"NATS/1.0",
        head(),
        head(b"Nats-Sequence: x"),
        head(b"Nats-Sequence: -1"),
        head("Nats-Sequence: ²".encode()),
    ],
)
def test_what_the_server_did_not_republish_is_nothing(header: bytes) -> None:
    assert messages.republished(frame(b"v", header), STATE) is None


def test_keys_that_are_not_text_are_kept_as_they_are() -> None:
    header = head(b"Nats-Subject: $KV.state.d.\xff\xfe", b"Nats-Sequence: 3")
    entry = messages.republished(frame(b"v", header, b"fleet.state.d.\xff\xfe"), STATE)
    assert entry is not None
    assert entry.key.encode("utf-8", "surrogateescape") == b"d.\xff\xfe"
    assert messages.listed(frame(b"v", header), STATE) == entry


def test_a_status_without_a_message_is_one() -> None:
    assert messages.gotten(frame(header=head(status=b"404 Message Not Found")), STATE, "k") is None
    assert messages.listed(frame(header=head(status=b"404 Message Not Found")), STATE) == 0
    assert messages.listed(frame(header=head(b"Nats-Num-Pending: 8", status=b"204 EOB")), STATE) == 8
    with pytest.raises(Unavailable):
        messages.gotten(frame(header=head(status=b"503")), STATE, "k")
    with pytest.raises(Refused):
        messages.listed(frame(header=head(status=b"408 Bad Request")), STATE)
    with pytest.raises(Refused):
        messages.gotten(frame(b"whatever"), STATE, "k")


def test_an_answer_goes_to_an_inbox_and_nowhere_else() -> None:
    assert messages.reply_subject(frame(reply=b"_INBOX_dev-1.f00.1")) == "_INBOX_dev-1.f00.1"
    for reply in (
        b"",
        b"$KV.desired.dev-2.agent",
        b"fleet.stop.dev-2",
        b"_INBOX_dev-1.>",
        b"_INBOX_\xff.a",
        b"_INBOX_",
    ):
        assert messages.reply_subject(frame(reply=reply)) is None


def test_headers_are_read_without_trust() -> None:
    headers = Headers(b"NATS/1.0 404 \xff\xff\r\nno colon\r\nA: 1\r\nA:2 \r\n\r\n")
    assert headers.status == "404"
    assert headers.last(b"A") == "2"
    assert headers.number(b"A") == 2
    assert headers.last(b"B") is None
    assert Headers(b"").status == ""

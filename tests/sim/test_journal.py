"""The journal: same events, same hash; any difference, another hash; readers get their own type alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from fleet.contracts.ids import DeviceId, Release, Revision, Sha256, Slot, Version
from fleet.contracts.layout import Bucket
from fleet.contracts.time import Instant
from sim.journal import (
    AgentEnded,
    AgentStarted,
    Event,
    HeartbeatStored,
    Journal,
    KvStored,
    ObjectStored,
    RequestSent,
    to_json,
)

RELEASE = Release(version=Version("1.0.0"), sha256=Sha256("a" * 64))
STARTED = AgentStarted(Instant(5), DeviceId("dev-1"), Slot.A, RELEASE)
STORED = KvStored(Instant(7), Bucket.STATE, "dev-1.upgrade", Revision(3), "dev-1", b'{"v":"1.0"}')


def hashed(*events: Event) -> str:
    journal = Journal()
    for event in events:
        journal.record(event)
    return journal.sha256()


def test_same_events_same_hash() -> None:
    assert hashed(STARTED, STORED) == hashed(STARTED, STORED)


@pytest.mark.parametrize(
    "other",
    [
        replace(STORED, at=Instant(8)),
        replace(STORED, bucket=Bucket.INFO),
        replace(STORED, key="dev-1.upgrad"),
        replace(STORED, revision=Revision(4)),
        replace(STORED, writer="dev-2"),
        replace(STORED, value=b'{"v":"1.1"}'),
        replace(STARTED, slot=Slot.B),
    ],
)
def test_any_difference_is_another_hash(other: Event) -> None:
    assert hashed(STARTED, STORED) != hashed(STARTED, other)


def test_order_counts() -> None:
    assert hashed(STARTED, STORED) != hashed(STORED, STARTED)


def test_bytes_cannot_move_between_key_and_value() -> None:
    one = replace(STORED, key="a\nb", value=b"c")
    two = replace(STORED, key="a", value=b"b\nc")
    assert hashed(one) != hashed(two)


def test_readers_get_exactly_their_type_in_order() -> None:
    journal = Journal()
    stored: list[Event] = []
    everything: list[Event] = []
    journal.subscribe(KvStored, stored.append)
    journal.subscribe_all(everything.append)
    beat = HeartbeatStored(Instant(9), Bucket.HEARTBEAT, "dev-1.a", Revision(1), "dev-1", b"{}")
    for event in (STARTED, STORED, beat):
        journal.record(event)
    assert stored == [STORED]
    assert everything == [STARTED, STORED, beat]
    assert journal.count == 3


def test_json_names_the_event_and_shows_bytes_that_are_not_json_in_base64() -> None:
    assert json.loads(to_json(AgentEnded(Instant(1), DeviceId("d"), Slot.B, -9))) == {
        "at": 1, "event": "AgentEnded", "device": "d", "slot": "b", "code": -9,
    }  # fmt: skip
    request = json.loads(to_json(RequestSent(Instant(1), "fleet.stop.d", "operator", b"\xff")))
    assert request["payload"] == {"base64": "/w=="}


def test_hostile_keys_are_hashed_and_shown() -> None:
    hostile = replace(STORED, key=b"\xff\xfe".decode("utf-8", "surrogateescape"))
    assert hashed(hostile) != hashed(STORED)
    assert json.loads(to_json(hostile))["event"] == "KvStored"


@pytest.mark.parametrize("text", ["plain", 'a \\"quoted\\" word', "slash \\/", "two\\nlines", "größer", "\x7f"])
def test_an_object_is_hashed_as_its_json_says_whether_or_not_it_was_read_for_that(text: str) -> None:
    stored = ObjectStored(Instant(9), "AgentRollout", "to-2", f'{{"message":"{text}","count":3}}'.encode())
    assert hashed(stored) == hashlib.sha256(Journal.HEAD + f"9 {to_json(stored)}\n".encode()).hexdigest()

"""Patterns, permissions, and that the index of listeners finds exactly what the patterns match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import Bucket
from fleet.contracts.permissions import of_device
from sim.nats.subjects import (
    Interest,
    direct_get_subject,
    listing_subject,
    matches,
    may_publish,
    may_subscribe,
    value_subject,
)

TOKENS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4)
LAST = st.sampled_from(["a", "b", "*", ">"])
PATTERNS = st.builds(lambda tokens, last: ".".join([*tokens[1:], last]), TOKENS, LAST)


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        (">", "a", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*.c", "a.b.c", True),
        ("a.b", "a.b", True),
        ("a.b", "a.bb", False),
        ("a.>", "a.>", True),
        ("a.b.>", "a.>", False),
    ],
)
def test_a_pattern_covers_what_it_says(pattern: str, subject: str, expected: bool) -> None:
    assert matches(pattern, subject) is expected


@given(st.lists(PATTERNS, max_size=8), TOKENS)
def test_the_index_finds_what_the_patterns_match(patterns: list[str], tokens: list[str]) -> None:
    interest: Interest[int] = Interest()
    subject = ".".join(tokens)
    for number, pattern in enumerate(patterns):
        interest.of(subject)
        interest.add(pattern, number)
    expected = [number for number, pattern in enumerate(patterns) if matches(pattern, subject)]
    assert sorted(interest.of(subject)) == expected
    for number, pattern in enumerate(patterns):
        interest.remove(pattern, number)
        interest.remove(pattern, number)
    assert interest.of(subject) == ()


def test_a_wildcard_inside_a_pattern_is_not_modelled() -> None:
    interest: Interest[int] = Interest()
    with pytest.raises(InvalidValue):
        interest.add("a.*.c", 1)


def test_a_device_is_let_do_its_own_and_nothing_else() -> None:
    own = of_device(DeviceId("dev-1"))
    for subject in (
        value_subject(Bucket.STATE, "dev-1.upgrade"),
        value_subject(Bucket.HEARTBEAT, "dev-1.a"),
        value_subject(Bucket.INFO, "dev-1"),
        direct_get_subject(Bucket.DESIRED, "dev-1.workload.w"),
        "fleet.lock.dev-1",
    ):
        assert may_publish(own, subject), subject
    for subject in (
        value_subject(Bucket.STATE, "dev-10.upgrade"),
        value_subject(Bucket.STATE, "dev-1"),
        value_subject(Bucket.DESIRED, "dev-1.agent"),
        value_subject(Bucket.OBJECTS, "Device.dev-1"),
        direct_get_subject(Bucket.DESIRED, "dev-2.agent"),
        listing_subject(Bucket.DESIRED),
        "fleet.lock.dev-2",
        "fleet.stop.dev-1",
        "fleet.desired.dev-1.agent",
        "$JS.API.STREAM.CREATE.KV_desired",
    ):
        assert not may_publish(own, subject), subject


def test_a_device_hears_its_own_and_nothing_else() -> None:
    own = of_device(DeviceId("dev-1"))
    for subject in ("fleet.desired.dev-1.>", "fleet.desired.dev-1", "fleet.stop.dev-1", "_INBOX_dev-1.x.*"):
        assert may_subscribe(own, subject), subject
    for subject in (">", "fleet.>", "fleet.desired.>", "fleet.desired.*", "fleet.stop.*", "fleet.stop.>", "$KV.>"):
        assert not may_subscribe(own, subject), subject

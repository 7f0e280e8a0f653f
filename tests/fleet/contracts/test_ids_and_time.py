"""Identifiers are well formed when they exist; times keep their kind and every nanosecond."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import (
    AttemptId,
    BootId,
    DeploymentName,
    DeviceId,
    ObjectName,
    Percent,
    Release,
    Revision,
    Sha256,
    Slot,
    Version,
)
from fleet.contracts.time import ZERO, Duration, Instant

GOOD: dict[type[str], list[str]] = {
    DeviceId: ["a", "pi-1", "0", "a" * 63],
    DeploymentName: ["web"],
    ObjectName: ["rollout-1"],
    Version: ["0.0.0", "1.4.0-rc1", "999999.0.1"],
    Sha256: ["0f" * 32],
    BootId: ["b", "6e2c-11"],
    AttemptId: ["r-1-abc", "a.b"],
}
BAD: dict[type[str], list[str]] = {
    DeviceId: ["", "-a", "a-", "A", "a.b", "a_b", "a" * 64, "a\n", "ä", "pi 1"],
    DeploymentName: ["", "a.b"],
    ObjectName: ["", "Object"],
    Version: ["1", "1.0", "v1.0.0", "1.0.0-", "1.0.0-RC", "1.0.0\n", "1.0.0+1", "1111111.0.0"],
    Sha256: ["0F" * 32, "0f" * 31, "0f" * 33, "0f" * 32 + "\n"],
    BootId: ["", "B"],
    AttemptId: ["", "-a", ".a", "a b"],
}
good = [(kind, text) for kind, texts in GOOD.items() for text in texts]
bad = [(kind, text) for kind, texts in BAD.items() for text in texts]


@pytest.mark.parametrize(("kind", "text"), good)
def test_what_is_well_formed_is_taken_by_both_ways_in(kind: type[str], text: str) -> None:
    assert kind(text) == text
    parsed = TypeAdapter(kind).validate_python(text)
    assert (parsed, type(parsed)) == (text, kind)


@pytest.mark.parametrize(("kind", "text"), bad)
def test_what_is_not_is_refused_by_both_ways_in(kind: type[str], text: str) -> None:
    with pytest.raises(InvalidValue, match=re.escape(repr(text))):
        kind(text)
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(text)


@given(st.text(max_size=70))
def test_both_ways_in_agree(text: str) -> None:
    for kind in GOOD:
        try:
            taken = bool(TypeAdapter(kind).validate_python(text))
        except ValidationError:
            taken = False
        try:
            kind(text)
        except InvalidValue:
            assert not taken
        else:
            assert taken


def test_numbers_with_bounds() -> None:
    assert Percent(25).of(10) == 2
    assert Revision(0) < Revision(1)
    for kind, number in ((Percent, -1), (Percent, 101), (Revision, -1)):
        with pytest.raises(InvalidValue):
            kind(number)


def test_a_release_is_named_by_both_its_parts() -> None:
    one = Release(version=Version("1.0.0"), sha256=Sha256("a" * 64))
    other = Release(version=Version("1.0.0"), sha256=Sha256("b" * 64))
    assert one != other
    assert str(one) == f"1.0.0@{'a' * 12}"
    assert Slot.A.other is Slot.B
    assert Slot.B.other is Slot.A


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", Duration.seconds(90)),
        ("1h30m", Duration.minutes(90)),
        ("250ms", Duration.millis(250)),
        ("1.5s", Duration.millis(1500)),
        ("1d", Duration.minutes(1440)),
        ("5ns", Duration(5)),
    ],
)
def test_lengths_are_read_as_people_write_them(text: str, length: Duration) -> None:
    assert Duration.parse(text) == length


@pytest.mark.parametrize("text", ["", "5", "-5s", "5 s", "s", "5x", "5s!", "1h 30m", "٥s"])
def test_what_is_no_length_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidValue, match="such as 30s"):
        Duration.parse(text)


@given(st.integers(0, 10**18))
def test_what_is_printed_reads_back_exactly(ns: int) -> None:
    assert Duration.parse(str(Duration(ns))) == ns


@given(st.integers(-(10**19), 10**19), st.integers(-(10**18), 10**18))
def test_arithmetic_keeps_the_kind_and_every_nanosecond(at: int, length: int) -> None:
    later = Instant(at) + Duration(length)
    assert (type(later), later) == (Instant, at + length)
    assert type(later - Instant(at)) is Duration
    assert later - Instant(at) == length
    assert type(later - Duration(length)) is Instant
    assert type(Duration(length) * 2) is Duration
    assert type(Duration(length) - Duration(1)) is Duration


def test_a_length_and_an_instant_do_not_add_the_wrong_way_round() -> None:
    assert Duration(1).__add__(Instant(1)) is NotImplemented
    assert ZERO == 0


def test_a_wall_clock_instant_is_printed_in_utc() -> None:
    assert Instant(1_767_225_600_123 * 10**6).utc() == "2026-01-01T00:00:00.123Z"

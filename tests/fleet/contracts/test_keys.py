"""Keys as people see them: whatever stands there, a log line stays a short line of text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.contracts.keys import shown


def test_a_key_of_ours_is_shown_whole() -> None:
    assert shown("dev-1.workload.web") == "'dev-1.workload.web'"


def test_a_long_key_is_cut_and_its_length_told() -> None:
    text = shown("x" * 800)
    assert text.startswith("'xxx")
    assert text.endswith("(800 characters)")


@given(st.binary(max_size=4000))
def test_any_bytes_become_a_short_printable_line(key: bytes) -> None:
    text = shown(key.decode("utf-8", "surrogateescape"))
    assert text.replace("…", "").isascii()
    assert text.isprintable()
    assert len(text) < 1100

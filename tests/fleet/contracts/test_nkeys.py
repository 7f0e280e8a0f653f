"""NATS key seeds: known ones are read and written to the letter, and a slip in one is noticed."""

from __future__ import annotations

import base64
import binascii

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.contracts.errors import InvalidValue
from fleet.contracts.nkeys import KeyKind, decode_public, decode_seed, encode_public, encode_seed, secret_of

PUBLISHED = (
    (KeyKind.USER, b"SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"),
    (KeyKind.ACCOUNT, b"SAANDLKMXL6CUS3CP52WIXBEDN6YJ545GDKC65U5JZPPV6WH6ESWUA6YAI"),
    (KeyKind.CURVE, b"SXAAXMRAEP6JWWHNB6IKFL554IE6LZVT6EY5MBRICPILTLOPHAG73I3YX4"),
)
"""Seeds from the documentation of NATS."""


@pytest.mark.parametrize(("kind", "seed"), PUBLISHED, ids=[kind.name for kind, _ in PUBLISHED])
def test_published_seeds_are_read_and_written(kind: KeyKind, seed: bytes) -> None:
    found, secret = decode_seed(seed)
    assert found is kind
    assert encode_seed(kind, secret) == seed


@given(st.sampled_from(KeyKind), st.binary(min_size=32, max_size=32))
def test_what_was_encoded_is_decoded(kind: KeyKind, secret: bytes) -> None:
    seed = encode_seed(kind, secret)
    assert len(seed) == 58
    letter = {KeyKind.ACCOUNT: "A", KeyKind.SERVER: "N", KeyKind.USER: "U", KeyKind.CURVE: "X"}[kind]
    assert seed[:2].decode() == f"S{letter}"
    assert decode_seed(seed) == (kind, secret)
    assert secret_of(kind, seed) == secret
    public = encode_public(kind, secret)
    assert (len(public), public[0]) == (56, letter)
    assert decode_public(kind, public) == secret


@given(st.integers(0, 57), st.sampled_from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_wrong_letter_is_noticed_and_not_quoted(place: int, letter: int) -> None:
    seed = bytearray(PUBLISHED[0][1])
    if seed[place] == letter or place == 57:
        return
    seed[place] = letter
    with pytest.raises(InvalidValue) as caught:
        decode_seed(bytes(seed))
    assert seed.decode()[10:40] not in str(caught.value)


SEED = PUBLISHED[0][1]


@pytest.mark.parametrize("text", [b"", b"S", b"not base32!", SEED[:-1], SEED + b"AAAAAAAA", b"\xff" * 58])
def test_what_is_no_seed_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidValue):
        decode_seed(text)


def test_a_seed_of_a_kind_that_is_not_used_is_refused() -> None:
    operator = 14 << 3
    body = bytes((18 << 3 | operator >> 5, (operator & 31) << 3)) + bytes(32)
    seed = base64.b32encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "little")).rstrip(b"=")
    assert seed.startswith(b"SO")
    with pytest.raises(InvalidValue, match="kind"):
        decode_seed(seed)


def test_a_secret_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidValue, match="32 bytes"):
        encode_seed(KeyKind.USER, bytes(31))


PUBLIC = encode_public(KeyKind.USER, bytes(range(32)))


@pytest.mark.parametrize(
    "text", ["", "U", PUBLIC[:-1], PUBLIC.lower(), "A" + PUBLIC[1:], "é" * 56, PUBLIC + "AAAAAAAA"]
)
def test_what_is_no_public_key_of_that_kind_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        decode_public(KeyKind.USER, text)


def test_a_key_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidValue, match="account"):
        decode_public(KeyKind.ACCOUNT, PUBLIC)
    with pytest.raises(InvalidValue, match="for users, not for curves"):
        secret_of(KeyKind.CURVE, SEED)
    with pytest.raises(InvalidValue, match="32 bytes"):
        encode_public(KeyKind.USER, bytes(31))

"""NATS keys, in the text form that every NATS tool reads.

A seed is 32 random bytes with two bytes before them that say what it is for and two bytes of CRC-16 after them, in
base32 without padding. The random bytes are the Ed25519 (or, for a curve key, the X25519) private key itself: making a
seed takes no cryptography. Deriving public keys and signing do, and are left to a library by whoever uses the seed.
A public key is written in the same way, with one byte before it.
"""

from __future__ import annotations

import base64
import binascii
from enum import IntEnum
from typing import Final

from fleet.contracts.errors import InvalidValue

SEED: Final = 18 << 3
SECRET_BYTES: Final = 32


class KeyKind(IntEnum):
    """What a key is for: the letter its public form begins with, as the upper five bits of a byte."""

    ACCOUNT = 0 << 3
    SERVER = 13 << 3
    USER = 20 << 3
    CURVE = 23 << 3


def encode_seed(kind: KeyKind, secret: bytes) -> bytes:
    """The seed of a key, 58 ASCII characters that begin with `S` and the letter of its kind.

    Raises:
        InvalidValue: the secret does not have 32 bytes.
    """
    if len(secret) != SECRET_BYTES:
        raise InvalidValue(f"the secret of an NKey has {SECRET_BYTES} bytes, not {len(secret)}")
    head = bytes((SEED | kind >> 5, (kind & 31) << 3))
    return _written(head + secret)


def decode_seed(seed: bytes) -> tuple[KeyKind, bytes]:
    """The kind and the 32 bytes of a seed.

    Raises:
        InvalidValue: it is not a seed of a kind that is used here. Quotes nothing of it.
    """
    body = _read(seed, "seed")
    if len(body) != 2 + SECRET_BYTES or body[0] & 0xF8 != SEED:
        raise InvalidValue("this is not an NKey seed: it has another length or another beginning")
    return _kind((body[0] & 7) << 5 | body[1] >> 3, "seed"), body[2:]


def secret_of(kind: KeyKind, seed: bytes) -> bytes:
    """The 32 bytes of a seed that has to be of that kind. Raises: InvalidValue, which quotes nothing of it."""
    found, secret = decode_seed(seed)
    if found is not kind:
        raise InvalidValue(f"this NKey seed is for {found.name.lower()}s, not for {kind.name.lower()}s")
    return secret


def encode_public(kind: KeyKind, public: bytes) -> str:
    """A public key of 32 bytes as 56 ASCII characters that begin with the letter of its kind. Raises: InvalidValue."""
    if len(public) != SECRET_BYTES:
        raise InvalidValue(f"a public NKey has {SECRET_BYTES} bytes, not {len(public)}")
    return _written(bytes((kind,)) + public).decode()


def decode_public(kind: KeyKind, text: str) -> bytes:
    """The 32 bytes of a public key that has to be of that kind. Raises: InvalidValue."""
    body = _read(text.encode("ascii", "replace"), "public key")
    if len(body) != 1 + SECRET_BYTES or _kind(body[0], "public key") is not kind:
        raise InvalidValue(f"this is not the public NKey of a {kind.name.lower()}")
    return body[1:]


def _written(body: bytes) -> bytes:
    return base64.b32encode(body + _crc(body)).rstrip(b"=")


def _read(text: bytes, what: str) -> bytes:
    try:
        raw = base64.b32decode(text + b"=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        raise InvalidValue(f"this is not an NKey {what}: it is not base32") from None
    body, crc = raw[:-2], raw[-2:]
    if len(raw) > 2 and _crc(body) != crc:
        raise InvalidValue(f"this is not an NKey {what}: its checksum is wrong")
    return body


def _kind(number: int, what: str) -> KeyKind:
    try:
        return KeyKind(number)
    except ValueError:
        raise InvalidValue(f"this NKey {what} is of a kind that is not used here") from None


def _crc(content: bytes) -> bytes:
    """CRC-16/XMODEM, the low byte first."""
    return binascii.crc_hqx(content, 0).to_bytes(2, "little")

"""Seeds of NATS keys, in the text form that every NATS tool reads.

A seed is 32 random bytes with two bytes before them that say what it is for and two bytes of CRC-16 after them, in
base32 without padding. The random bytes are the Ed25519 (or, for a curve key, the X25519) private key itself: making a
seed takes no cryptography. Deriving public keys and signing do, and are left to a library by whoever uses the seed.
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
    body = head + secret
    return base64.b32encode(body + _crc(body)).rstrip(b"=")


def decode_seed(seed: bytes) -> tuple[KeyKind, bytes]:
    """The kind and the 32 bytes of a seed.

    Raises:
        InvalidValue: it is not a seed of a kind that is used here. Quotes nothing of it.
    """
    try:
        raw = base64.b32decode(seed + b"=" * (-len(seed) % 8))
    except (binascii.Error, ValueError):
        raise InvalidValue("this is not an NKey seed: it is not base32") from None
    body, crc = raw[:-2], raw[-2:]
    if len(body) != 2 + SECRET_BYTES or body[0] & 0xF8 != SEED:
        raise InvalidValue("this is not an NKey seed: it has another length or another beginning")
    if _crc(body) != crc:
        raise InvalidValue("this is not an NKey seed: its checksum is wrong")
    try:
        return KeyKind((body[0] & 7) << 5 | body[1] >> 3), body[2:]
    except ValueError:
        raise InvalidValue("this NKey seed is of a kind that is not used here") from None


def _crc(content: bytes) -> bytes:
    """CRC-16/XMODEM, the low byte first."""
    return binascii.crc_hqx(content, 0).to_bytes(2, "little")

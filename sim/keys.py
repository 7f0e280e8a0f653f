"""RSA keys that are the same for the same seed and cost nothing to make, for worlds in which nobody guesses anything.

Finding primes is slow and random. Here each prime is a hash of its number plus an offset from a table, which was found
once: so a key is made by arithmetic, and no private key stands in the repository. They are worth nothing as secrets;
everything else about them, and what is signed with them, is real.
"""

from __future__ import annotations

from functools import cache
from hashlib import shake_256
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPrivateNumbers, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from fleet.capabilities.identity import PrivateKey
from fleet.contracts.errors import InvalidValue
from sim.random import Random

_EXPONENT: Final = 65537
_OFFSETS: Final = (
    (614, 52), (604, 438), (180, 424), (0, 628), (1182, 210), (828, 40), (332, 2690), (650, 1474),
    (108, 1080), (566, 764), (288, 476), (418, 406), (88, 1558), (638, 206), (64, 94), (402, 1206),
    (902, 312), (310, 440), (1642, 152), (482, 640), (192, 620), (542, 1332), (476, 932), (716, 192),
    (2138, 1438), (542, 146), (652, 1316), (706, 546), (156, 656), (268, 466), (384, 328), (160, 292),
)  # fmt: skip
"""What the two primes of each key lie above their hashes."""

KEYS: Final = len(_OFFSETS)
"""How many different keys there are."""


class SimKeyMaker:
    """The KeyMaker port: the keys in their order, from one that is drawn on."""

    def __init__(self, stream: Random) -> None:
        self._next = stream.randrange(KEYS)

    def make(self) -> PrivateKey:
        """As the port says; the same key again after `KEYS` of them."""
        number, self._next = self._next, (self._next + 1) % KEYS
        return PrivateKey(_pem(number))

    def public(self, key: PrivateKey) -> bytes:
        """As the port says."""
        return _public(key.pem)


def numbers(number: int) -> RSAPrivateNumbers:
    """The arithmetic of a key."""
    p, q = sorted((_prime(2 * number, _OFFSETS[number][0]), _prime(2 * number + 1, _OFFSETS[number][1])), reverse=True)
    d = pow(_EXPONENT, -1, (p - 1) * (q - 1))
    public = RSAPublicNumbers(_EXPONENT, p * q)
    return RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)


def _prime(number: int, offset: int) -> int:
    digest = int.from_bytes(shake_256(f"harmony-fleet simulated key {number}".encode()).digest(128))
    return (digest | (3 << 1022) | 1) + offset


@cache
def _pem(number: int) -> bytes:
    key = numbers(number).private_key(unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@cache
def _public(pem: bytes) -> bytes:
    return loaded(PrivateKey(pem)).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def loaded(private: PrivateKey) -> RSAPrivateKey:
    """The key, without the library's check that it is one, which costs more than all else. Raises: InvalidValue."""
    try:
        key = load_pem_private_key(private.pem, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError):
        raise InvalidValue("that is no private key in PEM") from None
    if not isinstance(key, RSAPrivateKey):
        raise InvalidValue("that is no RSA key")
    return key

"""The provider's signing keys, and when to ask for them again. Pure: the hands fetch, this decides.

Tokens are verified offline. The provider may be down for hours and devices still come in, on the keys that were read
last. It may also begin to sign with a new key at any time: a token that names an unknown one is a reason to look, but
anybody can write such a token, so there is a least pause between two looks.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from joserfc.jwk import RSAKey

from fleet.contracts.errors import InvalidValue
from fleet.contracts.time import Duration, Instant

LEAST_BITS: Final = 2048
"""A shorter RSA key signs nothing that is believed."""
MOST_KEYS: Final = 64


@dataclass(frozen=True, slots=True)
class SigningKeySet:
    """Public RSA keys by their key ids."""

    keys: Mapping[str, RSAKey]

    def find(self, kid: str) -> RSAKey | None:
        """The key of that id."""
        return self.keys.get(kid)


def parse(jwks: bytes) -> SigningKeySet:
    """The RSA signing keys in a JWKS document. Other keys are passed over, and so is a second one with the same id.

    Raises:
        InvalidValue: there is not one usable key in it. Whoever has keys keeps them.
    """
    try:
        listed = json.loads(jwks)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidValue("the provider's answer is not a JWKS document") from None
    if not isinstance(listed, list):
        raise InvalidValue("the provider's answer is not a JWKS document")
    found: dict[str, RSAKey] = {}
    for item in listed[:MOST_KEYS]:
        match item:
            case {"kty": "RSA", "kid": str(kid), "n": str(modulus), "e": str(exponent)} if kid and _signs(item):
                key = _rsa(kid, modulus, exponent)
                if key is not None:
                    found.setdefault(kid, key)
            case _:
                continue
    if not found:
        raise InvalidValue("the provider's JWKS document holds no RSA signing key")
    return SigningKeySet(found)


def _signs(item: dict[str, object]) -> bool:
    return item.get("use", "sig") == "sig" and item.get("alg", "RS256") == "RS256"


def _rsa(kid: str, modulus: str, exponent: str) -> RSAKey | None:
    """The key; None for one that is broken or too short."""
    try:
        number = base64.urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4))
        if int.from_bytes(number).bit_length() < LEAST_BITS:
            return None
        return RSAKey.import_key({"kty": "RSA", "kid": kid, "n": modulus, "e": exponent})
    except Exception:  # noqa: BLE001 - whatever a broken key makes the libraries raise, it is no key
        return None


@dataclass(frozen=True, slots=True)
class KeyTimings:
    """When keys are read again."""

    regularly: Duration = Duration.minutes(5)
    """A key that the provider withdrew is believed at most this much longer, if the provider can be reached."""
    least_pause: Duration = Duration.seconds(10)
    """Between two looks for an unknown key; also the pause after a look that failed."""


class KeyCache:
    """The keys as last read. Times are of the monotonic clock."""

    def __init__(self, timings: KeyTimings = KeyTimings()) -> None:
        self._timings = timings
        self._keys: SigningKeySet | None = None
        self._asked: Instant | None = None

    @property
    def keys(self) -> SigningKeySet | None:
        """None until they were read for the first time."""
        return self._keys

    def may_ask(self, now: Instant) -> bool:
        """Whether an unknown key is a reason to ask the provider now."""
        return self._asked is None or now - self._asked >= self._timings.least_pause

    def next_regular(self) -> Duration:
        """How long to wait after an answer, or after a failure, before the provider is asked anyway."""
        return self._timings.least_pause if self._keys is None else self._timings.regularly

    def asked(self, now: Instant) -> None:
        """The provider was asked, whatever came of it."""
        self._asked = now

    def answered(self, keys: SigningKeySet) -> None:
        """The provider answered. A key that is not listed any more signs nothing any more."""
        self._keys = keys

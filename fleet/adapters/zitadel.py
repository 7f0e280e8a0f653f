"""Tokens from the identity provider: by the JWT profile for devices and services, and the keys to verify them by."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from fleet.adapters import zitadel_shapes as shapes
from fleet.adapters.zitadel_exchange import Exchange, body_of, error_code, refusal, text_at
from fleet.adapters.zitadel_shapes import Json
from fleet.capabilities.clock import Clock
from fleet.capabilities.http import Http, HttpResponse
from fleet.capabilities.identity import PrivateKey, Token
from fleet.contracts.auth import FleetDeviceAuth
from fleet.contracts.errors import (
    Disconnected,
    InvalidValue,
    NotFound,
    NotPermitted,
    Refused,
    TimedOut,
    Unavailable,
)
from fleet.contracts.time import Duration, Instant

BACKDATED: Final = Duration.seconds(30)
"""How far in the past an assertion claims to be made: no clock is exact, and the future is not accepted at all."""
GOOD_FOR: Final = Duration.minutes(5)
CLOCK_WAS_WRONG: Final = Duration.seconds(2)
"""A refused assertion is made again when the clock it was made by turns out to be off by more than this."""
NOT_ACCEPTED: Final = ("invalid_grant", "invalid_request")
"""What a provider says to an assertion that it does not accept: the engine of Zitadel, left to itself, the latter."""
SHORT_LIFE: Final = Duration.minutes(10)
"""Below it, sessions are replaced long before a fifth of the token's life is left."""
LONGEST_LIFE: Final = Duration.minutes(60 * 24 * 366)

ReadKey = Callable[[PurePosixPath], PrivateKey]


@dataclass(frozen=True, slots=True)
class Account:
    """Who asks for a token: a user, and the id of its key."""

    user: str
    key: str
    scopes: tuple[str, ...]


class JwtProfile:
    """The JWT-profile grant at one provider. Asks again when the clock that it had was the reason for a no."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def token(self, account: Account, private: PrivateKey) -> Token:
        """A fresh token. Raises: as `TokenMint.mint`."""
        await self._exchange.discover()
        key = signing_key(private)
        used = self._exchange.now()
        response = await self._ask(account, key, used)
        if error_code(response) in NOT_ACCEPTED and _differ(used, self._exchange.now()):
            response = await self._ask(account, key, self._exchange.now())
        return self._token(response)

    async def _ask(self, account: Account, key: RSAKey, now: Instant) -> HttpResponse:
        fields = {
            "grant_type": shapes.JWT_PROFILE,
            "scope": " ".join(account.scopes),
            "assertion": assertion(account, self._exchange.issuer, key, now),
        }
        return await self._exchange.send(shapes.MINT, fields)

    def _token(self, response: HttpResponse) -> Token:
        issuer, asked = self._exchange.issuer, self._exchange.clock.monotonic()
        if response.status != 200:
            match error_code(response):
                case code if code in NOT_ACCEPTED:
                    raise NotPermitted(f"{issuer}: the provider does not accept this user and this key")
                case "server_error" | "temporarily_unavailable":
                    raise Unavailable(f"{issuer}: the provider hands out no token now")
                case _:
                    raise refusal(shapes.MINT, issuer, response)
        fields = body_of(issuer, response)
        life = life_of(issuer, fields)
        return token_of(text_at(issuer, fields, "access_token"), asked, life)


class ZitadelMint:
    """The TokenMint port.

    Args:
        read: reads a private key by its path on the device.
    """

    def __init__(self, http: Http, clock: Clock, read: ReadKey) -> None:
        self._http = http
        self._clock = clock
        self._read = read
        self._exchange: Exchange | None = None

    async def mint(self, auth: FleetDeviceAuth) -> Token:
        """As the port says. The provider is discovered again when another one is named."""
        private = self._read(auth.private_key)
        if self._exchange is None or self._exchange.issuer != auth.issuer:
            self._exchange = Exchange(self._http, self._clock, auth.issuer)
        return await JwtProfile(self._exchange).token(Account(auth.user, auth.key, auth.scopes), private)


class ZitadelKeys:
    """The SigningKeys port."""

    def __init__(self, http: Http, clock: Clock, issuer: str) -> None:
        self._exchange = Exchange(http, clock, issuer)

    async def fetch(self) -> bytes:
        """As the port says. A provider that answers something else than keys is as good as none."""
        try:
            return json.dumps(_keys_in(await self._exchange.ask(shapes.SIGNING_KEYS))).encode()
        except (Unavailable, TimedOut):
            raise
        except (Disconnected, Refused, NotFound) as error:
            raise Unavailable(f"{self._exchange.issuer}: no signing keys to be had") from error


def key_below(root: Path) -> ReadKey:
    """Reads private keys of the device whose file system is at `root`. It raises: NotFound, InvalidValue."""

    def read(path: PurePosixPath) -> PrivateKey:
        try:
            return PrivateKey((root / str(path).lstrip("/")).read_bytes())
        except FileNotFoundError:
            raise NotFound(f"there is no private key at {path}") from None
        except OSError as error:
            raise InvalidValue(f"the private key at {path} cannot be read: {error.strerror}") from error

    return read


def assertion(account: Account, issuer: str, key: RSAKey, now: Instant) -> str:
    """The signed claim to be that user, good for a few minutes around `now` (the provider's clock)."""
    made = (now - BACKDATED) // 10**9
    claims = {"iss": account.user, "sub": account.user, "aud": issuer, "iat": made, "exp": made + GOOD_FOR // 10**9}
    return jwt.encode({"alg": "RS256", "kid": account.key}, claims, key, ["RS256"])


@lru_cache(maxsize=32)
def signing_key(private: PrivateKey) -> RSAKey:
    """The key, ready to sign. Raises: InvalidValue, which quotes nothing of it.

    Kept, because checking that a key is one costs a hundred times as much as signing with it.
    """
    try:
        key = RSAKey.import_key(private.pem)
    except (ValueError, TypeError, JoseError):
        raise InvalidValue("what stands where a private key should be is no RSA key in PEM") from None
    if not key.is_private:
        raise InvalidValue("what stands where a private key should be is a public key")
    return key


def token_of(text: str, asked: Instant, life: Duration) -> Token:
    """A token that was asked for at that moment: to be replaced when a fifth of its life is left, if short, half."""
    return Token(text, asked + life, asked + life.scaled(0.8 if life >= SHORT_LIFE else 0.45))


def life_of(where: str, fields: Json) -> Duration:
    """How long a token is good for, from the moment it was asked for. Raises: Disconnected."""
    match fields.get("expires_in"):
        case bool():
            pass
        case int(seconds) if 0 < seconds * 10**9 <= LONGEST_LIFE:
            return Duration(seconds * 10**9)
    raise Disconnected(f"{where}: the answer does not say how long the token is good for")


def _keys_in(fields: Json) -> Json:
    if not isinstance(fields.get("keys"), list):
        raise Refused("the answer is no JWK set")
    return {"keys": fields["keys"]}


def _differ(one: Instant, other: Instant) -> bool:
    return abs(int(one) - int(other)) > CLOCK_WAS_WRONG

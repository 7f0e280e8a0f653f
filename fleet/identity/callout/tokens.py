"""Whether an access token is what it says it is: signature, issuer, audience, times, role. Pure; the clock is given.

Nothing here quotes a token. Reasons go into the callout's own log and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from joserfc import jws
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet.contracts.time import Duration, Instant
from fleet.identity.callout.keys import SigningKeySet

ALGORITHM: Final = "RS256"
LONGEST: Final = 8 * 1024
"""Characters of a token. The server takes 4,096 bytes of CONNECT line by default."""
_SECOND: Final = 10**9
_LAST_SECOND: Final = 2**33
"""No token lives until the year 2242."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a device's token has to say.

    Args:
        issuer: letter by letter.
        project: the provider's project; its id is in the audience.
        role: granted to the user in that project.
        ahead: how far the provider's clock may be ahead of this machine's.
    """

    issuer: str
    project: str
    role: str = "fleet-device"
    ahead: Duration = Duration.seconds(30)


@dataclass(frozen=True, slots=True)
class Verified:
    """The token is genuine and is for this fleet. `user` is its `sub`; times are the provider's, in whole seconds."""

    user: str
    issued: Instant
    expires: Instant


@dataclass(frozen=True, slots=True)
class UnknownKey:
    """It names a key that is not among those given: perhaps a new one."""

    kid: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unacceptable:
    """It is no token of this fleet, or not any more."""

    reason: str


Verification = Verified | UnknownKey | Unacceptable


class _Claims(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    iss: str
    sub: str = Field(min_length=1, max_length=256)
    aud: str | list[str]
    iat: int = Field(ge=0, le=_LAST_SECOND)
    exp: int = Field(ge=0, le=_LAST_SECOND)
    nbf: int | None = Field(default=None, ge=0, le=_LAST_SECOND)


def verify(token: str, keys: SigningKeySet, rules: TokenRules, now: Instant) -> Verification:
    """Judge a token at `now` (time of day). Hostile input is `Unacceptable`; nothing is raised."""
    if not token:
        return Unacceptable("no token was shown")
    if len(token) > LONGEST or not token.isascii():
        return Unacceptable("what was shown is not a token")
    opened = _open(token, keys)
    if not isinstance(opened, bytes):
        return opened
    try:
        claims = _Claims.model_validate_json(opened)
    except (ValidationError, RecursionError):
        return Unacceptable("the token lacks a claim, or has one of another type")
    wrong = _wrong(claims, rules, now)
    if wrong is not None:
        return Unacceptable(wrong)
    return Verified(claims.sub, Instant(claims.iat * _SECOND), Instant(claims.exp * _SECOND))


def _open(token: str, keys: SigningKeySet) -> bytes | UnknownKey | Unacceptable:
    """The signed content, after the signature was checked."""
    try:
        opened = jws.extract_compact(token.encode())
        header: dict[str, Any] = opened.headers()
        if header.get("alg") != ALGORITHM:
            return Unacceptable(f"the token is not signed by {ALGORITHM}")
        kid = header.get("kid")
        if not isinstance(kid, str):
            return Unacceptable("the token does not say by which key it is signed")
        key = keys.find(kid)
        if key is None:
            return UnknownKey(kid)
        if not jws.validate_compact(opened, key, algorithms=[ALGORITHM]):
            return Unacceptable("the token's signature is wrong")
        return opened.payload
    except Exception:  # noqa: BLE001 - whatever a hostile text makes the library raise, it is no token
        return Unacceptable("what was shown is not a signed token")


def _wrong(claims: _Claims, rules: TokenRules, now: Instant) -> str | None:
    """What a genuine token of the provider lacks, if anything."""
    audience = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    if claims.iss != rules.issuer:
        return "the token is of another issuer"
    if rules.project not in audience:
        return "the token is for another audience"
    if claims.exp * _SECOND <= now:
        return "the token has expired"
    if claims.iat * _SECOND > now + rules.ahead or (claims.nbf or 0) * _SECOND > now + rules.ahead:
        return "the token is from the future: one of the clocks is wrong"
    roles = (claims.model_extra or {}).get(f"urn:zitadel:iam:org:project:{rules.project}:roles")
    if not isinstance(roles, dict) or rules.role not in roles:
        return f"the user was not granted the role {rules.role}"
    return None

"""The tokens of the modelled provider: which assertion is good for one, how it is signed, and with which key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from fleet.contracts.time import Duration, Instant
from sim.idp.accounts import Accounts, User
from sim.keys import SimKeyMaker, loaded

AHEAD: Final = Duration.seconds(1)
"""How far in the future an assertion may be made."""
OLDEST: Final = Duration.minutes(60)
_PROJECT: Final = "urn:zitadel:iam:org:project:id:"
_ROLES: Final = "urn:zitadel:iam:org:projects:roles"
_SECOND: Final = 10**9


class InvalidGrant(Exception):
    """The assertion, the code or the user is not good. Never leaves the model."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that was handed out."""

    user: str
    scopes: tuple[str, ...]
    expires: Instant


class SigningKeys:
    """The provider's own keys: all are published, one signs."""

    def __init__(self, keys: SimKeyMaker) -> None:
        self._maker = keys
        self._keys: dict[str, RSAKey] = {}
        self._active = ""
        self._made = 0
        self.activate(self.create())

    def create(self) -> str:
        """A new key, published and not in use yet."""
        self._made += 1
        number = f"signing-{self._made}"
        self._keys[number] = RSAKey.import_key(
            loaded(self._maker.make()), {"kid": number, "use": "sig", "alg": "RS256"}
        )
        return number

    def activate(self, key: str) -> bool:
        """Sign with it from now on. False when there is none of that id."""
        if key not in self._keys:
            return False
        self._active = key
        return True

    def remove(self, key: str) -> bool:
        """Publish it no more. False when it is the one in use."""
        if key == self._active:
            return False
        self._keys.pop(key, None)
        return True

    def published(self) -> list[Mapping[str, object]]:
        """The JWKs."""
        return [dict(key.as_dict(private=False)) for key in self._keys.values()]

    def sign(self, claims: Mapping[str, object]) -> str:
        """A signed JWT."""
        return jwt.encode({"alg": "RS256", "kid": self._active}, dict(claims), self._keys[self._active], ["RS256"])


class Tokens:
    """Hands out tokens, and remembers the opaque ones and what they are good for."""

    def __init__(self, issuer: str, accounts: Accounts, signing: SigningKeys, life: Duration) -> None:
        self.life = life
        self._issuer = issuer
        self._accounts = accounts
        self._signing = signing
        self._issued: dict[str, Issued] = {}

    def by_assertion(self, assertion: str, scopes: tuple[str, ...], now: Instant) -> str:
        """A token for whoever signed that. Raises: InvalidGrant."""
        try:
            kid = jws.extract_compact(assertion.encode()).headers().get("kid")
        except (JoseError, ValueError):
            raise InvalidGrant from None
        user = next((user for user in self._accounts.users.values() if kid in user.keys), None)
        if user is None or not user.is_active or user.keys[str(kid)].expires <= now:
            raise InvalidGrant
        try:
            claims = jwt.decode(assertion, user.keys[str(kid)].public, ["RS256"]).claims
        except (JoseError, ValueError):
            raise InvalidGrant from None
        self._check(claims, user, now)
        return self.issue(user, scopes, now)

    def issue(self, user: User, scopes: tuple[str, ...], now: Instant, client: str | None = None) -> str:
        """A token of that user: opaque, unless it has JWTs or asks as a person through an app."""
        expires = now + self.life
        number = self._accounts.new_id()
        if not user.has_jwt_tokens and user.is_machine:
            text = f"opaque-{number}"
        else:
            text = self._signing.sign(self._claims(user, scopes, now, expires, number, client or user.id))
        self._issued[text] = Issued(user.id, scopes, expires)
        return text

    def holder(self, text: str, now: Instant) -> tuple[User, tuple[str, ...]] | None:
        """Whose token it is and what it was asked for; None when it is not good."""
        issued = self._issued.get(text)
        if issued is None or issued.expires <= now:
            return None
        user = self._accounts.users.get(issued.user)
        return None if user is None or not user.is_active else (user, issued.scopes)

    def _check(self, claims: Mapping[str, object], user: User, now: Instant) -> None:
        audience = claims.get("aud")
        seconds = int(now) / _SECOND
        match claims:
            case {"iss": user.id, "sub": user.id, "iat": int(made), "exp": int(ends)}:
                fresh = seconds - OLDEST.in_seconds <= made <= seconds + AHEAD.in_seconds and ends > seconds
                if fresh and (audience == self._issuer or (isinstance(audience, list) and self._issuer in audience)):
                    return
        raise InvalidGrant

    def _claims(
        self, user: User, scopes: tuple[str, ...], now: Instant, expires: Instant, number: str, client: str
    ) -> dict[str, object]:
        projects = [scope[len(_PROJECT) : -len(":aud")] for scope in scopes if scope.startswith(_PROJECT)]
        made = int(now) // _SECOND
        claims: dict[str, object] = {
            "iss": self._issuer,
            "sub": user.id,
            "aud": [*projects, *([client] if client != user.id else [])],
            "client_id": client,
            "iat": made,
            "nbf": made,
            "exp": int(expires) // _SECOND,
            "jti": number,
        }
        if _ROLES in scopes:
            for project in projects:
                if project in user.grants:
                    _, roles = user.grants[project]
                    claims[f"urn:zitadel:iam:org:project:{project}:roles"] = {role: {"1": "fleet"} for role in roles}
        return claims

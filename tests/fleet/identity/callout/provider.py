"""An identity provider's signing key, and tokens as it makes them, right or wrong in any way a test wants."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from fleet.contracts.time import Instant
from fleet.identity.callout.tokens import TokenRules

ISSUER = "http://idp.example"
PROJECT = "318"
RULES = TokenRules(ISSUER, PROJECT)
NOW = Instant(1_800_000_000 * 10**9)
ROLES = f"urn:zitadel:iam:org:project:{PROJECT}:roles"


@cache
def key(kid: str = "k1") -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"}, private=True)


def jwks(*keys: RSAKey) -> bytes:
    return json.dumps(KeySet(list(keys)).as_dict(private=False)).encode()


def claims(user: str = "u-1", now: Instant = NOW, /, **changed: object) -> dict[str, Any]:
    """The claims of a good token; one that is changed to None is left out."""
    seconds = now // 10**9
    good: dict[str, Any] = {
        "iss": ISSUER,
        "sub": user,
        "aud": ["other", PROJECT],
        "iat": seconds - 10,
        "exp": seconds + 3600,
        ROLES: {"fleet-device": {"org": "example.org"}},
        **changed,
    }
    return {name: value for name, value in good.items() if value is not None}


def sign(content: dict[str, Any], signer: RSAKey | None = None, **header: object) -> str:
    by = signer or key()
    heads = {name: value for name, value in {"alg": "RS256", "kid": by.kid, **header}.items() if value is not None}
    return jwt.encode(heads, content, by, algorithms=["RS256", "RS512", "PS256"])


def token(user: str = "u-1", now: Instant = NOW, /, **changed: object) -> str:
    return sign(claims(user, now, **changed))

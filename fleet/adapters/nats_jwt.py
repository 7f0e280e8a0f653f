"""The signed and sealed messages of the NATS auth callout: what the server asks, and what it is answered.

A NATS JWT is a JWT signed by an Ed25519 NKey, whose issuer is the public key itself. With an xkey, question and answer
are sealed to the two sides' curve keys, so that nobody who can listen to the subject reads a token. Nothing here does
I/O. Formats as measured on nats-server 2.15.1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, field
from typing import Final

from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey
from nacl.signing import SigningKey, VerifyKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet.capabilities.callout import Admission
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId
from fleet.contracts.nkeys import KeyKind, decode_public, encode_public, secret_of
from fleet.contracts.permissions import Permissions, on_the_wire
from fleet.contracts.time import Instant

_HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}
_SEALED: Final = b"xkv1"
NONCE_BYTES: Final = 24
_REQUEST_AUDIENCE: Final = "nats-authorization-request"
_SECOND: Final = 10**9
REFUSED: Final = "refused"
"""All that a client, and the server's log, learn of a refusal."""


class CalloutKeys:
    """The two keys of the callout. Shows nothing of them in `repr`.

    Args:
        issuer: the seed of an account key. Its public half stands in the server's configuration and signs the answers.
        xkey: the seed of a curve key. Its public half stands there too.

    Raises:
        InvalidValue: one is no seed of its kind.
    """

    def __init__(self, issuer: bytes, xkey: bytes) -> None:
        self._signer = SigningKey(secret_of(KeyKind.ACCOUNT, issuer))
        self._private = PrivateKey(secret_of(KeyKind.CURVE, xkey))

    @property
    def issuer(self) -> str:
        """The public half of the issuer."""
        return encode_public(KeyKind.ACCOUNT, bytes(self._signer.verify_key))

    @property
    def xkey(self) -> str:
        """The public half of the xkey."""
        return encode_public(KeyKind.CURVE, bytes(self._private.public_key))

    def sign(self, claims: dict[str, object]) -> str:
        """A NATS JWT of the issuer."""
        return sign({**claims, "iss": self.issuer}, self._signer)

    def open(self, payload: bytes, sender: str) -> bytes:
        """What was sealed to the xkey by the sender's. Raises: InvalidValue."""
        if not payload.startswith(_SEALED):
            raise InvalidValue("the message is not sealed")
        box = Box(self._private, PublicKey(decode_public(KeyKind.CURVE, sender)))
        try:
            return bytes(box.decrypt(payload[len(_SEALED) :]))
        except (CryptoError, ValueError):
            raise InvalidValue("the message is not sealed to this callout's xkey, or not by that server's") from None

    def seal(self, message: bytes, receiver: str, nonce: bytes) -> bytes:
        """Seal a message to a server's xkey. `nonce` has 24 bytes that come never again."""
        box = Box(self._private, PublicKey(decode_public(KeyKind.CURVE, receiver)))
        return _SEALED + bytes(box.encrypt(message, nonce))


@dataclass(frozen=True, slots=True)
class Asked:
    """What the server asks about one client. The token never shows in `repr`.

    Args:
        server: the id of the asking server; the answer is for it alone.
        server_xkey: what to seal the answer to; None when the question was not sealed.
        user: the key that the server gave this connection.
        token: what the client shows.
        client: name and address of the client, as a log may show it.
    """

    server: str
    server_xkey: str | None
    user: str
    token: str = field(repr=False)
    client: str


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Server(_Part):
    id: str


class _ClientInfo(_Part):
    host: str = ""


class _ConnectOptions(_Part):
    auth_token: str = ""
    name: str = ""


class _Question(_Part):
    server_id: _Server
    user_nkey: str
    client_info: _ClientInfo = _ClientInfo()
    connect_opts: _ConnectOptions = _ConnectOptions()


class _QuestionClaims(_Part):
    iss: str
    aud: str = Field(pattern=f"^{_REQUEST_AUDIENCE}$")
    nats: _Question


def read_question(payload: bytes, server_xkey: str | None, keys: CalloutKeys) -> Asked:
    """Open and check a question of the server.

    Raises:
        InvalidValue: it is none. Quotes nothing of it.
    """
    text = payload if server_xkey is None else keys.open(payload, server_xkey)
    try:
        claims = _QuestionClaims.model_validate_json(verified(text, KeyKind.SERVER))
    except ValidationError:
        raise InvalidValue("the server's question lacks what it has to say") from None
    asked = claims.nats
    if claims.iss != asked.server_id.id:
        raise InvalidValue("the question is signed by another server than it names")
    decode_public(KeyKind.USER, asked.user_nkey)
    client = f"{asked.connect_opts.name[:80]!r} at {asked.client_info.host[:64]!r}"
    return Asked(asked.server_id.id, server_xkey, asked.user_nkey, asked.connect_opts.auth_token, client)


def allowed(asked: Asked, admission: Admission, account: str, now: int, keys: CalloutKeys) -> str:
    """The answer that lets a client in, as a JWT. `now` is whole seconds of the time of day."""
    user: dict[str, object] = {
        "sub": asked.user,
        "aud": account,
        "name": name_of(admission),
        "iat": now,
        "exp": admission.expires // _SECOND,
        "nats": {
            "type": "user",
            "version": 2,
            **_limits(on_the_wire(admission.permissions)),
        },
    }
    return _answer(asked, {"jwt": keys.sign(user)}, now, keys)


def refused(asked: Asked, now: int, keys: CalloutKeys) -> str:
    """The answer that turns a client away."""
    return _answer(asked, {"error": REFUSED}, now, keys)


def _answer(asked: Asked, said: dict[str, object], now: int, keys: CalloutKeys) -> str:
    nats = {**said, "type": "authorization_response", "version": 2}
    return keys.sign({"sub": asked.user, "aud": asked.server, "iat": now, "nats": nats})


def _limits(permissions: Permissions) -> dict[str, object]:
    """Permissions of a user JWT. Replies to requests are always allowed, as for the users of the configuration."""
    return {
        "pub": {"allow": list(permissions.publish)},
        "sub": {"allow": list(permissions.subscribe)},
        "resp": {"max": 1, "ttl": 120 * _SECOND},
        "subs": -1,
        "data": -1,
        "payload": -1,
    }


def name_of(admission: Admission) -> str:
    """What the server calls the connection, in its log and to whoever asks: the device, and when its token was issued.

    The second part is how it is known later which connections stand by a token that is not good any more.
    """
    return f"{admission.device}@{admission.issued // _SECOND}"


def read_name(name: str) -> tuple[DeviceId, Instant] | None:
    """The reverse of `name_of`; None for any other name."""
    device, _, issued = name.partition("@")
    if not (issued.isascii() and issued.isdigit()):
        return None
    try:
        return DeviceId(device), Instant(int(issued) * _SECOND)
    except InvalidValue:
        return None


# --- NATS JWTs ----------------------------------------------------------------------------------------


def sign(claims: dict[str, object], signer: SigningKey) -> str:
    """A NATS JWT with these claims, which name the signer's public key as their issuer."""
    digest = hashlib.sha256(json.dumps(claims, sort_keys=True).encode()).digest()
    said = {"jti": base64.b32encode(digest).decode().rstrip("="), **claims}
    signed = f"{_segment(json.dumps(_HEADER).encode())}.{_segment(json.dumps(said).encode())}"
    return f"{signed}.{_segment(signer.sign(signed.encode()).signature)}"


def verified(text: bytes, kind: KeyKind) -> bytes:
    """The claims of a NATS JWT that is signed by its own issuer, a key of that kind. Raises: InvalidValue."""
    try:
        head, body, signature = text.split(b".")
        header, claims = json.loads(_bytes(head)), _bytes(body)
        issuer = json.loads(claims)["iss"]
        if header["alg"] != _HEADER["alg"] or not isinstance(issuer, str):
            raise InvalidValue("this is not a NATS JWT")
        VerifyKey(decode_public(kind, issuer)).verify(head + b"." + body, _bytes(signature))
    except (CryptoError, ValueError, TypeError, KeyError, RecursionError):
        raise InvalidValue("this is not a NATS JWT, or its signature is wrong") from None
    return claims


def _segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(segment: bytes) -> bytes:
    try:
        return base64.b64decode(segment + b"=" * (-len(segment) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise InvalidValue("this is not a NATS JWT") from None

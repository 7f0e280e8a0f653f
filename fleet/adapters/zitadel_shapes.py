"""Every request that is sent to the identity provider, in one table: what a real Zitadel is asked, and what it may say.

Facts about an API of somebody else, which only an instance of it can prove. So they stand here and nowhere else: the
reference page is written from this table, the stand-ins and the model are held to it by one suite, and a rehearsal
against a real instance replays it.

User calls go by Connect (`/zitadel.user.v2.UserService/…`), because not every version has REST paths for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import quote, urlencode

from fleet.capabilities.http import Headers, HttpRequest
from fleet.contracts.errors import Conflict, FleetError, NotFound, NotPermitted, Refused

Json = Mapping[str, object]


class Encoding(StrEnum):
    """How a body is written."""

    NONE = "no body"
    FORM = "form"
    JSON = "JSON"


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of request.

    Args:
        path: below the issuer, with `{places}`; or the name of the entry of the discovery document that holds its URL.
        sends: the fields of the body, each with an example or what stands there.
        answers: the fields of the answer that are read.
        refusals: what a status means, where it means more than the usual.
        by_admin: sent with the administrator's token.
        acts: whether sending it twice may do something twice, so that a failure half-way has to be looked into.
        note: what somebody already fell into.
    """

    name: str
    method: str
    path: str
    sends: Mapping[str, str] = field(default_factory=dict)
    encoding: Encoding = Encoding.NONE
    answers: tuple[str, ...] = ()
    refusals: Mapping[int, type[FleetError]] = field(default_factory=dict)
    by_admin: bool = False
    acts: bool = False
    note: str = ""

    @property
    def is_discovered(self) -> bool:
        """Whether the URL stands in the discovery document."""
        return not self.path.startswith("/")


JWT_PROFILE: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
OWN_API: Final = "urn:zitadel:iam:org:project:id:zitadel:aud"
"""The scope without which a token is no good for calling the provider's own API."""
ROLES: Final = "urn:zitadel:iam:org:projects:roles"
"""The scope without which a token names no roles."""
JWT_TOKENS: Final = "ACCESS_TOKEN_TYPE_JWT"

_USERS: Final = "/zitadel.user.v2.UserService"
_GONE: Final = {404: NotFound}

DISCOVERY: Final = Shape(
    "discovery",
    "GET",
    "/.well-known/openid-configuration",
    answers=("issuer", "token_endpoint", "jwks_uri", "device_authorization_endpoint"),
    note="The issuer has to be letter by letter the one that was asked.",
)
SIGNING_KEYS: Final = Shape(
    "signing keys",
    "GET",
    "jwks_uri",
    answers=("keys",),
    note="Fetched again for a key id that is not in it.",
)
MINT: Final = Shape(
    "token by JWT profile",
    "POST",
    "token_endpoint",
    {
        "grant_type": JWT_PROFILE,
        "scope": "openid urn:zitadel:iam:org:project:id:PROJECT:aud urn:zitadel:iam:org:projects:roles",
        "assertion": "JWT, RS256; kid = key id, iss = sub = user id, aud = issuer, iat = now - 30 s, exp = iat + 5 min",
    },
    Encoding.FORM,
    ("access_token", "expires_in"),
    note="No client_id. An iat one second in the future is invalid_grant, so the clock is taken from the Date header.",
)
DEVICE_AUTHORIZATION: Final = Shape(
    "device code: begin",
    "POST",
    "device_authorization_endpoint",
    {"client_id": "the native app's", "scope": "openid profile"},
    Encoding.FORM,
    ("device_code", "user_code", "verification_uri", "verification_uri_complete", "expires_in", "interval"),
    acts=True,
    note="An interval that is not given is 5 s.",
)
DEVICE_TOKEN: Final = Shape(
    "device code: poll",
    "POST",
    "token_endpoint",
    {"grant_type": DEVICE_CODE, "device_code": "as given", "client_id": "the native app's"},
    Encoding.FORM,
    ("access_token", "expires_in"),
    note="authorization_pending: go on; slow_down: 5 s more between polls; access_denied, expired_token: over.",
)
CREATE_USER: Final = Shape(
    "create a machine user",
    "POST",
    f"{_USERS}/CreateUser",
    {"organizationId": "…", "username": "the device", "machine": "{name: …, description: …}"},
    Encoding.JSON,
    ("id",),
    {409: Conflict},
    by_admin=True,
    acts=True,
    note="409: it is there, and is looked up.",
)
FIND_USER: Final = Shape(
    "look up a user by name",
    "POST",
    f"{_USERS}/ListUsers",
    {"queries": "[{organizationIdQuery: …}, {userNameQuery: {userName: …, method: TEXT_QUERY_METHOD_EQUALS}}]"},
    Encoding.JSON,
    ("result[].userId", "result[].username", "result[].state", "result[].machine"),
    by_admin=True,
)
LIST_USERS: Final = Shape(
    "list the machine users",
    "POST",
    f"{_USERS}/ListUsers",
    {
        "query": "{offset: 0, limit: 500, asc: true}",
        "sortingColumn": "USER_FIELD_NAME_USER_NAME",
        "queries": "[{organizationIdQuery: …}, {typeQuery: {type: TYPE_MACHINE}}]",
    },
    Encoding.JSON,
    ("result[].userId", "result[].username", "result[].state", "result[].machine"),
    by_admin=True,
    note="In pages: without a limit the provider takes one of its own, and says nothing of the rest.",
)
GET_USER: Final = Shape(
    "read a user",
    "POST",
    f"{_USERS}/GetUserByID",
    {"userId": "…"},
    Encoding.JSON,
    ("user.userId", "user.username", "user.state", "user.machine.accessTokenType"),
    _GONE,
    by_admin=True,
)
SET_TOKEN_TYPE: Final = Shape(
    "have its tokens be JWTs",
    "PUT",
    "/management/v1/users/{user}/machine",
    {"name": "…", "description": "…", "accessTokenType": JWT_TOKENS},
    Encoding.JSON,
    (),
    _GONE,
    by_admin=True,
    note="Machine tokens are opaque unless told. 400 when nothing changes, so it is read before and after.",
)
ADD_KEY: Final = Shape(
    "add a public key",
    "POST",
    f"{_USERS}/AddKey",
    {"userId": "…", "expirationDate": "2027-01-01T00:00:00Z", "publicKey": "base64 of the PEM (SPKI)"},
    Encoding.JSON,
    ("keyId",),
    _GONE,
    by_admin=True,
    acts=True,
    note="Without publicKey the provider makes the pair itself and sends the private half over the wire: never done.",
)
LIST_KEYS: Final = Shape(
    "list a user's keys",
    "POST",
    f"{_USERS}/ListKeys",
    {"filters": "[{userIdFilter: {id: …}}]"},
    Encoding.JSON,
    ("result[].id",),
    by_admin=True,
    note="The field is id here and keyId where a key is added.",
)
REMOVE_KEY: Final = Shape(
    "remove a key",
    "POST",
    f"{_USERS}/RemoveKey",
    {"userId": "…", "keyId": "…"},
    Encoding.JSON,
    (),
    _GONE,
    by_admin=True,
    note="200 also when it is gone. Tokens that were minted with it stay valid until they expire.",
)
GRANT_ROLE: Final = Shape(
    "grant a role",
    "POST",
    "/management/v1/users/{user}/grants",
    {"projectId": "…", "roleKeys": "[fleet-device]"},
    Encoding.JSON,
    ("userGrantId",),
    {409: Conflict, 404: NotFound},
    by_admin=True,
    acts=True,
    note="409: there is a grant for the project, which may hold other roles: it is read, and changed if need be.",
)
FIND_GRANTS: Final = Shape(
    "list a user's grants",
    "POST",
    "/management/v1/users/grants/_search",
    {"queries": "[{userIdQuery: {userId: …}}, {projectIdQuery: {projectId: …}}]"},
    Encoding.JSON,
    ("result[].id", "result[].roleKeys"),
    by_admin=True,
)
LIST_GRANTS: Final = Shape(
    "list a project's grants",
    "POST",
    "/management/v1/users/grants/_search",
    {"query": "{offset: 0, limit: 500, asc: true}", "queries": "[{projectIdQuery: {projectId: …}}]"},
    Encoding.JSON,
    ("result[].userId", "result[].roleKeys"),
    by_admin=True,
    note="In pages, as the users.",
)
CHANGE_GRANT: Final = Shape(
    "change a grant",
    "PUT",
    "/management/v1/users/{user}/grants/{grant}",
    {"roleKeys": "all of them"},
    Encoding.JSON,
    (),
    _GONE,
    by_admin=True,
)
DEACTIVATE: Final = Shape(
    "deactivate a user",
    "POST",
    f"{_USERS}/DeactivateUser",
    {"userId": "…"},
    Encoding.JSON,
    (),
    {**_GONE, 400: Conflict},
    by_admin=True,
    note="400 when it is inactive already: its state is read then.",
)
REACTIVATE: Final = Shape(
    "reactivate a user",
    "POST",
    f"{_USERS}/ReactivateUser",
    {"userId": "…"},
    Encoding.JSON,
    (),
    {**_GONE, 400: Conflict},
    by_admin=True,
    note="400 when it is active already. Tokens from before the deactivation are never good again at the provider.",
)

TABLE: Final = (
    DISCOVERY,
    SIGNING_KEYS,
    MINT,
    DEVICE_AUTHORIZATION,
    DEVICE_TOKEN,
    CREATE_USER,
    FIND_USER,
    LIST_USERS,
    GET_USER,
    SET_TOKEN_TYPE,
    ADD_KEY,
    LIST_KEYS,
    REMOVE_KEY,
    GRANT_ROLE,
    FIND_GRANTS,
    LIST_GRANTS,
    CHANGE_GRANT,
    DEACTIVATE,
    REACTIVATE,
)
"""All of them, in the order in which an enrolment meets them."""

USUAL: Final[Mapping[int, type[FleetError]]] = {401: NotPermitted, 403: NotPermitted, 400: Refused, 404: Refused}
"""What a status means where the shape says nothing else. 429 and 5xx are told apart by whether the request acts."""


def request(
    shape: Shape,
    base: str,
    fields: Json | None = None,
    places: Mapping[str, str] | None = None,
    token: str | None = None,
    organization: str | None = None,
) -> HttpRequest:
    """The request of that shape.

    Args:
        base: the issuer; for a shape whose URL is discovered, that URL.
        fields: of the body; all that the shape names.
        places: for the `{places}` of the path.
        token: the bearer token; needed where the shape is the administrator's.
        organization: in whose name the administrator acts.
    """
    assert fields is None or set(fields) <= set(shape.sends), f"{shape.name} sends {set(fields)}"
    assert (token is not None) == shape.by_admin, f"{shape.name} needs {'a' if shape.by_admin else 'no'} token"
    path = "" if shape.is_discovered else shape.path
    for place, value in (places or {}).items():
        path = path.replace(f"{{{place}}}", quote(value, safe=""))
    headers, body = _body(shape, fields or {})
    if token is not None:
        headers = (*headers, ("Authorization", f"Bearer {token}"))
    if organization is not None:
        headers = (*headers, ("x-zitadel-orgid", organization))
    return HttpRequest(shape.method, f"{base}{path}", headers, body)


def _body(shape: Shape, fields: Json) -> tuple[Headers, bytes]:
    accept = ("Accept", "application/json")
    match shape.encoding:
        case Encoding.NONE:
            return (accept,), b""
        case Encoding.FORM:
            form = urlencode({key: str(value) for key, value in fields.items()}).encode()
            return (accept, ("Content-Type", "application/x-www-form-urlencoded")), form
        case Encoding.JSON:
            return (accept, ("Content-Type", "application/json")), json.dumps(fields).encode()

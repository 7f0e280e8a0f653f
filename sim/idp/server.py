"""The modelled provider as an HTTP server: paths, authorization, and the spelling of its answers."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final
from urllib.parse import parse_qsl, unquote

from fleet.capabilities.clock import Clock
from fleet.capabilities.http import HttpRequest, HttpResponse
from fleet.contracts.errors import NotFound, Refused
from fleet.contracts.time import Duration, Instant
from sim.idp.accounts import Accounts, Taken, User
from sim.idp.devices import INTERVAL, DeviceCodes, Waiting
from sim.idp.tokens import InvalidGrant, SigningKeys, Tokens
from sim.keys import SimKeyMaker

Json = Mapping[str, object]

OWN_API: Final = "urn:zitadel:iam:org:project:id:zitadel:aud"
JWT_TOKENS: Final = "ACCESS_TOKEN_TYPE_JWT"
TOKEN_LIFE: Final = Duration.minutes(12 * 60)
CODE_LIFE: Final = Duration.minutes(5)
_USERS: Final = "/zitadel.user.v2.UserService/"
_USUAL_PAGE: Final = 100
_LARGEST_PAGE: Final = 1000


class _Answer(Exception):
    """An answer that says no. Never leaves the model."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


class SimIdp:
    """One provider with one organization, one project, one administrator and one native app.

    Args:
        clock: whose wall clock is the provider's.
        keys: makes its signing keys and the administrator's.
        life: of every token.
    """

    organization: Final = "300000000000000001"
    project: Final = "300000000000000002"
    client: Final = "300000000000000003"

    def __init__(self, issuer: str, clock: Clock, keys: SimKeyMaker, life: Duration = TOKEN_LIFE) -> None:
        self.issuer = issuer
        self.accounts = Accounts()
        self.codes = DeviceCodes(CODE_LIFE)
        self.signing = SigningKeys(keys)
        self.tokens = Tokens(issuer, self.accounts, self.signing, life)
        self._clock = clock
        self.admin_key = self._administrator(keys)
        """The key file of the administrator, as JSON."""
        self.person = self.accounts.create("fleet-operator", is_machine=False)

    def handle(self, request: HttpRequest) -> HttpResponse:
        """Answer a request."""
        path = unquote(request.url.removeprefix(self.issuer).partition("?")[0])
        try:
            status, body = 200, self._route(request, path)
        except _Answer as answer:
            status, body = answer.status, answer.body
        except Taken:
            status, body = 409, _connect("already_exists")
        except NotFound:
            status, body = 404, _connect("not_found")
        except (Refused, KeyError, TypeError, ValueError):
            status, body = 400, _connect("invalid_argument")
        headers = (("Date", _date(self._clock.wall())), ("Content-Type", "application/json"))
        return HttpResponse(status, headers, json.dumps(body).encode())

    def _administrator(self, keys: SimKeyMaker) -> bytes:
        admin = self.accounts.create("fleet-enrolment")
        admin.is_admin = True
        private = keys.make()
        key = self.accounts.add_key(admin.id, keys.public(private), Instant(2**62))
        file = {"type": "serviceaccount", "keyId": key, "key": private.pem.decode(), "userId": admin.id}
        return json.dumps(file).encode()

    # --- without a login ------------------------------------------------------------------------------

    def _route(self, request: HttpRequest, path: str) -> Json:
        match request.method, path:
            case "GET", "/.well-known/openid-configuration":
                return self._discovery()
            case "GET", "/oauth/v2/keys":
                return {"keys": self.signing.published()}
            case "POST", "/oauth/v2/token":
                return self._token(dict(parse_qsl(request.body.decode())))
            case "POST", "/oauth/v2/device_authorization":
                return self._begin(dict(parse_qsl(request.body.decode())))
            case _:
                self._authorize(request)
                return self._administer(request.method, path, json.loads(request.body or b"{}"))

    def _discovery(self) -> Json:
        return {
            "issuer": self.issuer,
            "token_endpoint": f"{self.issuer}/oauth/v2/token",
            "jwks_uri": f"{self.issuer}/oauth/v2/keys",
            "device_authorization_endpoint": f"{self.issuer}/oauth/v2/device_authorization",
        }

    def _token(self, form: Mapping[str, str]) -> Json:
        now, scopes = self._clock.wall(), tuple(form.get("scope", "").split())
        match form.get("grant_type"):
            case "urn:ietf:params:oauth:grant-type:jwt-bearer":
                try:
                    text = self.tokens.by_assertion(form.get("assertion", ""), scopes, now)
                except InvalidGrant:
                    raise _oauth("invalid_grant") from None
            case "urn:ietf:params:oauth:grant-type:device_code":
                code = self.codes.poll(form.get("device_code", ""), form.get("client_id", ""), now)
                if not isinstance(code, Waiting):
                    raise _oauth(code)
                text = self.tokens.issue(self.accounts.get(code.approved_by or ""), code.scopes, now, code.client)
            case _:
                raise _oauth("unsupported_grant_type")
        return {"access_token": text, "token_type": "Bearer", "expires_in": int(self.tokens.life) // 10**9}

    def _begin(self, form: Mapping[str, str]) -> Json:
        if form.get("client_id") != self.client:
            raise _oauth("invalid_client", 401)
        code = self.codes.begin(self.client, tuple(form.get("scope", "").split()), self._clock.wall())
        return {
            "device_code": code.device_code,
            "user_code": code.user_code,
            "verification_uri": f"{self.issuer}/device",
            "verification_uri_complete": f"{self.issuer}/device?user_code={code.user_code}",
            "expires_in": int(self.codes.life) // 10**9,
            "interval": int(INTERVAL) // 10**9,
        }

    # --- for the administrator ------------------------------------------------------------------------

    def _authorize(self, request: HttpRequest) -> None:
        text = next((value for key, value in request.headers if key.lower() == "authorization"), "")
        held = self.tokens.holder(text.removeprefix("Bearer "), self._clock.wall())
        if held is None or OWN_API not in held[1]:
            raise _Answer(401, _connect("unauthenticated"))
        if not held[0].is_admin:
            raise _Answer(403, _connect("permission_denied"))

    def _administer(self, method: str, path: str, body: Mapping[str, object]) -> Json:
        if method == "POST" and path.startswith(_USERS):
            call = self._user_calls().get(path.removeprefix(_USERS))
            if call is not None:
                return call(body)
        match method, path.strip("/").split("/"):
            case "PUT", ["management", "v1", "users", user, "machine"]:
                return self._set_tokens(user, body)
            case "POST", ["management", "v1", "users", "grants", "_search"]:
                return self._grants(body)
            case "POST", ["management", "v1", "users", user, "grants"]:
                return {"userGrantId": self.accounts.grant(user, str(body["projectId"]), _roles(body))}
            case "PUT", ["management", "v1", "users", user, "grants", grant]:
                self.accounts.change_grant(user, grant, _roles(body))
                return {}
            case "GET", ["v2", "oidc", "device_authorization", user_code]:
                return {"deviceAuthorizationRequest": {"id": self.codes.of_user(user_code).number}}
            case "POST", ["v2", "oidc", "device_authorization", number]:
                return self._decide(number, body)
            case "POST", ["v2", "web_keys"]:
                return {"id": self.signing.create()}
            case "POST", ["v2", "web_keys", key, "activate"]:
                return _or_refuse(self.signing.activate(key))
            case "DELETE", ["v2", "web_keys", key]:
                return _or_refuse(self.signing.remove(key))
            case _:
                raise _Answer(404, _connect("unimplemented"))

    def _user_calls(self) -> Mapping[str, Callable[[Mapping[str, object]], Json]]:
        return {
            "CreateUser": self._create,
            "ListUsers": self._list,
            "GetUserByID": lambda body: {"user": _shown(self.accounts.get(str(body["userId"])))},
            "AddKey": self._add_key,
            "ListKeys": self._list_keys,
            "RemoveKey": self._remove_key,
            "DeactivateUser": lambda body: self._switch(body, False),
            "ReactivateUser": lambda body: self._switch(body, True),
        }

    def _create(self, body: Mapping[str, object]) -> Json:
        if body["organizationId"] != self.organization or not isinstance(body["machine"], dict):
            raise Refused("only machine users of this organization are made")
        return {"id": self.accounts.create(str(body["username"])).id}

    def _list(self, body: Mapping[str, object]) -> Json:
        users = sorted(self.accounts.users.values(), key=lambda user: user.name)
        if _asks(body, "typeQuery"):
            wanted = _query(body, "queries", "typeQuery")["type"] == "TYPE_MACHINE"
            return {"result": _page(body, [_shown(user) for user in users if user.is_machine is wanted])}
        named = _query(body, "queries", "userNameQuery")["userName"]
        return {"result": [_shown(user) for user in users if user.name == named]}

    def _add_key(self, body: Mapping[str, object]) -> Json:
        expires = datetime.strptime(str(body["expirationDate"]), "%Y-%m-%dT%H:%M:%S%z")
        try:
            public = base64.b64decode(str(body["publicKey"]), validate=True)
        except binascii.Error:
            raise Refused("that is not base64") from None
        until = Instant(int(expires.timestamp()) * 10**9)
        return {"keyId": self.accounts.add_key(str(body["userId"]), public, until)}

    def _list_keys(self, body: Mapping[str, object]) -> Json:
        user = self.accounts.users.get(str(_query(body, "filters", "userIdFilter")["id"]))
        return {"result": [{"id": key} for key in (() if user is None else user.keys)]}

    def _remove_key(self, body: Mapping[str, object]) -> Json:
        self.accounts.get(str(body["userId"])).keys.pop(str(body["keyId"]), None)
        return {}

    def _switch(self, body: Mapping[str, object], active: bool) -> Json:
        user = self.accounts.get(str(body["userId"]))
        if user.is_active is active:
            raise _Answer(400, _connect("failed_precondition"))
        user.is_active = active
        return {}

    def _set_tokens(self, number: str, body: Mapping[str, object]) -> Json:
        user, wanted = self.accounts.get(number), body["accessTokenType"] == JWT_TOKENS
        if user.has_jwt_tokens is wanted:
            raise _Answer(400, _connect("failed_precondition"))
        user.has_jwt_tokens = wanted
        return {}

    def _grants(self, body: Mapping[str, object]) -> Json:
        project = str(_query(body, "queries", "projectIdQuery")["projectId"])
        users = list(self.accounts.users.values())
        if _asks(body, "userIdQuery"):
            wanted = _query(body, "queries", "userIdQuery")["userId"]
            users = [user for user in users if user.id == wanted]
        held = [(user, *user.grants[project]) for user in users if project in user.grants]
        shown = [
            {"id": number, "userId": user.id, "projectId": project, "roleKeys": list(roles)}
            for user, number, roles in held
        ]
        return {"result": _page(body, shown)} if shown else {}

    def _decide(self, number: str, body: Mapping[str, object]) -> Json:
        code = self.codes.of_number(number)
        if "deny" in body:
            code.is_denied = True
        else:
            code.approved_by = self.person.id
        return {}


def _shown(user: User) -> Json:
    """A user as it is read. The default of an enumeration is left out, as protobuf does."""
    shown = {
        "userId": user.id,
        "username": user.name,
        "state": "USER_STATE_ACTIVE" if user.is_active else "USER_STATE_INACTIVE",
    }
    if not user.is_machine:
        return {**shown, "human": {}}
    return {**shown, "machine": {"name": user.name, **({"accessTokenType": JWT_TOKENS} if user.has_jwt_tokens else {})}}


def _query(body: Mapping[str, object], queries: str, name: str) -> Mapping[str, object]:
    """One query out of a list of them. Raises: KeyError."""
    listed = body[queries]
    for query in listed if isinstance(listed, list) else []:
        if isinstance(query, dict) and isinstance(query.get(name), dict):
            found: Mapping[str, object] = query[name]
            return found
    raise KeyError(name)


def _asks(body: Mapping[str, object], name: str) -> bool:
    """Whether there is a query of that kind."""
    listed = body["queries"]
    return isinstance(listed, list) and any(isinstance(query, dict) and name in query for query in listed)


def _page(body: Mapping[str, object], found: Sequence[Json]) -> Sequence[Json]:
    """The part that is asked for, of a hundred at most where nothing says how many. Numbers of 64 bits are text."""
    query = body.get("query")
    asked = query if isinstance(query, dict) else {}
    offset, limit = int(str(asked.get("offset", "0"))), int(str(asked.get("limit", "0"))) or _USUAL_PAGE
    return found[offset : offset + min(limit, _LARGEST_PAGE)]


def _roles(body: Mapping[str, object]) -> tuple[str, ...]:
    roles = body["roleKeys"]
    if not isinstance(roles, list):
        raise Refused("roleKeys is not a list")
    return tuple(str(role) for role in roles)


def _or_refuse(is_done: bool) -> Json:
    if not is_done:
        raise _Answer(400, _connect("failed_precondition"))
    return {}


def _connect(code: str) -> Json:
    return {"code": code, "message": code}


def _oauth(error: str, status: int = 400) -> _Answer:
    return _Answer(status, {"error": error})


def _date(now: Instant) -> str:
    return format_datetime(datetime.fromtimestamp(int(now) // 10**9, UTC), usegmt=True)

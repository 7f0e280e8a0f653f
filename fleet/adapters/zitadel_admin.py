"""The administrative side of the identity provider: users, their keys and roles.

Each method may be called again after any failure: what was half done is found by looking, because the provider offers
nothing that would tell a repeated request from a new one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from fleet.adapters import zitadel_shapes as shapes
from fleet.adapters.zitadel import Account, JwtProfile
from fleet.adapters.zitadel_exchange import Exchange, text_at
from fleet.adapters.zitadel_shapes import JWT_TOKENS, Json, Shape
from fleet.capabilities.identity import AccountState, MachineUser, PrivateKey, Token
from fleet.contracts.errors import Conflict, Disconnected, InvalidValue, NotFound, NotPermitted, Refused
from fleet.contracts.ids import DeviceId
from fleet.contracts.time import Instant

SCOPES: Final = ("openid", shapes.OWN_API)
DESCRIPTION: Final = "A device of the fleet."
PAGE: Final = 500
MACHINE: Final = "TYPE_MACHINE"


@dataclass(frozen=True, slots=True)
class AdminKey:
    """A service account's key file, as the provider hands it out. The key never shows in `repr`."""

    user: str
    key: str
    private: PrivateKey


def read_admin_key(where: str, content: bytes) -> AdminKey:
    """Parse a key file. Raises: InvalidValue, which quotes nothing of it."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidValue(f"{where} is not the key file of a service account: it is not JSON") from None
    match fields:
        case {"type": "serviceaccount", "keyId": str(key), "key": str(pem), "userId": str(user)}:
            return AdminKey(user, key, PrivateKey(pem.encode()))
        case _:
            raise InvalidValue(f"{where} is not the key file of a service account: a field is missing or wrong")


class ZitadelAdmin:
    """The IdentityProvider port.

    Args:
        key: the administrator's; it needs the permission to write users (`ORG_USER_MANAGER`).
        organization: the one that device users are made in.
        project: the one that roles are granted in.
        page: how many are asked for at once where all are listed, 1,000 at most.
    """

    def __init__(self, exchange: Exchange, key: AdminKey, organization: str, project: str, page: int = PAGE) -> None:
        self._exchange = exchange
        self._account = Account(key.user, key.key, SCOPES)
        self._private = key.private
        self._organization = organization
        self._project = project
        self._page = page
        self._token: Token | None = None

    async def now(self) -> Instant:
        """As the port says."""
        await self._exchange.send(shapes.DISCOVERY)
        return Instant(self._exchange.now() // 10**9 * 10**9)

    async def create_device_user(self, device: DeviceId) -> MachineUser:
        """As the port says."""
        machine = {"name": device, "description": DESCRIPTION}
        fields = {"organizationId": self._organization, "username": device, "machine": machine}
        try:
            made = await self._ask(shapes.CREATE_USER, fields)
        except Conflict:
            return await self.find_device_user(device)
        return MachineUser(self._text(made, "id"), device, AccountState.ACTIVE, False)

    async def find_device_user(self, device: DeviceId) -> MachineUser:
        """As the port says."""
        named = {"userName": device, "method": "TEXT_QUERY_METHOD_EQUALS"}
        within = {"organizationId": self._organization}
        queries = [{"organizationIdQuery": within}, {"userNameQuery": named}]
        for user in _items(await self._ask(shapes.FIND_USER, {"queries": queries})):
            if user.get("username") == device:
                return self._user(user)
        raise NotFound(f"the provider knows no user {device}")

    async def device_users(self, role: str) -> tuple[MachineUser, ...]:
        """As the port says. Who is made or removed while the pages are read may be left out."""
        wanted: Json = {"queries": [{"projectIdQuery": {"projectId": self._project}}]}
        grants = [item async for item in self._pages(shapes.LIST_GRANTS, wanted)]
        holders = {grant.get("userId") for grant in grants if role in _list(grant.get("roleKeys"))}
        queries = [{"organizationIdQuery": {"organizationId": self._organization}}, {"typeQuery": {"type": MACHINE}}]
        sorted_by_name = {"queries": queries, "sortingColumn": "USER_FIELD_NAME_USER_NAME"}
        users = [self._user(item) async for item in self._pages(shapes.LIST_USERS, sorted_by_name)]
        return tuple(sorted((user for user in users if user.id in holders), key=lambda user: user.name))

    async def use_jwt_tokens(self, user: MachineUser) -> None:
        """As the port says."""
        if (await self._read(user.id)).has_jwt_tokens:
            return
        fields = {"name": user.name, "description": DESCRIPTION, "accessTokenType": JWT_TOKENS}
        await self._ask(shapes.SET_TOKEN_TYPE, fields, {"user": user.id})
        if not (await self._read(user.id)).has_jwt_tokens:
            raise Refused(f"the provider took it that user {user.id} gets JWT access tokens, and did not keep it")

    async def add_key(self, user: str, public_key_pem: bytes, expires: Instant) -> str:
        """As the port says."""
        public = base64.b64encode(public_key_pem).decode()
        fields = {"userId": user, "expirationDate": f"{expires.utc()[:19]}Z", "publicKey": public}
        return self._text(await self._ask(shapes.ADD_KEY, fields), "keyId")

    async def keys(self, user: str) -> tuple[str, ...]:
        """As the port says."""
        answer = await self._ask(shapes.LIST_KEYS, {"filters": [{"userIdFilter": {"id": user}}]})
        return tuple(sorted(self._text(item, "id") for item in _items(answer)))

    async def remove_key(self, user: str, key: str) -> None:
        """As the port says."""
        try:
            await self._ask(shapes.REMOVE_KEY, {"userId": user, "keyId": key})
        except NotFound:
            return

    async def grant_role(self, user: str, role: str) -> None:
        """As the port says. Other roles that the user has stay."""
        fields = {"projectId": self._project, "roleKeys": [role]}
        try:
            await self._ask(shapes.GRANT_ROLE, fields, {"user": user})
        except Conflict:
            await self._add_role(user, role)

    async def deactivate(self, user: str) -> None:
        """As the port says."""
        await self._switch(shapes.DEACTIVATE, user, AccountState.INACTIVE)

    async def reactivate(self, user: str) -> None:
        """As the port says."""
        await self._switch(shapes.REACTIVATE, user, AccountState.ACTIVE)

    async def _switch(self, shape: Shape, user: str, wanted: AccountState) -> None:
        """The provider refuses to switch a user to what it is, in words that could mean anything: so it is read."""
        try:
            await self._ask(shape, {"userId": user})
        except Conflict as error:
            if (await self._read(user)).state is not wanted:
                raise Refused(str(error)) from None

    async def _add_role(self, user: str, role: str) -> None:
        queries = [{"userIdQuery": {"userId": user}}, {"projectIdQuery": {"projectId": self._project}}]
        for grant in _items(await self._ask(shapes.FIND_GRANTS, {"queries": queries})):
            roles = [str(held) for held in _list(grant.get("roleKeys"))]
            if role not in roles:
                places = {"user": user, "grant": self._text(grant, "id")}
                await self._ask(shapes.CHANGE_GRANT, {"roleKeys": [*roles, role]}, places)
            return
        raise Refused(f"the provider says that user {user} has a grant of the project, and lists none")

    async def _read(self, user: str) -> MachineUser:
        answer = await self._ask(shapes.GET_USER, {"userId": user})
        match answer.get("user"):
            case dict() as found:
                return self._user(found)
            case _:
                raise Disconnected(f"{self._exchange.issuer}: the answer holds no user")

    def _user(self, fields: Json) -> MachineUser:
        machine = fields.get("machine")
        name = self._text(fields, "username")
        if not isinstance(machine, dict):
            raise Refused(f"the provider's user {name} is a person: a device cannot have its name")
        active = fields.get("state") == "USER_STATE_ACTIVE"
        state = AccountState.ACTIVE if active else AccountState.INACTIVE
        return MachineUser(self._text(fields, "userId"), name, state, machine.get("accessTokenType") == JWT_TOKENS)

    async def _pages(self, shape: Shape, fields: Json) -> AsyncIterator[Json]:
        """Every object of a listing. The provider may give fewer at once than it is asked for."""
        offset = 0
        while True:
            query = {"offset": str(offset), "limit": self._page, "asc": True}
            page = tuple(_items(await self._ask(shape, {**fields, "query": query})))
            for item in page:
                yield item
            if not page:
                return
            offset += len(page)

    async def _ask(self, shape: Shape, fields: Json, places: Mapping[str, str] | None = None) -> Json:
        """With the token at hand, and once more with a fresh one: the provider may have forgotten the one we hold."""
        held = self._token is not None
        try:
            return await self._asked(shape, fields, places)
        except NotPermitted:
            if not held:
                raise
            self._token = None
            return await self._asked(shape, fields, places)

    async def _asked(self, shape: Shape, fields: Json, places: Mapping[str, str] | None) -> Json:
        if self._token is None or self._exchange.clock.monotonic() >= self._token.refresh:
            self._token = await JwtProfile(self._exchange).token(self._account, self._private)
        return await self._exchange.ask(shape, fields, places, self._token.text, self._organization)

    def _text(self, fields: Json, *path: str) -> str:
        return text_at(self._exchange.issuer, fields, *path)


def _items(answer: Json) -> Iterator[Json]:
    """The objects of a listing. One that is empty is left out of the answer."""
    return (item for item in _list(answer.get("result")) if isinstance(item, dict))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []

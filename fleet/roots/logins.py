"""What the secrets of an installation are used for at the bus: who logs in with which, and which the server knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fleet.adapters.nats_jwt import CalloutKeys
from fleet.adapters.nats_login import PasswordLogin
from fleet.capabilities.secrets import SecretStore
from fleet.contracts.ids import ObjectName
from fleet.contracts.permissions import ENROLMENT, EVERYTHING, REGISTRY_OF_CALLOUT, SYSTEM_OF_CALLOUT, Permissions
from fleet.scores.nats_server import CalloutSection, NatsServerConfig, StaticUser

CALLOUT, REGISTRY, SYSTEM = "callout", "callout-registry", "callout-system"
"""The users of the callout: where it is asked, where the enrolments are, and in the system's account."""
ADMIN_PASSWORD: Final = ObjectName("nats-admin-password")
OPERATOR_PASSWORD: Final = ObjectName("nats-operator-password")
ENROLMENT_PASSWORD: Final = ObjectName("nats-enrolment-password")
CALLOUT_PASSWORD: Final = ObjectName("nats-callout-password")
CALLOUT_ISSUER, CALLOUT_XKEY = ObjectName("nats-callout-issuer"), ObjectName("nats-callout-xkey")


@dataclass(frozen=True, slots=True)
class StoredPassword:
    """A LoginSource: a user whose password is in the secret store, read anew at each connection."""

    user: str
    secret: ObjectName
    store: SecretStore

    def turned_away(self) -> None:
        """The password is read anew each time anyway."""

    async def read(self) -> PasswordLogin:
        """The login now. Raises: FleetError."""
        return PasswordLogin(self.user, (await self.store.read(self.secret)).value.decode())


async def server_config(store: SecretStore, folder: str, host: str, port: int) -> NatsServerConfig:
    """The server that asks this callout, with its static users. Raises: what the secret store raises."""
    keys = await callout_keys(store)

    async def user(name: str, secret: ObjectName, permissions: Permissions = EVERYTHING) -> StaticUser:
        return StaticUser(name, (await store.read(secret)).value.decode(), permissions)

    return NatsServerConfig(
        store=folder,
        host=host,
        port=port,
        users=(
            await user("admin", ADMIN_PASSWORD),
            await user("operator", OPERATOR_PASSWORD),
            await user("enrolment", ENROLMENT_PASSWORD, ENROLMENT),
            await user(REGISTRY, CALLOUT_PASSWORD, REGISTRY_OF_CALLOUT),
        ),
        callout=CalloutSection(
            issuer=keys.issuer,
            xkey=keys.xkey,
            users=(await user(CALLOUT, CALLOUT_PASSWORD),),
            system_users=(await user(SYSTEM, CALLOUT_PASSWORD, SYSTEM_OF_CALLOUT),),
        ),
    )


async def callout_keys(store: SecretStore) -> CalloutKeys:
    """The keys of the callout. Raises: what the secret store raises, InvalidValue."""
    return CalloutKeys((await store.read(CALLOUT_ISSUER)).value, (await store.read(CALLOUT_XKEY)).value)

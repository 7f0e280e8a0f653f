"""The auth callout as a program: `fleet callout run`, and the configuration of the server that asks it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.http_client import HttpClient
from fleet.adapters.nats import NatsBus
from fleet.adapters.nats_callout import NatsCallout
from fleet.adapters.nats_jwt import CalloutKeys
from fleet.adapters.nats_login import PasswordLogin
from fleet.adapters.zitadel import ZitadelKeys
from fleet.capabilities.secrets import SecretStore
from fleet.commands.callout import CalloutConfig, load
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import ObjectName
from fleet.contracts.permissions import ENROLMENT, EVERYTHING, REGISTRY_OF_CALLOUT, SYSTEM_OF_CALLOUT, Permissions
from fleet.identity.callout.service import CalloutCounts, CalloutPorts, run_callout
from fleet.roots.secrets import secret_store
from fleet.scores.nats_server import DEVICES_ACCOUNT, CalloutSection, NatsServerConfig, StaticUser

CALLOUT, REGISTRY, SYSTEM = "callout", "callout-registry", "callout-system"
"""The users of the callout: where it is asked, where the enrolments are, and in the system's account."""
_OWN_PASSWORD: Final = ObjectName("nats-callout-password")
_ISSUER, _XKEY = ObjectName("nats-callout-issuer"), ObjectName("nats-callout-xkey")

callout_command = typer.Typer(no_args_is_help=True, help="The auth callout, which says who may log in at the bus.")

ConfigFile = Annotated[Path, typer.Option("--config", help="JSON file of the callout.")]


@callout_command.command("run")
def callout_run(config: ConfigFile) -> None:
    """Answer the NATS server until told to stop (SIGTERM, SIGINT). Any number may run: each is asked its share."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    told = load(config)

    async def whole() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with secret_store(told.secrets) as store, callout_ports(told, store) as ports:
            counts = CalloutCounts()
            await run_callout(ports, told.rules, stop, counts=counts)
        logging.getLogger("fleet.callout").info("%s", counts)

    asyncio.run(whole())


@callout_command.command("server-config")
def callout_server_config(
    file: Annotated[Path, typer.Argument(help="Written with mode 0600: it holds passwords.")],
    config: ConfigFile,
    store: Annotated[Path, typer.Option(help="Folder of the buckets, on the server's machine.")],
    host: Annotated[str, typer.Option(help="What the server binds.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(help="What the server binds.")] = 4222,
) -> None:
    """Write the configuration of a NATS server that asks this callout. The same secrets give the same file."""
    told = load(config)

    async def whole() -> str:
        async with secret_store(told.secrets) as secrets:
            return (await server_config(secrets, str(store), host, port)).render()

    text = asyncio.run(whole())
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            os.fchmod(descriptor, 0o600)
            opened.write(text)
    except OSError as error:
        raise InvalidValue(f"{file} cannot be written: {error.strerror}") from error
    print(f"{file} stands")


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


@asynccontextmanager
async def callout_ports(config: CalloutConfig, store: SecretStore) -> AsyncIterator[CalloutPorts]:
    """The adapters, connecting, and closed in the end. Raises: what the secret store raises."""
    clock, chance = WallClock(config.pace), SystemChance()
    keys = await _keys(store)
    asked, registry, system = (
        NatsBus(config.url, user, StoredPassword(user, _OWN_PASSWORD, store), clock, chance)
        for user in (CALLOUT, REGISTRY, SYSTEM)
    )
    http = HttpClient(clock)
    buses = (asked, registry, system)
    for bus in buses:
        bus.start()
    try:
        wire = NatsCallout(asked, system, DEVICES_ACCOUNT, keys, clock)
        yield CalloutPorts(clock, wire, registry, ZitadelKeys(http, clock, config.issuer))
    finally:
        for bus in buses:
            await bus.close()
        await http.close()


async def server_config(store: SecretStore, folder: str, host: str, port: int) -> NatsServerConfig:
    """The server that asks this callout, with its static users. Raises: what the secret store raises."""
    keys = await _keys(store)

    async def user(name: str, secret: str, permissions: Permissions = EVERYTHING) -> StaticUser:
        return StaticUser(name, (await store.read(ObjectName(secret))).value.decode(), permissions)

    return NatsServerConfig(
        store=folder,
        host=host,
        port=port,
        users=(
            await user("admin", "nats-admin-password"),
            await user("operator", "nats-operator-password"),
            await user("enrolment", "nats-enrolment-password", ENROLMENT),
            await user(REGISTRY, _OWN_PASSWORD, REGISTRY_OF_CALLOUT),
        ),
        callout=CalloutSection(
            issuer=keys.issuer,
            xkey=keys.xkey,
            users=(await user(CALLOUT, _OWN_PASSWORD),),
            system_users=(await user(SYSTEM, _OWN_PASSWORD, SYSTEM_OF_CALLOUT),),
        ),
    )


async def _keys(store: SecretStore) -> CalloutKeys:
    return CalloutKeys((await store.read(_ISSUER)).value, (await store.read(_XKEY)).value)

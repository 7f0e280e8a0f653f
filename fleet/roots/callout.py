"""The auth callout as a program: `fleet callout run`, and the configuration of the server that asks it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.http_client import HttpClient
from fleet.adapters.nats import NatsBus
from fleet.adapters.nats_callout import NatsCallout
from fleet.adapters.zitadel import ZitadelKeys
from fleet.capabilities.secrets import SecretStore
from fleet.commands.callout import CalloutConfig, load
from fleet.contracts.errors import InvalidValue
from fleet.identity.callout.service import CalloutCounts, CalloutPorts, run_callout
from fleet.roots.logins import CALLOUT, CALLOUT_PASSWORD, REGISTRY, SYSTEM, StoredPassword, callout_keys, server_config
from fleet.roots.secrets import secret_store
from fleet.scores.nats_server import DEVICES_ACCOUNT

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


@asynccontextmanager
async def callout_ports(config: CalloutConfig, store: SecretStore) -> AsyncIterator[CalloutPorts]:
    """The adapters, connecting, and closed in the end. Raises: what the secret store raises."""
    clock, chance = WallClock(config.pace), SystemChance()
    keys = await callout_keys(store)
    asked, registry, system = (
        NatsBus(config.url, user, StoredPassword(user, CALLOUT_PASSWORD, store), clock, chance)
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

"""The `fleet-agent` command: chooses the real ports and starts the agent, or tells about the release it is.

Exit codes: 0 done, 1 it failed, 2 the input was wrong and nothing was done.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from hashlib import file_digest
from importlib.resources import files
from pathlib import Path
from typing import assert_never

from agent import paths, selftest
from agent.config import AgentFile, BusWithIdentity, BusWithPassword, below, load
from agent.linux.disk import LinuxDisk
from agent.linux.facts import read_facts
from agent.linux.lock import LinuxLock
from agent.linux.podman import Podman
from agent.linux.programs import LinuxPrograms
from agent.linux.systemd import Systemd
from agent.loop import run_agent
from agent.ports import AgentBoot, AgentConfig, AgentPorts
from fleet.adapters.clock import OffsetFile, SystemChance, WallClock
from fleet.adapters.http import HttpArtefacts
from fleet.adapters.http_client import HttpClient
from fleet.adapters.nats import NatsBus, PasswordFile
from fleet.adapters.nats_login import LoginSource
from fleet.adapters.token_login import TokenFile, TokenLoginSource, auth_in_file
from fleet.adapters.zitadel import ZitadelMint, key_below
from fleet.contracts.errors import FleetError
from fleet.contracts.ids import Release, Sha256, Slot, Version

WRONG_INPUT = 2


def main() -> int:
    """Entry point of a release and of the `fleet-agent` command. Returns the exit code."""
    arguments = _parser().parse_args()
    try:
        if arguments.version:
            print(own_version())
        elif arguments.self_test:
            sys.stdout.buffer.write(selftest.run(own_release()))
        else:
            return _serve(arguments)
    except FleetError as error:
        print(f"fleet-agent: {error}", file=sys.stderr)
        return WRONG_INPUT
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fleet-agent", description="The agent of one device of the fleet.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("--self-test", action="store_true", help="test this release on this machine and exit")
    parser.add_argument("--slot", choices=[slot.value for slot in Slot], default=os.environ.get("FLEET_AGENT_SLOT"))
    parser.add_argument("--config", type=Path, help="configuration file; else the one below FLEET_ROOT")
    return parser


def own_version() -> Version:
    """The version this release was built as; a stand-in when it runs from source."""
    about = files("agent") / "release.json"
    if not about.is_file():
        return Version("0.0.0-source")
    return Version(json.loads(about.read_bytes())["version"])


def own_release() -> Release:
    """The release this process runs: the digest is that of the very file it was started from."""
    with open(sys.argv[0], "rb") as file:
        return Release(version=own_version(), sha256=Sha256(file_digest(file, "sha256").hexdigest()))


def _serve(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    root = Path(os.environ.get("FLEET_ROOT", "/"))
    config = load(arguments.config or below(root, str(paths.CONFIG)))
    boot = AgentBoot(release=own_release(), slot=Slot(arguments.slot or Slot.A.value))
    return asyncio.run(_run(boot, config, root))


async def _run(boot: AgentBoot, config: AgentFile, root: Path) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    clock, chance = _clock(config, root), SystemChance()
    http, artefacts = HttpClient(clock), HttpArtefacts(clock)
    bus = NatsBus(config.bus.url, config.device, _login(config, root, http, clock), clock, chance)
    ports = AgentPorts(
        clock=clock,
        chance=chance,
        bus=bus,
        disk=LinuxDisk(root),
        services=Systemd(),
        programs=LinuxPrograms(root, os.environ, clock),
        lock=LinuxLock(below(root, str(paths.LOCK)), clock),
        containers=Podman(),
        artefacts=artefacts,
        facts=read_facts(root),
    )
    bus.start()
    try:
        return await run_agent(boot, ports, AgentConfig(config.device), stop)
    finally:
        await artefacts.close()
        await http.close()


def _login(config: AgentFile, root: Path, http: HttpClient, clock: WallClock) -> LoginSource:
    match config.bus:
        case BusWithPassword(login=path):
            return PasswordFile(below(root, path))
        case BusWithIdentity(auth=path):
            mint, shared = (
                ZitadelMint(http, clock, key_below(root)),
                TokenFile(below(root, str(paths.TOKEN)), clock.since_boot),
            )
            return TokenLoginSource(auth_in_file(below(root, path)), mint, clock, shared)
        case _:
            assert_never(config.bus)


def _clock(config: AgentFile, root: Path) -> WallClock:
    if config.clock_offset is None:
        return WallClock(config.pace)
    return WallClock(config.pace, OffsetFile(below(root, config.clock_offset)))


if __name__ == "__main__":
    sys.exit(main())

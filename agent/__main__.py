"""The `fleet-agent` program: chooses the real ports of this machine and runs the agent over them."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from agent import paths, selftest
from agent.config import AgentFile, read_config
from agent.linux.disk import LinuxDisk
from agent.linux.facts import read_facts
from agent.linux.lock import LinuxLock
from agent.linux.podman import Podman
from agent.linux.programs import LinuxPrograms
from agent.linux.systemd import Systemd
from agent.loop import run_agent
from agent.ports import AgentBoot, AgentConfig, AgentPorts
from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.http import HttpArtefacts
from fleet.adapters.nats import NatsBus
from fleet.adapters.nats_login import PasswordFile
from fleet.contracts.errors import FleetError, InvalidValue
from fleet.contracts.ids import Release, Sha256, Slot, Version


def main() -> int:
    """Parse the command line and do what it says. Returns the exit code: 2 for a wrong call or configuration."""
    parser = argparse.ArgumentParser(prog="fleet-agent", description="The Harmony Fleet device agent.")
    parser.add_argument("--version", action="store_true", help="print the version and the sha256 of this release")
    parser.add_argument("--self-test", action="store_true", help="check that this release can run on this machine")
    parser.add_argument("--slot", choices=[slot.value for slot in Slot], help="the unit this instance runs in")
    parser.add_argument("--config", type=Path, help="another configuration file than the device's own")
    arguments = parser.parse_args()
    try:
        release = own_release()
        if arguments.version:
            print(f"{release.version} {release.sha256}")
            return 0
        if arguments.self_test:
            sys.stdout.buffer.write(selftest.run(release))
            return 0
        if arguments.slot is None:
            parser.error("name the slot to run in: --slot a or --slot b")
        root = Path(os.environ.get("FLEET_ROOT") or "/")
        config = read_config(arguments.config or _below(root, paths.CONFIG))
    except (FleetError, ImportError) as error:
        print(f"fleet-agent: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    return asyncio.run(_run(AgentBoot(release, Slot(arguments.slot)), config, root))


def own_release() -> Release:
    """What this very file is: the version packed into it, and the hash of all its bytes.

    Raises:
        InvalidValue: this is not a release but the source tree, or the release is damaged.
    """
    archive = Path(sys.argv[0])
    packed = files("agent") / "release.json"
    if not packed.is_file() or not archive.is_file():
        raise InvalidValue("this is not a release; build one with `fleet release build`")
    version = Version(json.loads(packed.read_text("utf-8"))["version"])
    return Release(version=version, sha256=Sha256(sha256(archive.read_bytes()).hexdigest()))


async def _run(boot: AgentBoot, config: AgentFile, root: Path) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    clock, chance = WallClock(config.pace), SystemChance()
    bus = NatsBus(config.nats_url, config.device, PasswordFile(config.nats_login), clock, chance)
    environment = dict(os.environ, SHIV_ROOT=str(_below(root, paths.UNPACKED)))
    ports = AgentPorts(
        clock=clock,
        chance=chance,
        bus=bus,
        disk=LinuxDisk(root),
        services=Systemd(),
        programs=LinuxPrograms(root, environment, clock),
        lock=LinuxLock(_below(root, paths.LOCK), clock),
        containers=Podman(),
        artefacts=HttpArtefacts(clock),
        facts=read_facts(root),
    )
    bus.start()
    return await run_agent(boot, ports, AgentConfig(config.device), stop)


def _below(root: Path, path: os.PathLike[str]) -> Path:
    return root / os.fspath(path).lstrip("/")


if __name__ == "__main__":
    sys.exit(main())

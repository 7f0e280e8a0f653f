"""Where things stand in the folder of a run on real parts, and the files its programs are given."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, assert_never

from agent import launcher, paths
from agent.config import AgentFile, BusWithIdentity, BusWithPassword
from agent.linux.disk import LinuxDisk
from agent.staging import install_first
from fleet.commands import config as fleet_command
from fleet.contracts.ids import DeviceId, ObjectName
from fleet.contracts.time import Instant
from fleet.identity.device_keys import AUTH, FOLDER
from fleet.releases.build import BuiltRelease
from harness.targets.port import Logins

_LINES: Final = 15
"""Of each log, in the report of a run that failed."""
CLOCK_OFFSET: Final = paths.CONFIG.with_name("clock-offset")
"""How wrong a device's time of day is, as the faults have it."""
_LOGIN: Final = paths.CONFIG.with_name("login.json")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Everything of one run."""

    path: Path

    @property
    def nats(self) -> Path:
        """The server's configuration, store and log."""
        return self.path / "nats"

    @property
    def releases(self) -> Path:
        """What the operator serves."""
        return self.path / "releases"

    @property
    def secrets(self) -> Path:
        """The secrets of the installation."""
        return self.path / "secrets"

    def operator_config(self, replica: str) -> Path:
        """What an operator is given."""
        return self.path / f"{replica}.json"

    def operator_log(self, replica: str) -> Path:
        """What an operator says, over all its starts."""
        return self.path / f"{replica}.log"

    def device(self, device: DeviceId) -> Path:
        """The root folder of a device."""
        return self.path / "devices" / device

    def logs(self) -> list[Path]:
        """Every log there is, sorted."""
        found = [
            *self.path.glob("operator-*.log"),
            *self.path.glob("identities/**/*.log"),
            self.nats / "nats.log",
            *self.path.glob("devices/*/var/log/*.log"),
        ]
        return sorted(path for path in found if path.is_file())

    def remove(self) -> None:
        """Everything, logs as well."""
        shutil.rmtree(self.path)

    def last_words(self) -> str:
        """The end of every log that says something, under its name."""
        parts = []
        for path in self.logs():
            lines = path.read_text("utf-8", "replace").splitlines()[-_LINES:]
            if lines:
                parts.append("\n".join((f"--- {path.relative_to(self.path)}", *lines)))
        return "\n".join(parts)


def operator_config(
    folder: RunFolder, replica: str, bus: str, login: Path, port: int, door: int, pace: float, since: Instant
) -> fleet_command.FleetConfig:
    """The operator's configuration: it serves the releases itself, as it does by default; devices see it at `door`."""
    served = fleet_command.ReleasesConfig(folder=folder.releases, port=port, url=f"http://127.0.0.1:{door}")
    return fleet_command.FleetConfig(
        bus=fleet_command.BusConfig(url=bus, login=login, name=replica),
        pace=pace,
        paced_since=since,
        releases=served,
        replica=ObjectName(replica),
    )


def agent_config(device: DeviceId, bus: str, pace: float, logins: Logins = Logins.PASSWORD) -> AgentFile:
    """A device's configuration."""
    bus_config: BusWithPassword | BusWithIdentity
    match logins:
        case Logins.PASSWORD:
            bus_config = BusWithPassword(url=bus, login=str(_LOGIN))
        case Logins.TOKEN:
            bus_config = BusWithIdentity(url=bus, auth=str(FOLDER / AUTH))
        case _:
            assert_never(logins)
    return AgentFile(device=device, bus=bus_config, pace=pace, clock_offset=str(CLOCK_OFFSET))


async def set_up_device(root: Path, config: AgentFile, login: Path | None, first: BuiltRelease) -> None:
    """Put on a device's disk what its set-up will: boot guard, configuration, login, first release, verified.

    `login` is the file of a password, and None where enrolment comes after this.

    Raises: as `agent.staging.install_first`.
    """
    _put(root, paths.LAUNCHER, Path(launcher.__file__).read_bytes())
    configure(root, config)
    if login is not None:
        _put(root, _LOGIN, login.read_bytes())
    await install_first(LinuxDisk(root), first.path.read_bytes(), first.release.version)


def configure(root: Path, config: AgentFile) -> None:
    """Put an agent's configuration on a device's disk."""
    _put(root, paths.CONFIG, config.model_dump_json().encode())


def _put(root: Path, path: PurePosixPath, data: bytes) -> None:
    file = root / path.relative_to("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(0o600)
    file.write_bytes(data)

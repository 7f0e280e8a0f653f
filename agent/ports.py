"""What an agent takes from its world, and what it is told at its start."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.capabilities.artefacts import Artefacts
from fleet.capabilities.bus import Bus
from fleet.capabilities.clock import Chance, Clock
from fleet.capabilities.containers import Containers
from fleet.capabilities.disk import Disk
from fleet.capabilities.host import HostFacts, HostLock, Programs, Services
from fleet.contracts.ids import DeviceId, Release, Slot
from fleet.contracts.time import Duration


@dataclass(frozen=True, slots=True)
class AgentBoot:
    """What this very process is: which release it runs, and in which slot."""

    release: Release
    slot: Slot


@dataclass(frozen=True, slots=True)
class AgentPorts:
    """The capabilities of the device, chosen by `agent.__main__` or by the simulated world."""

    clock: Clock
    chance: Chance
    bus: Bus
    disk: Disk
    services: Services
    programs: Programs
    lock: HostLock
    containers: Containers
    artefacts: Artefacts
    facts: HostFacts


@dataclass(frozen=True, slots=True)
class AgentTimings:
    """Every interval of the agent. Production values: no scenario shortens one, targets pace the clock instead."""

    heartbeat: Duration = Duration.seconds(30)
    heartbeat_jitter: Duration = Duration.seconds(3)
    """Each interval is `heartbeat` plus or minus up to this, so that a fleet does not beat in step."""
    reread: Duration = Duration.minutes(5)
    """Own desired keys are read again this often: a republished message can be lost."""
    drift: Duration = Duration.minutes(1)
    """Containers are compared with what is desired this often."""
    write: Duration = Duration.seconds(10)
    """A write to the bus without an answer is given up, and looked at again, after this."""
    retry: Duration = Duration.seconds(5)
    """Pause after a failed read, write, download or pull."""
    lock_request: Duration = Duration.seconds(10)
    drain: Duration = Duration.minutes(2)
    stage: Duration = Duration.minutes(30)
    self_test: Duration = Duration.minutes(2)
    overlap: Duration = Duration.minutes(5)
    """The new instance has to be confirmed by the operator within this time of connectedness."""
    watch: Duration = Duration.seconds(5)
    """How often the old instance looks at the new one's unit during the overlap."""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What an agent is told once, at enrolment."""

    device: DeviceId
    timings: AgentTimings = AgentTimings()

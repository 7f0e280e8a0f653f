"""A container whose desired state did not change is never restarted: not by an upgrade, not by a neighbour's change."""

from __future__ import annotations

from dataclasses import dataclass, field

from fleet.contracts.layout import Bucket, Valid
from fleet.contracts.podman import Container
from fleet.contracts.records import DesiredWorkload
from harness.invariants.base import Ground, Invariant
from sim.journal import (
    ContainerCrashed,
    ContainerEnded,
    ContainerStarted,
    CopyMade,
    Journal,
    KvDeleted,
    KvStored,
    PowerCut,
)


@dataclass(slots=True)
class _Life:
    """One container on one device. An epoch ends when something happens that may restart it."""

    epoch: int = 0
    started_in: int | None = None
    running: bool = False


@dataclass(slots=True)
class _Device:
    """One machine: a device, or a copy of one, of which the same is desired."""

    desired: dict[str, dict[str, Container]] = field(default_factory=dict)
    lives: dict[tuple[str, str], _Life] = field(default_factory=dict)

    def life(self, deployment: str, name: str) -> _Life:
        return self.lives.setdefault((deployment, name), _Life())


class UnaffectedContainersNotRestarted(Invariant):
    """Between two starts of a container its desired state changed, its machine lost power, or a fault ended it."""

    name = "unaffected-containers-not-restarted"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._devices: dict[str, _Device] = {device: _Device() for device in ground.cast.devices}

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(KvStored, self._stored)
        journal.subscribe(KvDeleted, self._deleted)
        journal.subscribe(PowerCut, self._cut)
        journal.subscribe(ContainerCrashed, self._crashed)
        journal.subscribe(ContainerStarted, self._started)
        journal.subscribe(ContainerEnded, self._ended)
        journal.subscribe(CopyMade, self._copied)

    def _stored(self, event: KvStored) -> None:
        if event.bucket is not Bucket.DESIRED:
            return
        read = self.ground.view.read(event)
        if isinstance(read, Valid) and isinstance(read.record, DesiredWorkload):
            record = read.record
            wanted = {container.name: container for container in record.score.containers}
            self._desire(record.device, record.deployment, {str(name): item for name, item in wanted.items()})

    def _deleted(self, event: KvDeleted) -> None:
        match (event.bucket, *event.key.split(".")):
            case (Bucket.DESIRED, device, "workload", deployment):
                self._desire(device, deployment, {})

    def _desire(self, device: str, deployment: str, wanted: dict[str, Container]) -> None:
        copies = [copy for copy, original in self.ground.view.copies.items() if original == device]
        for machine in (device, *copies):
            known = self._devices.get(machine)
            if known is None:
                continue
            before = known.desired.get(deployment, {})
            known.desired[deployment] = wanted
            for name in dict.fromkeys((*before, *wanted)):
                if before.get(name) != wanted.get(name):
                    known.life(deployment, name).epoch += 1

    def _copied(self, event: CopyMade) -> None:
        self._devices[event.copy] = _Device(dict(self._devices[event.device].desired))

    def _cut(self, event: PowerCut) -> None:
        for life in self._devices[event.device].lives.values():
            life.epoch += 1
            life.running = False

    def _crashed(self, event: ContainerCrashed) -> None:
        self._devices[event.device].life(event.deployment, event.name).epoch += 1

    def _started(self, event: ContainerStarted) -> None:
        life = self._devices[event.device].life(event.deployment, event.name)
        again = life.started_in == life.epoch
        life.started_in, life.running = life.epoch, True
        if again:
            text = f"container {event.deployment}/{event.name} on {event.device} was started again"
            self.violated(f"{text}, and nothing that is desired of it had changed", event.device)

    def _ended(self, event: ContainerEnded) -> None:
        self._devices[event.device].life(event.deployment, event.name).running = False

    def finish(self) -> None:
        for device in self.ground.cast.devices:
            state = self._devices[device]
            for (deployment, name), life in state.lives.items():
                if not life.running and name in state.desired.get(deployment, {}):
                    self.violated(f"container {deployment}/{name} on {device} is desired and does not run", device)

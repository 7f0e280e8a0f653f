"""The fleet's observable state: a fold of the journal, shared by checks, triggers and the test of convergence.

Everything but heartbeats is decoded as it arrives. Of heartbeats only the newest event per key is kept, undecoded:
they are nearly all of a journal, and nearly nobody asks for what is inside.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from pydantic import ValidationError

from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeploymentName, DeviceId, Release, Revision, Sha256, Slot, Version
from fleet.contracts.layout import Bucket, Invalid, Valid
from fleet.contracts.lease import Lease, replica_of
from fleet.contracts.objects import KINDS, AgentRollout, Deployment, Device, DevicePhase, Object
from fleet.contracts.podman import Container
from fleet.contracts.records import (
    DesiredAgent,
    DesiredWorkload,
    Enrolment,
    Heartbeat,
    Record,
    Revoked,
    RolledBack,
    UpgradeState,
    WorkloadState,
)
from fleet.contracts.time import Instant
from harness.schema_fault_blocks import Replica
from sim.journal import (
    AgentEnded,
    AgentStarted,
    ContainerEnded,
    ContainerStarted,
    CopyMade,
    CurrentRelease,
    Event,
    HeartbeatStored,
    InstallRefused,
    Journal,
    KvDeleted,
    KvStored,
    LockLeft,
    LockTaken,
    ObjectRemoved,
    ObjectStored,
    OperatorEnded,
    OperatorStarted,
    PowerCut,
    PowerRestored,
    SecretsInstalled,
)

NEVER = Revision(0)
_HOLDER: Final = re.compile(rb'"spec":\{"holderIdentity":"([^"\\]*)"')
"""Where a lease names its holder."""


@dataclass(slots=True)
class DeviceView:
    """What can be seen of one device."""

    device: DeviceId
    powered: bool = True
    phase: DevicePhase = DevicePhase.PENDING
    cloned: bool = False
    """The operator says that two machines have its identity."""
    revoked: bool = False
    """It may not log in."""
    running: dict[Slot, Release] = field(default_factory=dict)
    """The agent processes, by slot."""
    holder: Slot | None = None
    """The slot whose instance holds the host lock."""
    current: Release | None = None
    """Where the current link leads."""
    desired: DesiredAgent | None = None
    """The newest valid desired release."""
    desired_revision: Revision = NEVER
    upgrade: UpgradeState | None = None
    """The newest valid upgrade report."""
    condemned: dict[Sha256, Version] = field(default_factory=dict)
    """The releases that the device has reported as rolled back."""
    workloads: dict[DeploymentName, tuple[Revision, DesiredWorkload]] = field(default_factory=dict)
    """The newest valid desired workloads, without deleted ones."""
    reports: dict[DeploymentName, WorkloadState] = field(default_factory=dict)
    containers: dict[tuple[str, str], str] = field(default_factory=dict)
    """The fingerprint of each running container, by deployment and name."""
    fingerprints: dict[DeploymentName, dict[str, str]] = field(default_factory=dict)
    """The fingerprints that the containers of the desired workloads have to have, by container."""

    @property
    def managing(self) -> Release | None:
        """The release of the instance that manages the device."""
        return None if self.holder is None else self.running.get(self.holder)


class FleetView:
    """All devices, the objects, and the operator processes. Subscribe it before whoever reads it."""

    def __init__(self, devices: tuple[DeviceId, ...], journal: Journal) -> None:
        self.devices = {device: DeviceView(device) for device in devices}
        self.rollouts: dict[str, AgentRollout] = {}
        self.deployments: dict[str, Deployment] = {}
        self.operators: dict[int, bool] = {}
        self.operator_starts: dict[int, int] = {}
        self.leader: int | None = None
        """The replica that the lease names, until its process ends."""
        self.secrets_made = 0
        """By all installations together."""
        self.installs_kept = 0
        """The installations that made nothing."""
        self.installs_refused: list[str] = []
        """Why, of each that was."""
        self.version = 0
        """Counts the changes."""
        self.now = Instant(0)
        self.copies: dict[DeviceId, DeviceId] = {}
        """The device that each second machine has its disk from. What happens on such a machine changes no device."""
        self._beats: dict[str, HeartbeatStored] = {}
        self._read: tuple[KvStored | None, Valid[Record] | Invalid | None] = (None, None)
        self._read_object: tuple[ObjectStored | None, Object | None] = (None, None)
        self._holders: dict[str, tuple[bytes, str]] = {}
        self._listeners: list[Callable[[DeviceId | None], None]] = []
        self._subscribe(journal)

    def on_change(self, listener: Callable[[DeviceId | None], None]) -> None:
        """Call back after each change with the device it concerns, or None when it concerns the fleet's objects."""
        self._listeners.append(listener)

    def heartbeat(self, device: DeviceId, slot: Slot) -> Heartbeat | None:
        """The newest heartbeat of a slot; None when there is none that can be read."""
        event = self._beats.get(layout.heartbeat(device, slot).key)
        if event is None:
            return None
        read = layout.read(event.bucket, event.key, event.value, event.revision)
        return read.record if isinstance(read, Valid) and isinstance(read.record, Heartbeat) else None

    def read(self, event: KvStored) -> Valid[Record] | Invalid:
        """What an entry says. The latest answer is kept: several readers of the journal ask about the same event."""
        if event is not self._read[0]:
            self._read = (event, layout.read(event.bucket, event.key, event.value, event.revision))
        answer = self._read[1]
        assert answer is not None
        return answer

    def read_object(self, event: ObjectStored) -> Object | None:
        """The object in an event; None for what cannot be read. The latest answer is kept, as that of `read`."""
        if event is not self._read_object[0]:
            self._read_object = (event, _decoded(event))
        return self._read_object[1]

    def holder_named(self, event: ObjectStored) -> str | None:
        """The holder that a lease names; None for what is no lease, or cannot be read.

        Nearly all objects that are stored are renewals by the same holder: those are not decoded.
        """
        if event.kind != Lease.kind_name:
            return None
        found = _HOLDER.search(event.value)
        known = self._holders.get(event.name)
        if known is not None and found is not None and found[1] == known[0]:
            return known[1]
        lease = self.read_object(event)
        if not isinstance(lease, Lease):
            return None
        if found is not None:
            self._holders[event.name] = (found[1], lease.spec.holder_identity)
        return lease.spec.holder_identity

    def replica(self, named: Replica, replicas: int) -> int | None:
        """The operator replica that is meant; None when there is none such now. The only one is always the leader."""
        others = [number for number in range(replicas) if number != self.leader and self.operators.get(number, False)]
        match named:
            case "leader":
                return 0 if replicas == 1 else self.leader
            case "standby":
                return next(iter(others), None)
            case int():
                return named

    @property
    def operator_running(self) -> bool:
        """At least one operator process runs."""
        return any(self.operators.values())

    def _subscribe(self, journal: Journal) -> None:
        beats = self._beats

        def beat(event: HeartbeatStored) -> None:
            beats[event.key] = event

        journal.subscribe(HeartbeatStored, beat)
        journal.subscribe(KvStored, self._stored)
        journal.subscribe(KvDeleted, self._deleted)
        journal.subscribe(ObjectStored, self._object)
        journal.subscribe(ObjectRemoved, self._object_removed)
        journal.subscribe(OperatorStarted, self._operator_started)
        journal.subscribe(OperatorEnded, self._operator_ended)
        journal.subscribe(AgentStarted, self._agent_started)
        journal.subscribe(AgentEnded, self._agent_ended)
        journal.subscribe(LockTaken, self._lock_taken)
        journal.subscribe(LockLeft, self._lock_left)
        journal.subscribe(CurrentRelease, self._current)
        journal.subscribe(ContainerStarted, self._container_started)
        journal.subscribe(ContainerEnded, self._container_ended)
        journal.subscribe(PowerCut, self._power_cut)
        journal.subscribe(PowerRestored, self._power_restored)
        journal.subscribe(CopyMade, self._copy_made)
        journal.subscribe(SecretsInstalled, self._installed)
        journal.subscribe(InstallRefused, self._install_refused)

    def _changed(self, event: Event, device: DeviceId | None) -> None:
        self.now = event.at
        self.version += 1
        for listener in self._listeners:
            listener(device)

    # --- keys

    def _stored(self, event: KvStored) -> None:
        if event.bucket is Bucket.OBJECTS:
            return
        read = self.read(event)
        if isinstance(read, Valid):
            device = _device_of(event.key)
            view = None if device is None else self.devices.get(device)
            if view is not None and _fold(view, read.record, event.revision):
                self._changed(event, device)

    def _deleted(self, event: KvDeleted) -> None:
        device = _device_of(event.key)
        view = None if device is None else self.devices.get(device)
        if view is None or device is None:
            return
        match (event.bucket, *event.key.split(".")):
            case (Bucket.DESIRED, _, "workload", name):
                view.workloads.pop(DeploymentName(name), None)
                view.fingerprints.pop(DeploymentName(name), None)
            case (Bucket.STATE, _, "workload", name):
                view.reports.pop(DeploymentName(name), None)
            case (Bucket.DESIRED, _, "agent"):
                view.desired, view.desired_revision = None, event.revision
            case (Bucket.HEARTBEAT, *_):
                self._beats.pop(event.key, None)
            case _:
                return
        self._changed(event, device)

    # --- objects

    def _object(self, event: ObjectStored) -> None:
        holder = self.holder_named(event)
        if holder is not None:
            self._led_by(replica_number(holder), event)
            return
        item = self.read_object(event)
        match item:
            case Device():
                view = self.devices.get(item.device)
                told = (item.status.phase, item.status.cloned is not None)
                if view is not None and (view.phase, view.cloned) != told:
                    view.phase, view.cloned = told
                    self._changed(event, item.device)
            case AgentRollout():
                self.rollouts[item.name] = item
                self._changed(event, None)
            case Deployment():
                self.deployments[item.name] = item
                self._changed(event, None)
            case _:
                return

    def _led_by(self, leader: int | None, event: ObjectStored) -> None:
        if leader != self.leader:
            self.leader = leader
            self._changed(event, None)

    def _object_removed(self, event: ObjectRemoved) -> None:
        match event.kind:
            case AgentRollout.kind_name:
                self.rollouts.pop(event.name, None)
            case Deployment.kind_name:
                self.deployments.pop(event.name, None)
        self._changed(event, None)

    # --- secrets

    def _installed(self, event: SecretsInstalled) -> None:
        self.secrets_made += len(event.made)
        self.installs_kept += not event.made
        self._changed(event, None)

    def _install_refused(self, event: InstallRefused) -> None:
        self.installs_refused.append(event.reason)
        self._changed(event, None)

    # --- processes and machines

    def _operator_started(self, event: OperatorStarted) -> None:
        self.operators[event.replica] = True
        self.operator_starts[event.replica] = self.operator_starts.get(event.replica, 0) + 1
        self._changed(event, None)

    def _operator_ended(self, event: OperatorEnded) -> None:
        self.operators[event.replica] = False
        if self.leader == event.replica:
            self.leader = None
        self._changed(event, None)

    def _copy_made(self, event: CopyMade) -> None:
        self.copies[event.copy] = event.device

    def _agent_started(self, event: AgentStarted) -> None:
        view = self.devices.get(event.device)
        if view is not None:
            view.running[event.slot] = event.release
            self._changed(event, event.device)

    def _agent_ended(self, event: AgentEnded) -> None:
        view = self.devices.get(event.device)
        if view is not None:
            view.running.pop(event.slot, None)
            self._changed(event, event.device)

    def _lock_taken(self, event: LockTaken) -> None:
        view = self.devices.get(event.device)
        if view is not None:
            view.holder = event.slot
            self._changed(event, event.device)

    def _lock_left(self, event: LockLeft) -> None:
        view = self.devices.get(event.device)
        if view is not None:
            if view.holder is event.slot:
                view.holder = None
            self._changed(event, event.device)

    def _current(self, event: CurrentRelease) -> None:
        view = self.devices.get(event.device)
        if view is not None:
            view.current = event.release
            self._changed(event, event.device)

    def _container_started(self, event: ContainerStarted) -> None:
        view = self.devices.get(event.device)
        if view is not None:
            view.containers[event.deployment, event.name] = event.fingerprint
            self._changed(event, event.device)

    def _container_ended(self, event: ContainerEnded) -> None:
        view = self.devices.get(event.device)
        if view is not None:
            view.containers.pop((event.deployment, event.name), None)
            self._changed(event, event.device)

    def _power_cut(self, event: PowerCut) -> None:
        view = self.devices.get(event.device)
        if view is not None:
            view.powered, view.holder = False, None
            view.running.clear()
            view.containers.clear()
            self._changed(event, event.device)

    def _power_restored(self, event: PowerRestored) -> None:
        view = self.devices.get(event.device)
        if view is not None:
            view.powered = True
            self._changed(event, event.device)


def _decoded(event: ObjectStored) -> Object | None:
    kind = Lease if event.kind == Lease.kind_name else KINDS.get(event.kind)
    if kind is None:
        return None
    try:
        return kind.model_validate_json(event.value)
    except ValidationError:
        return None


def fingerprint(container: Container) -> str:
    """What a container made from this says of itself. Said here on its own: a judge shares no errors of the agent."""
    return sha256(container.model_dump_json(exclude_defaults=True).encode()).hexdigest()


def replica_number(holder_identity: str) -> int | None:
    """The replica that holds a lease; None when nobody does. Targets call their replicas `operator-0` and so on."""
    name, _, number = (replica_of(holder_identity) or "").rpartition("-")
    return int(number) if name == "operator" and number.isdecimal() else None


def _device_of(key: str) -> DeviceId | None:
    try:
        return DeviceId(key.split(".", 1)[0])
    except InvalidValue:
        return None


def _fold(view: DeviceView, record: Record, revision: Revision) -> bool:
    """Take a record in; whether anything that is kept changed."""
    match record:
        case DesiredAgent():
            view.desired, view.desired_revision = record, revision
        case DesiredWorkload():
            view.workloads[record.deployment] = (revision, record)
            containers = record.score.containers
            view.fingerprints[record.deployment] = {item.name: fingerprint(item) for item in containers}
        case UpgradeState():
            view.upgrade = record
            if isinstance(record.status, RolledBack):
                view.condemned[record.release.sha256] = record.release.version
        case WorkloadState():
            view.reports[record.deployment] = record
        case Enrolment():
            view.revoked = isinstance(record.standing, Revoked)
        case _:
            return False
    return True

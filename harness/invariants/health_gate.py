"""A group of a rollout passes only when its devices are done, and those it upgraded were well for the whole soak.

The rollout's own status is not believed. Whether a device was done is read from its reports, whether it was well from
its heartbeats. Where the operator could not see it (it was away itself, or the bus was), it is not held against it.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

from fleet.contracts import layout
from fleet.contracts.ids import AttemptId, DeviceId, Slot
from fleet.contracts.layout import Bucket, Valid
from fleet.contracts.objects import ENDED, AgentRollout, Device, DevicePhase, GroupPhase, RolloutGroup, RolloutPhase
from fleet.contracts.records import (
    TERMINAL,
    DeferredUpgrade,
    DesiredAgent,
    Heartbeat,
    Role,
    Succeeded,
    UpgradeState,
    UpgradeStatus,
)
from fleet.contracts.time import ZERO, Duration, Instant
from harness.invariants.base import Ground, Invariant
from harness.invariants.no_foreign_keys import HARNESS
from harness.rollouts import Groups, is_of
from harness.schema_fault_blocks import LoseBusTail, OnOperator, RestartBus
from sim.journal import (
    FaultHealed,
    FaultInjected,
    HeartbeatStored,
    Journal,
    KvStored,
    ObjectRemoved,
    ObjectStored,
    OperatorEnded,
    OperatorStarted,
)

# What the operator goes by, said here on its own: a judge that took its settings would share its errors.
BEAT = Duration.seconds(30)
STALE = Duration.seconds(100)
AWAY = Duration.seconds(400)
"""Without a sign for this long, a device is passed over."""
LEASE = Duration.minutes(60)
PATIENCE = Duration.minutes(30)
RETRIES = 3

CLOCKS = Duration.seconds(2)
"""The operator's clock and the run's may differ by this over a soak."""
ON_ITS_WAY = Duration.seconds(60)
"""What was decided before a device came back may be stored this much after it."""


class HealthGate(Invariant):
    """At each group that passes: every device of it ended its attempt, runs the release, is away, or is called cloned.

    Those that were upgraded gave heartbeats for the whole soak, and no two of them in a row with a workload that does
    not run. After the soak and half an hour more, as many ailing devices are let pass as may fail.
    """

    name = "health-gate"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        devices = ground.cast.devices
        self._of_key = {layout.heartbeat(device, slot).key: device for device in devices for slot in Slot}
        self._groups = Groups(ground.cast)
        self._gone: dict[DeviceId, None] = {}
        self._phases: dict[str, dict[str, GroupPhase]] = {}
        self._given: dict[DeviceId, tuple[AttemptId, Instant]] = {}
        self._ended: dict[DeviceId, dict[AttemptId, tuple[UpgradeStatus, Instant]]] = {}
        self._signs: dict[DeviceId, Instant] = {}
        self._back: dict[DeviceId, Instant] = {}
        """When a device last gave a sign after it had been away."""
        self._beats: dict[DeviceId, deque[HeartbeatStored]] = {}
        """Of the devices that some rollout has upgraded, undecoded, for as long as any soak lasts."""
        self._longest = ZERO
        self._disturbed = Instant(0)
        """When the operator or the bus last began to be away, or came back."""
        self._leader: int | None = None
        faults = enumerate(ground.cast.scenario.faults, 1)
        self._disturbing = {i for i, fault in faults if isinstance(fault, OnOperator | RestartBus | LoseBusTail)}

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(HeartbeatStored, self._beat)
        journal.subscribe(KvStored, self._stored)
        journal.subscribe(ObjectStored, self._object)
        journal.subscribe(ObjectRemoved, self._removed)
        journal.subscribe(OperatorStarted, self._disturb)
        journal.subscribe(OperatorEnded, self._disturb)
        journal.subscribe(FaultInjected, self._fault)
        journal.subscribe(FaultHealed, self._fault)

    # --- what happens

    def _disturb(self, event: OperatorStarted | OperatorEnded) -> None:
        self._disturbed = event.at

    def _fault(self, event: FaultInjected | FaultHealed) -> None:
        if event.index in self._disturbing:
            self._disturbed = event.at

    def _beat(self, event: HeartbeatStored) -> None:
        device = self._of_key.get(event.key)
        if device is None or event.writer == HARNESS:
            return
        if event.at - self._signs.get(device, Instant(0)) >= AWAY:
            self._back[device] = event.at
        self._signs[device] = event.at
        kept = self._beats.get(device)
        if kept is not None:
            kept.append(event)
            while kept[0].at < event.at - self._longest - AWAY:
                kept.popleft()

    def _stored(self, event: KvStored) -> None:
        if event.bucket not in (Bucket.STATE, Bucket.DESIRED) or event.writer == HARNESS:
            return
        read = self.ground.view.read(event)
        match read.record if isinstance(read, Valid) else None:
            case UpgradeState(device=device, attempt=attempt, status=status) if isinstance(status, TERMINAL):
                self._ended.setdefault(device, {}).setdefault(attempt, (status, event.at))
                if isinstance(status, Succeeded):
                    self._beats.setdefault(device, deque())
            case DesiredAgent(device=device, attempt=attempt, granted=Instant()):
                if self._given.get(device, ("", event.at))[0] != attempt:
                    self._given[device] = (attempt, event.at)
            case _:
                return

    def _removed(self, event: ObjectRemoved) -> None:
        if event.kind == AgentRollout.kind_name:
            self._phases.pop(event.name, None)
        elif event.kind == Device.kind_name:
            self._gone[DeviceId(event.name)] = None

    def _object(self, event: ObjectStored) -> None:
        if event.kind == Device.kind_name:
            self._gone.pop(DeviceId(event.name), None)
        if self.ground.view.leader != self._leader:
            self._leader, self._disturbed = self.ground.view.leader, event.at
        item = self.ground.view.read_object(event) if event.kind == AgentRollout.kind_name else None
        if not isinstance(item, AgentRollout):
            return
        self._longest = max(self._longest, *(group.soak for group in item.spec.groups))
        before = self._phases.get(item.name, {})
        self._phases[item.name] = {stands.name: stands.phase for stands in item.status.groups}
        for group in item.spec.groups:
            now, then = self._phases[item.name].get(group.name), before.get(group.name)
            if now is GroupPhase.PASSED and then is not GroupPhase.PASSED:
                self._judge(item, group, event.at)

    # --- a group that passes

    def _judge(self, rollout: AgentRollout, group: RolloutGroup, at: Instant) -> None:
        members = [d for d in self._groups.members(rollout, group) if d not in self._gone and self._is_its(d, rollout)]
        for device in members:
            if not self._is_done(device, rollout, at):
                self.violated(f"group {group.name} of {rollout.name} passed before {device} was done", device)
        if group.soak > ZERO:
            self._judge_soak(rollout, group, members, at)

    def _is_its(self, device: DeviceId, rollout: AgentRollout) -> bool:
        """No other rollout that has not ended has the device."""
        others = [item for item in self.ground.view.rollouts.values() if item.name != rollout.name]
        active = [item for item in others if item.status.phase not in (*ENDED, RolloutPhase.REFUSED)]
        return all(self._groups.group(item, device) is None for item in active)

    def _is_done(self, device: DeviceId, rollout: AgentRollout, at: Instant) -> bool:
        for attempt, (status, _) in self._attempts(device, rollout):
            if not isinstance(status, DeferredUpgrade) or attempt.endswith(f"-r{RETRIES}"):
                return True
        attempt, given = self._given.get(device, (AttemptId("none"), at))
        if is_of(attempt, rollout) and at - given + CLOCKS >= LEASE:
            return True
        return self._runs_it(device, rollout) or self._is_away(device, at) or self.ground.view.devices[device].cloned

    def _attempts(
        self, device: DeviceId, rollout: AgentRollout
    ) -> list[tuple[AttemptId, tuple[UpgradeStatus, Instant]]]:
        return [item for item in self._ended.get(device, {}).items() if is_of(item[0], rollout)]

    def _runs_it(self, device: DeviceId, rollout: AgentRollout) -> bool:
        brought = {artefact.release for artefact in rollout.spec.artefacts}
        beats = [self.ground.view.heartbeat(device, slot) for slot in Slot]
        return any(beat is not None and beat.role is Role.MANAGING and beat.release in brought for beat in beats)

    def _is_away(self, device: DeviceId, at: Instant) -> bool:
        if at - self._signs.get(device, Instant(0)) + CLOCKS >= AWAY:
            return True
        if device in self._back and at - self._back[device] < ON_ITS_WAY:
            return True
        is_stale = self.ground.view.devices[device].phase is DevicePhase.STALE
        return is_stale and at - self._disturbed < ON_ITS_WAY

    # --- its soak

    def _judge_soak(self, rollout: AgentRollout, group: RolloutGroup, members: list[DeviceId], at: Instant) -> None:
        ends = {device: dict(self._attempts(device, rollout)) for device in members}
        terminal = [end for attempts in ends.values() for end in attempts.values()]
        upgraded = {
            device: when
            for device, attempts in ends.items()
            for status, when in attempts.values()
            if isinstance(status, Succeeded) and self._runs_it(device, rollout)
        }
        for device, when in upgraded.items():
            if at - when + CLOCKS < group.soak:
                after = f"{_about(at - when)} after {device} was upgraded"
                text = f"group {group.name} passed {after}, its soak is {group.soak}"
                self.violated(text, device)
        ill = {
            device: reason for device, when in upgraded.items() if (reason := self._illness(device, group, when, at))
        }
        done = max((when for _, when in terminal), default=at)
        allowed = self._allowed(rollout, len(members)) if at - done + CLOCKS >= group.soak + PATIENCE else 0
        if len(ill) > allowed:
            device, reason = next(iter(ill.items()))
            self.violated(f"group {group.name} passed although in its soak of {group.soak} {device} {reason}", device)

    def _allowed(self, rollout: AgentRollout, total: int) -> int:
        return 0 if rollout.spec.max_failed is None else rollout.spec.max_failed.limit(total)

    def _illness(self, device: DeviceId, group: RolloutGroup, upgraded: Instant, at: Instant) -> str:
        """What was wrong with an upgraded device in the soak; empty when nothing was that the operator could see."""
        seen = Instant(self._disturbed + BEAT)
        begin, end = Instant(max(at - group.soak, upgraded, seen) + BEAT), Instant(at - CLOCKS)
        beats = list(self._beats.get(device, ()))
        times = [*(beat.at for beat in beats), at]
        for sign, following in pairwise(times):
            silent = max(sign, upgraded, seen) + STALE + BEAT
            if silent < following and following > begin and silent < end:
                return f"gave no sign for {_about(following - sign)}"
        said = [beat for event in beats if begin <= event.at <= end and (beat := _managing(event)) is not None]
        ailing = [beat.health.healthy < beat.health.workloads for beat in said]
        return "had a workload that does not run" if any(both == (True, True) for both in pairwise(ailing)) else ""


def _managing(event: HeartbeatStored) -> Heartbeat | None:
    read = layout.read(event.bucket, event.key, event.value, event.revision)
    beat = read.record if isinstance(read, Valid) else None
    return beat if isinstance(beat, Heartbeat) and beat.role is Role.MANAGING else None


def _about(length: Duration) -> Duration:
    """In whole seconds, for people."""
    return Duration(length - length % Duration.seconds(1))

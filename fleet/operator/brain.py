"""The operator's one decision point: events in, instructions out. Pure: no clock, no chance, no I/O.

Level-triggered: each event is folded into what is known, and whatever it touches is compared with what shall be. For
each key and object at most one write is under way; when it ends, the comparison is made again. Nothing is written and
no slot is given before every bucket and every kind of object has been read once.
"""

from __future__ import annotations

from typing import assert_never

from fleet.capabilities.objects import Applied, InvalidObject, Removed
from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import AttemptId, DeviceId, ObjectName, Revision, Slot
from fleet.contracts.keys import shown
from fleet.contracts.layout import Bucket
from fleet.contracts.objects import (
    AgentRollout,
    Deployment,
    Device,
    DevicePhase,
    DeviceStatus,
    Object,
    RolloutPhase,
)
from fleet.contracts.records import (
    DeferredUpgrade,
    DesiredAgent,
    LockDenied,
    LockGranted,
    LockReply,
    LockRequest,
    Succeeded,
)
from fleet.contracts.time import Duration, Instant
from fleet.operator import clones, handover
from fleet.operator.events import (
    BucketRead,
    Delete,
    EntrySeen,
    Event,
    Instruction,
    KeyMissing,
    KeyWriteEnded,
    KindListed,
    ObjectSeen,
    ReadAgain,
    Report,
    SendStop,
    SessionBegan,
    StatusWriteEnded,
    StopEnded,
    Ticked,
    Update,
    WriteStatus,
)
from fleet.operator.fleet_state import READ_BUCKETS, DeviceView, FleetState, Problem
from fleet.operator.handover import Asking, Ended, Holding, NoAttempt, Overdue
from fleet.operator.placement import Placement
from fleet.operator.ports import OperatorTimings
from fleet.operator.rollout import Plan, Rollout, is_accepted
from fleet.operator.rollout_status import Look, accepted, needs_time, next_status
from fleet.operator.standing import Judgement, Standing, is_missing, retry_number

KINDS = (Device, Deployment, AgentRollout)
"""The kinds the operator reads."""


class Brain:
    """All that the operator knows, and what it makes of it."""

    def __init__(self, timings: OperatorTimings) -> None:
        self._timings = timings
        self.stale_after = timings.heartbeat * timings.missed_for_stale + timings.stale_grace
        self.state = FleetState(self.stale_after)
        self.plan = Plan(timings)
        self.placement = Placement()
        self._unread: dict[str, None] = dict.fromkeys([*READ_BUCKETS, *(kind.kind_name for kind in KINDS)])
        self._rollouts: dict[ObjectName, AgentRollout] = {}
        self._unreadable_rollouts: dict[ObjectName, None] = {}
        self._sequence = 0
        self._versions: dict[tuple[str, str], tuple[str, ...]] = {}
        self._writing: dict[str, None] = {}
        self._statuses: dict[tuple[str, str], None] = {}
        self._stopping: dict[DeviceId, None] = {}
        self._timed: dict[DeviceId, None] = {}
        self._wall_offset = Duration(0)
        self._out: list[Instruction] = []

    @property
    def ready(self) -> bool:
        """Everything has been read once."""
        return not self._unread

    def stand_by(self) -> None:
        """Another replica acts, or nobody does: take everything in and want nothing, until `take_office`."""
        self._unread[_OFFICE] = None

    def take_office(self) -> None:
        """This replica acts from now on, once everything has been read again: it may all have changed."""
        self._unread = dict.fromkeys([*READ_BUCKETS, *(kind.kind_name for kind in KINDS)])

    # --- events

    def handle(self, event: Event) -> list[Instruction]:
        """Take an event in; answers what is to be done."""
        match event:
            case EntrySeen():
                return self.entry(event)
            case SessionBegan():
                self.state.session(event.at)
            case KeyMissing():
                self._look_at(self.state.missing(event.bucket, event.key), event.at, place=True)
            case BucketRead():
                self._bucket_read(event)
            case KindListed():
                self._kind_listed(event)
            case ObjectSeen():
                self._object_seen(event)
            case KeyWriteEnded():
                self._writing.pop(event.key, None)
                self._look_at(self.state.owner(Bucket.DESIRED, event.key), event.at, place=True)
            case StatusWriteEnded():
                self._statuses.pop((event.kind, event.name), None)
                self._status_ended(event.kind, event.name, event.at)
            case StopEnded():
                self._stopping.pop(event.device, None)
            case Ticked():
                self._ticked(event)
            case _:
                assert_never(event)
        return self._instructions()

    def entry(self, event: EntrySeen) -> list[Instruction]:
        """Take one entry in. Costs the same for any fleet when it is a heartbeat that says nothing new."""
        entry = event.entry
        changed = self.state.fold(entry, event.delivered, event.at)
        if changed is None:
            return []
        if isinstance(changed, Problem):
            self._report(changed)
            changed = self.state.owner(entry.bucket, entry.key)
        elif entry.bucket is Bucket.STATE or entry.bucket is Bucket.DESIRED:
            self.placement.touch(changed)
        elif entry.bucket is Bucket.HEARTBEAT and event.delivered and changed.watched:
            seen = changed.slots[Slot(entry.key[-1])]
            if changed.cloned is None:
                handover.count(changed, seen, event.at, self.stale_after)
        self._look_at(changed, event.at, place=entry.bucket is Bucket.DESIRED)
        return self._instructions()

    def _bucket_read(self, event: BucketRead) -> None:
        news = self.state.fold_all(event.bucket, event.entries, event.seen, event.at)
        if news is None:
            self._say(f"bucket {event.bucket.value} ends below revision {event.seen}, which was seen before")
            self._out.append(ReadAgain(event.bucket))
            return
        for changed in news:
            if isinstance(changed, Problem):
                self._report(changed)
            else:
                self.placement.touch(changed)
                self._look_at(changed, event.at, place=event.bucket is Bucket.DESIRED)
        self._has_read(event.bucket, event.at)

    def _kind_listed(self, event: KindListed) -> None:
        name, listing = event.kind.kind_name, event.listing
        present = {*(item.name for item in listing.items), *(bad.name for bad in listing.invalid)}
        for gone in [known for known in self._known(event.kind) if known not in present]:
            self._removed(name, gone, event.at)
        for item in listing.items:
            self._applied(item, event.at)
        for bad in listing.invalid:
            self._unreadable(bad)
        self._has_read(name, event.at)

    def _known(self, kind: type[Object]) -> list[ObjectName]:
        if kind is Device:
            return [
                ObjectName(view.device)
                for view in self.state.devices.values()
                if view.object is not None or view.unreadable
            ]
        if kind is Deployment:
            return [*self.placement.deployments, *self.placement.unreadable]
        return [*self._rollouts, *(name for name in self._unreadable_rollouts if name not in self._rollouts)]

    def _has_read(self, what: str, at: Instant) -> None:
        was_ready = self.ready
        self._unread.pop(what, None)
        if self.ready and not was_ready:
            self._accept_all()
            self._assign_all(at)

    def _object_seen(self, event: ObjectSeen) -> None:
        match event.change:
            case Applied(object=item):
                if not self._is_outdated(item):
                    self._applied(item, event.at)
            case Removed(kind=kind, name=name):
                self._removed(kind, name, event.at)
            case InvalidObject() as bad:
                self._unreadable(bad)
            case _:
                assert_never(event.change)

    def _ticked(self, event: Ticked) -> None:
        self._wall_offset = event.wall - event.at
        if not self.ready:
            return
        if event.connected:
            for view in self.state.overdue(event.at, event.wall):
                self._reconcile(view, event.at)
        for device in list(self._timed):
            self._reconcile(self.state.devices[device], event.at)
        self._write_statuses(event.at)

    # --- objects

    def _is_outdated(self, item: Object) -> bool:
        """A watch tells of a version of an object that has been replaced since, by a write of our own for instance."""
        return item.metadata.resource_version in self._versions.get((item.kind_name, item.name), ("",))[:-1]

    def _applied(self, item: Object, at: Instant) -> None:
        self.state.forget_problem(item.kind_name, item.name)
        version, place = item.metadata.resource_version, (item.kind_name, item.name)
        known = self._versions.get(place, ())
        if version not in known[-1:]:
            self._versions[place] = (*known, version)[-_VERSIONS_KEPT:]
        match item:
            case Device():
                self._device_applied(item, at)
            case Deployment():
                if self.placement.put(item) and self.ready:
                    self._place_all()
            case AgentRollout():
                self._rollout_applied(item, at)

    def _device_applied(self, item: Device, at: Instant) -> None:
        view = self.state.view(item.device)
        if view.object == item and not view.unreadable:
            return
        relabelled = view.object is None or view.object.metadata.labels != item.metadata.labels or view.unreadable
        self.state.adopt(view, item, at)
        if not self.ready:
            view.cloned = item.status.cloned
            return
        if relabelled:
            self.plan.assign(view)
            self.placement.touch_all()
            self._place(view)
        self._reconcile(view, at)

    def _rollout_applied(self, item: AgentRollout, at: Instant) -> None:
        self._rollouts[item.name] = item
        self._unreadable_rollouts.pop(item.name, None)
        self._sequence = max(self._sequence, item.status.sequence)
        if not self.ready:
            return
        self._accept(item)
        if is_accepted(item) and self.plan.put(item):
            self._assign_all(at)

    def _removed(self, kind: str, name: ObjectName, at: Instant) -> None:
        self.state.forget_problem(kind, name)
        self._versions.pop((kind, name), None)
        match kind:
            case Device.kind_name:
                self._device_removed(DeviceId(name))
            case Deployment.kind_name:
                if self.placement.drop(name) and self.ready:
                    self._place_all()
            case AgentRollout.kind_name:
                self._rollouts.pop(name, None)
                self._unreadable_rollouts.pop(name, None)
                if self.plan.drop(name) and self.ready:
                    self._assign_all(at)

    def _device_removed(self, device: DeviceId) -> None:
        view = self.state.view(device)
        view.object, view.unreadable, view.watched, view.cloned = None, False, False, None
        self.state.forget(view)
        self._timed.pop(device, None)
        if self.ready:
            self.plan.assign(view)
            self.placement.touch_all()
            self._place(view)

    def _unreadable(self, bad: InvalidObject) -> None:
        problem = self.state.note_problem(bad.kind, bad.name, Revision(0), bad.reason)
        if problem is not None:
            self._report(problem)
        try:
            name = ObjectName(bad.name)
        except InvalidValue:
            return
        match bad.kind:
            case Device.kind_name:
                self.state.view(DeviceId(name)).unreadable = True
            case Deployment.kind_name:
                self.placement.blur(name)
            case AgentRollout.kind_name:
                self._unreadable_rollouts[name] = None

    # --- rollouts

    def _accept_all(self) -> None:
        """Whatever has its place keeps it; then the changed ones in their old order, then the new ones by name."""
        self._sequence = max([self._sequence, *(_sequence_in(view) for view in self.state.devices.values())])
        for item in self._rollouts.values():
            if is_accepted(item):
                self.plan.put(item)
        for item in sorted(self._rollouts.values(), key=lambda item: (item.status.sequence or _LAST, item.name)):
            self._accept(item)

    def _accept(self, item: AgentRollout) -> None:
        """Give a new spec its place in the order of rollouts. It is acted upon once that is stored."""
        place = (item.kind_name, str(item.name))
        if is_accepted(item) or place in self._statuses or item.name in self._unreadable_rollouts:
            return
        refusal = self.plan.refusal(item, self.state.devices.values())
        status = accepted(item, self._sequence + 1, refusal)
        self._sequence = max(self._sequence, status.sequence)
        self._statuses[place] = None
        proposed = item.changed(status=status)
        self.plan.claim(proposed)
        self._out.append(WriteStatus(proposed))

    def _assign_all(self, at: Instant) -> None:
        for view in self.state.devices.values():
            self.plan.assign(view)
        for view in list(self.state.devices.values()):
            self._reconcile(view, at)
        self._place_all()

    # --- workloads

    def _place_all(self) -> None:
        self.placement.touch_all()
        for view in self.state.devices.values():
            self._place(view)

    def _place(self, view: DeviceView) -> None:
        for write in self.placement.instructions(view):
            self._write(write)

    def _write(self, write: Update | Delete) -> None:
        if write.key not in self._writing:
            self._writing[write.key] = None
            self._out.append(write)

    # --- one device

    def _look_at(self, view: DeviceView | None, at: Instant, place: bool) -> None:
        if view is None or not self.ready:
            return
        self._reconcile(view, at)
        if place:
            self._place(view)

    def _reconcile(self, view: DeviceView, at: Instant) -> None:
        """Compare one device with what it shall be, and ask for what is missing. Workloads are `_place`'s business."""
        if view.object is None:
            return
        wall = Instant(at + self._wall_offset)
        self._look_for_a_clone(view, at, wall)
        handover.track(view, at)
        handover.note_grant(view, wall)
        progress = handover.progress(view, wall, self._timings.lease)
        deferred = isinstance(progress, Ended) and isinstance(progress.status, DeferredUpgrade)
        view.deferred_at = (view.deferred_at or at) if deferred else None
        judgement = self.plan.judge(view, wall)
        if not view.unreadable:
            self._desire(view, progress, judgement, at)
            self._stop(view, at)
            self._write_device_status(view, wall)
        runs_it = view.release is not None and view.release == handover.release_of(view)
        open_ended = isinstance(progress, NoAttempt | Ended)
        under_way = not (open_ended or (isinstance(progress, Asking) and not runs_it))
        view.watched = view.cloned is not None or view.fallen_back == 1 or under_way
        self._keep_time(view, isinstance(progress, Holding | Overdue) or deferred, wall)

    def _look_for_a_clone(self, view: DeviceView, at: Instant, wall: Instant) -> None:
        """See whether two machines are this device; said once when it is found, and once when it is over."""
        before = view.cloned
        view.cloned = clones.look(view.boots, before, at, wall, self._timings)
        if before is None and view.cloned is not None:
            view.trial = None
            self._say(clones.told(view.device, view.cloned))
        elif before is not None and view.cloned is None:
            self._say(clones.told_over(view.device, view.boots, self._timings))

    def _keep_time(self, view: DeviceView, pending: bool, wall: Instant) -> None:
        """Time alone may change where the device stands: look at it at each tick."""
        if pending or is_missing(view, wall, self._timings):
            self._timed[view.device] = None
        else:
            self._timed.pop(view.device, None)

    def _desire(self, view: DeviceView, progress: handover.Progress, judgement: Judgement | None, at: Instant) -> None:
        record = self._wanted(view, progress, judgement, at)
        if record is not None and not (view.agent.stands and record == view.agent.record):
            self._write(Update(layout.desired_agent(view.device).key, record, view.agent.last))

    def _wanted(
        self, view: DeviceView, progress: handover.Progress, judgement: Judgement | None, at: Instant
    ) -> DesiredAgent | None:
        """The desired release as it shall stand; None leaves whatever is there."""
        current = view.desired
        asked = None
        if judgement is not None and not (isinstance(progress, Holding) and current is not None):
            asked = self._asked(view, progress, judgement, at)
        record = asked or current
        if record is None or record.attempt != handover.attempt_of(view):
            return record
        granted = record.granted if record.granted is not None else view.granting
        confirmed = record.confirmed
        if not isinstance(progress, Ended):
            confirmed = handover.confirmation(view, self._timings)
        elif not isinstance(progress.status, Succeeded):
            granted = None  # The slot is another's now. A device that forgets how it ended has to ask for one again.
        if (granted, confirmed) == (record.granted, record.confirmed):
            return record
        return record.model_copy(update={"granted": granted, "confirmed": confirmed})

    def _asked(
        self, view: DeviceView, progress: handover.Progress, judgement: Judgement, at: Instant
    ) -> DesiredAgent | None:
        """What its rollout asks of a device that holds no slot."""
        order, current = self.plan.order(view), view.desired
        if order is None:
            return None
        artefact, first = order.goal.artefact, order.goal.first
        number = retry_number(handover.attempt_of(view), first)
        if number is None:
            if isinstance(progress, Holding) or self._belongs_to_unreadable(view):
                return None
            if order.leaving is not None and view.release != order.leaving:
                return None
            runs_it = judgement.standing is Standing.UPGRADED
            if runs_it and (view.agent.untouched or (current and current.artefact.release == artefact.release)):
                return None
            return DesiredAgent(device=view.device, attempt=first, artefact=artefact, lift_quarantine=order.lift)
        if self._retry_is_due(view, number, at):
            number += 1
        attempt = AttemptId(f"{first}-r{number}") if number else first
        if current is not None and current.attempt == attempt:
            return current
        return DesiredAgent(device=view.device, attempt=attempt, artefact=artefact, lift_quarantine=order.lift)

    def _retry_is_due(self, view: DeviceView, number: int, at: Instant) -> bool:
        waited = view.deferred_at is not None and at - view.deferred_at >= self._timings.deferred_retry
        return waited and number < self._timings.deferred_retries

    def _belongs_to_unreadable(self, view: DeviceView) -> bool:
        """Its last attempt came from a rollout that cannot be read: no other takes the device over meanwhile."""
        attempt = handover.attempt_of(view)
        return attempt is not None and any(attempt.startswith(f"{name}-") for name in self._unreadable_rollouts)

    def _stop(self, view: DeviceView, at: Instant) -> None:
        request = None if view.cloned is not None else handover.to_stop(view, at, self.stale_after)
        if request is None or view.device in self._stopping:
            return
        if view.stop_sent is None or at - view.stop_sent >= self._timings.stop_repeat:
            view.stop_sent = at
            self._stopping[view.device] = None
            self._out.append(SendStop(request))

    # --- the upgrade slot

    def lock(self, request: LockRequest, at: Instant) -> tuple[LockReply | None, list[Instruction]]:
        """Answer a device that asks for its upgrade slot, or say nothing (None).

        A slot is given in two steps: the grant is stored with the desired record, and only a request that comes after
        that is granted. So an operator that is killed in between never gives more slots than there are.

        When two machines turn out to be the device while it holds a slot, nobody can judge its new release, and silence
        says so: an agent that gets no answer blames no release for not being confirmed.
        """
        answer = self._lock(request, at)
        return None if answer is None else LockReply(answer=answer), self._instructions()

    def _lock(self, request: LockRequest, at: Instant) -> LockGranted | LockDenied | None:
        timings = self._timings
        view = self.state.devices.get(request.device)
        if not self.ready:
            return LockDenied(reason="the operator is starting", retry_after=timings.retry)
        if view is None or view.object is None or view.unreadable:
            return LockDenied(reason="the device is unknown to the fleet", retry_after=timings.lock_retry)
        desired = view.desired
        if desired is None or not view.agent.stands or desired.attempt != request.attempt:
            return LockDenied(reason="another attempt is desired", retry_after=timings.lock_retry)
        wall = Instant(at + self._wall_offset)
        match handover.progress(view, wall, timings.lease):
            case Holding() | Overdue() if view.cloned is not None:
                return None
            case Holding(since=since) if desired.granted is not None:
                return LockGranted(lease=timings.lease - (wall - since))
            case Holding():
                return LockDenied(reason="the slot is being recorded", retry_after=timings.retry)
            case Asking():
                return self._ask(view, at, wall)
            case Ended():
                return LockDenied(reason="the attempt has ended", retry_after=timings.lock_retry)
            case _:
                return LockDenied(reason="the lease of the attempt is over", retry_after=timings.lock_retry)

    def _ask(self, view: DeviceView, at: Instant, wall: Instant) -> LockDenied:
        reason = self._objection(view, wall)
        if reason is not None:
            return LockDenied(reason=reason, retry_after=self._timings.lock_retry)
        view.granting = wall
        self._reconcile(view, at)
        return LockDenied(reason="the slot is being recorded", retry_after=self._timings.retry)

    def _objection(self, view: DeviceView, wall: Instant) -> str | None:
        """Why a device gets no slot now."""
        if view.cloned is not None:
            return f"{clones.REASON}: {clones.advice(view.device)}"
        member, order = self.plan.member(view.device), self.plan.order(view)
        newest = None if member is None else self._rollouts.get(member.rollout.object.name)
        if newest is not None and not is_accepted(newest):
            return f"rollout {newest.name} has been changed"
        reason = self.plan.room(view.device, wall)
        if reason is None and (order is None or retry_number(handover.attempt_of(view), order.goal.first) is None):
            return "no rollout asks for this attempt any more"
        return reason

    # --- statuses

    def _write_device_status(self, view: DeviceView, wall: Instant) -> None:
        device = view.object
        if device is None:
            return
        phase = _phase(view, device)
        since = device.status.since if phase is device.status.phase else wall
        release = view.release if view.release is not None and view.cloned is None else device.status.release
        self._write_status(device, DeviceStatus(phase=phase, release=release, since=since, cloned=view.cloned))

    def _write_statuses(self, at: Instant) -> None:
        """Rollouts and deployments are written at ticks only: one write for many devices."""
        look = Look(self.state.devices, Instant(at + self._wall_offset), self._timings)
        for rollout in list(self.plan.rollouts.values()):
            if rollout.dirty or needs_time(rollout):
                rollout.dirty = not self._write_rollout_status(rollout, look)
        for name in list(self.placement.dirty):
            item_ = self.placement.deployments[name]
            if self._write_status(item_, self.placement.status(name, self.state.devices.values())):
                self.placement.dirty.pop(name)

    def _write_rollout_status(self, rollout: Rollout, look: Look) -> bool:
        item = self._rollouts.get(rollout.object.name)
        if item is None or not is_accepted(item) or item.name in self._unreadable_rollouts:
            return False
        refused = item.status.phase is RolloutPhase.REFUSED
        refusal = self.plan.refusal(item, self.state.devices.values()) if refused else None
        status = next_status(rollout, look, refusal)
        if refused and refusal is None:
            self.plan.claim(item.changed(status=status))
        return self._write_status(item, status)

    def _write_status(self, item: Device | Deployment | AgentRollout, status: object) -> bool:
        """Ask for a status unless it stands; False while an earlier write is under way."""
        place = (item.kind_name, str(item.name))
        if item.status == status:
            return True
        if place in self._statuses:
            return False
        self._statuses[place] = None
        self._out.append(WriteStatus(item.changed(status=status)))
        return True

    def _status_ended(self, kind: str, name: ObjectName, at: Instant) -> None:
        """Look again: the write may have failed, or more may have changed since."""
        match kind:
            case Device.kind_name:
                self._look_at(self.state.view(DeviceId(name)), at, place=False)
            case Deployment.kind_name:
                if name in self.placement.deployments:
                    self.placement.dirty[name] = None
            case AgentRollout.kind_name:
                item = self._rollouts.get(name)
                if item is not None and self.ready:
                    self._accept(item)
                if name in self.plan.rollouts:
                    self.plan.rollouts[name].dirty = True

    # --- what goes out

    def _report(self, problem: Problem) -> None:
        place = f"{problem.where} {shown(problem.name)} at revision {problem.revision}"
        self._say(f"{place} is unreadable: {problem.reason}")

    def _say(self, text: str) -> None:
        self._out.append(Report(text))

    def _instructions(self) -> list[Instruction]:
        out, self._out = self._out, []
        return out


_VERSIONS_KEPT = 4
_SHORT = 12
_OFFICE = "the lease"
"""What a replica that stands by has not got."""


_LAST = 2**62


def _sequence_in(view: DeviceView) -> int:
    """The number of the beginning that a device's attempt belongs to: the rollout may have been deleted since."""
    attempt = handover.attempt_of(view)
    parts = [] if attempt is None else attempt.split("-")
    return max((int(part) for part in parts[-3:] if part.isdecimal() and len(part) < _SHORT), default=0)


def _phase(view: DeviceView, device: Device) -> DevicePhase:
    if view.alive:
        return DevicePhase.READY if view.heard else device.status.phase
    never = device.status.phase is DevicePhase.PENDING and not view.heard
    return DevicePhase.PENDING if never else DevicePhase.STALE

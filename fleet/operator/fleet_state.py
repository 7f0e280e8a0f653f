"""What the operator knows of each device: a fold over bus entries and `Device` objects. Decides nothing.

The heartbeat path costs the same for any size of the fleet: a heartbeat that says nothing new moves its device to the
end of the order of last signs, and looking for stale devices starts at the front of that order.

An entry that was read (not pushed) proves that the device wrote it some time: good enough to know who runs what,
not good enough to count toward the verification of a release.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from fleet.capabilities.bus import Deleted, Entry
from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import Architecture, AttemptId, DeploymentName, DeviceId, InstanceId, Release, Revision, Slot
from fleet.contracts.layout import Bucket, Invalid, Valid
from fleet.contracts.objects import Cloned, Device, DevicePhase
from fleet.contracts.records import (
    DesiredAgent,
    DesiredWorkload,
    DesiredWorkloads,
    DeviceInfo,
    Heartbeat,
    Record,
    Role,
    Succeeded,
    UpgradeState,
    WorkloadState,
)
from fleet.contracts.time import Duration, Instant
from fleet.operator.clones import Boots

NOTHING = Revision(0)
_BEGINNING = Instant(0)
READ_BUCKETS = (Bucket.DESIRED, Bucket.STATE, Bucket.INFO, Bucket.HEARTBEAT)
"""The buckets the operator reads, in the order in which it reads them."""


@dataclass(slots=True)
class Kept:
    """One of the operator's own keys: the newest valid record, and what a conditional write has to name."""

    record: Record | None = None
    stands: bool = False
    """The newest entry is `record` itself, neither garbage nor deleted nor below the `floor`."""
    revision: Revision = NOTHING
    last: Revision = NOTHING
    """The revision a conditional write names: 0 when no value stands there."""
    floor: Revision = NOTHING
    """A device may have seen this revision before the bucket lost its tail: it passes over what is not above it."""

    @property
    def untouched(self) -> bool:
        """No value stands there, not even an unreadable one."""
        return self.last == NOTHING


@dataclass(slots=True)
class Seen:
    """The newest heartbeat of a slot."""

    instance: InstanceId
    release: Release
    role: Role
    revision: Revision
    healthy: bool
    """All its workloads run."""
    heard: Instant | None
    """When the bus pushed the newest heartbeat of this instance; None when it was only read."""


@dataclass(slots=True)
class Trial:
    """One instance on its way to being verified: consecutive healthy heartbeats of the right release."""

    instance: InstanceId
    release: Release
    first: Instant
    latest: Instant
    count: int


@dataclass(slots=True)
class DeviceView:
    """Everything known of one device."""

    device: DeviceId
    object: Device | None = None
    unreadable: bool = False
    """Its object is there but cannot be read: nothing of the device is changed meanwhile."""
    info: DeviceInfo | None = None
    info_revision: Revision = NOTHING
    upgrade: UpgradeState | None = None
    upgrade_revision: Revision = NOTHING
    agent: Kept = field(default_factory=Kept)
    index: Kept = field(default_factory=Kept)
    workloads: dict[DeploymentName, Kept] = field(default_factory=dict)
    reports: dict[DeploymentName, tuple[Revision, WorkloadState]] = field(default_factory=dict)
    slots: dict[Slot, Seen] = field(default_factory=dict)
    boots: Boots = field(default_factory=Boots)
    cloned: Cloned | None = None
    """Two machines are this device, as stored or about to be."""

    sign: Instant = _BEGINNING
    """The last sign of life, or what stands for it when the operator has only just begun to listen."""
    alive: bool = False
    """Gave a sign within the time that makes a device stale."""
    heard: bool = False
    """This operator process has received a heartbeat itself."""
    offline_since: Instant | None = None
    """Time of day at which the device was found stale."""
    release: Release | None = None
    """What the managing instance runs."""

    # What is remembered of the attempt under way, beside what is stored.
    watched: bool = False
    """Each heartbeat matters (an attempt is under way), not only those that say something new."""
    tracked: AttemptId | None = None
    """The attempt that the following is about."""
    tracked_since: Instant = _BEGINNING
    """When it took the place of another one."""
    trial: Trial | None = None
    granting: Instant | None = None
    """Time of day of a grant that is not stored yet."""
    deferred_at: Instant | None = None
    stop_sent: Instant | None = None
    fallen_back: int = 0
    """Managing heartbeats in a row that contradict a reported success."""

    @property
    def architecture(self) -> Architecture | None:
        """Its own word, or where that cannot be read, what was fit for it before; None when it was never heard of."""
        if self.info is not None:
            return self.info.architecture
        return None if self.desired is None else self.desired.artefact.architecture

    @property
    def desired(self) -> DesiredAgent | None:
        """The newest valid desired release, even if something unreadable has been written over it."""
        record = self.agent.record
        assert record is None or isinstance(record, DesiredAgent)
        return record


@dataclass(frozen=True, slots=True)
class Problem:
    """An entry or object that cannot be read."""

    where: str
    name: str
    revision: Revision
    reason: str


class FleetState:
    """All devices, and everything that could not be read."""

    def __init__(self, stale_after: Duration) -> None:
        self.devices: dict[DeviceId, DeviceView] = {}
        self.problems: dict[tuple[str, str], Problem] = {}
        self.invalid_count = 0
        self.unknown_heartbeats = 0
        self.high: dict[Bucket, Revision] = dict.fromkeys(Bucket, NOTHING)
        self._stale_after = stale_after
        self._order: OrderedDict[DeviceId, DeviceView] = OrderedDict()
        self._session = Instant(0)
        self._went_back: dict[Bucket, bool] = {}

    def view(self, device: DeviceId) -> DeviceView:
        """What is known of a device; made empty when it is the first that is heard of it."""
        view = self.devices.get(device)
        if view is None:
            view = self.devices[device] = DeviceView(device)
        return view

    # --- entries

    def fold(self, entry: Entry, delivered: bool, at: Instant) -> DeviceView | Problem | None:
        """Take an entry in. Answers whose device it changed, a problem heard of for the first time, or None."""
        if entry.revision > self.high[entry.bucket]:
            self.high[entry.bucket] = entry.revision
        if isinstance(entry, Deleted):
            return self._deleted(entry)
        read = layout.read(entry.bucket, entry.key, entry.value, entry.revision)
        if isinstance(read, Invalid):
            return self._invalid(read)
        if self.problems:
            self._healed(entry.bucket, entry.key, entry.revision)
        return self._valid(read, delivered, at)

    def _valid(self, read: Valid[Record], delivered: bool, at: Instant) -> DeviceView | None:
        revision = read.revision
        match read.record:
            case Heartbeat() as record:
                return self._heartbeat(record, revision, delivered, at)
            case UpgradeState() as record:
                view = self.view(record.device)
                if revision <= view.upgrade_revision:
                    return None
                view.upgrade, view.upgrade_revision = record, revision
                view.fallen_back = 0
                if isinstance(record.status, Succeeded):
                    view.release = record.release
                return view
            case WorkloadState() as record:
                view = self.view(record.device)
                if revision <= view.reports.get(record.deployment, (NOTHING, None))[0]:
                    return None
                view.reports[record.deployment] = (revision, record)
                return view
            case DeviceInfo() as record:
                view = self.view(record.device)
                if revision <= view.info_revision:
                    return None
                view.info, view.info_revision = record, revision
                return view
            case DesiredAgent() | DesiredWorkload() | DesiredWorkloads() as record:
                view = self.view(record.device)
                before = view.desired
                if not _keep(_kept(view, record), record, revision):
                    return None
                _remember_grant(view, before)
                return view
            case _:
                raise AssertionError(f"{type(read.record).__name__} stands in no bucket")

    def _heartbeat(self, beat: Heartbeat, revision: Revision, delivered: bool, at: Instant) -> DeviceView | None:
        view = self.devices.get(beat.instance.device)
        if view is None:
            view = self.view(beat.instance.device)
        seen = view.slots.get(beat.slot)
        if seen is not None and revision <= seen.revision:
            return None
        another_boot = False
        if view.object is None:
            self.unknown_heartbeats += 1
        elif delivered:
            view.sign = at
            another_boot = view.boots.hear(beat.instance.boot, revision, at, self._stale_after)
            self._order[view.device] = view
            self._order.move_to_end(view.device)
        if seen is not None and _says_the_same(seen, beat):
            seen.revision = revision
            seen.healthy = beat.health.healthy == beat.health.workloads
            if delivered:
                seen.heard = at
                if view.alive and view.heard and not (view.watched or another_boot):
                    return None
        else:
            healthy = beat.health.healthy == beat.health.workloads
            seen = Seen(beat.instance, beat.release, beat.role, revision, healthy, at if delivered else None)
            view.slots[beat.slot] = seen
        if delivered and view.object is not None:
            view.alive = view.heard = True
            view.offline_since = None
        self._note_release(view, beat, revision, at if delivered else None)
        return view

    def _note_release(self, view: DeviceView, beat: Heartbeat, revision: Revision, heard: Instant | None) -> None:
        """What the device runs. Another boot may be a second machine's: it contradicts a success once it is alone."""
        if beat.role is not Role.MANAGING:
            return
        other = view.slots.get(beat.slot.other)
        if other is not None and other.role is Role.MANAGING and other.revision > revision:
            return
        if view.upgrade is not None and isinstance(view.upgrade.status, Succeeded):
            if heard is None:
                return
            contradicts = beat.release.sha256 != view.upgrade.release.sha256
            certain = heard - view.boots.alone >= self._stale_after // 2
            again = min(view.fallen_back + 1, 2) if certain else max(view.fallen_back, 1)
            view.fallen_back = again if contradicts else 0
        view.release = beat.release

    def _deleted(self, entry: Deleted) -> DeviceView | None:
        self._healed(entry.bucket, entry.key, entry.revision)
        kept = self._own_key(entry.bucket, entry.key)
        if kept is None:
            return None
        view, slot = kept
        if entry.revision <= slot.revision:
            return None
        slot.stands, slot.revision, slot.last = False, entry.revision, NOTHING
        return view

    def missing(self, bucket: Bucket, key: str) -> DeviceView | None:
        """A direct read found nothing under a key, and no trace that something ever was."""
        kept = self._own_key(bucket, key)
        if kept is None:
            return None
        view, slot = kept
        slot.stands, slot.revision, slot.last = False, NOTHING, NOTHING
        return view

    # --- whole buckets

    def fold_all(
        self, bucket: Bucket, entries: tuple[Entry, ...], seen: Revision, at: Instant
    ) -> list[DeviceView | Problem] | None:
        """Take a whole bucket in; answers the devices it changed and the problems heard of for the first time.

        None: the bucket ends below a revision already seen, for the first time. Either the reading was served by a
        server that lags, or the bucket lost its tail and will use those revisions again. A second reading decides.
        """
        newest = max((entry.revision for entry in entries), default=NOTHING)
        if newest < seen:
            if not self._went_back.get(bucket, False):
                self._went_back[bucket] = True
                return None
            self._forget_order(bucket)
        self._went_back[bucket] = False
        news = self._forget_missing(bucket, {entry.key for entry in entries}, seen)
        for entry in entries:
            changed = self.fold(entry, False, at)
            if changed is not None:
                news.append(changed)
        return news

    def _forget_missing(self, bucket: Bucket, present: set[str], seen: Revision) -> list[DeviceView | Problem]:
        for where, key in [place for place in self.problems if place[0] == bucket.value]:
            if key not in present and self.problems[where, key].revision <= seen:
                del self.problems[where, key]
        news: list[DeviceView | Problem] = []
        if bucket is not Bucket.DESIRED:
            return news
        for view in self.devices.values():
            for key, kept in own_keys(view):
                if key not in present and kept.revision <= seen and not kept.untouched:
                    kept.stands, kept.last = False, NOTHING
                    news.append(view)
        return news

    def _forget_order(self, bucket: Bucket) -> None:
        self.high[bucket] = NOTHING
        for place, problem in self.problems.items():
            if place[0] == bucket.value:
                self.problems[place] = replace(problem, revision=NOTHING)
        for view in self.devices.values():
            match bucket:
                case Bucket.DESIRED:
                    for _, kept in own_keys(view):
                        kept.floor, kept.revision = max(kept.floor, kept.revision), NOTHING
                case Bucket.STATE:
                    view.upgrade_revision = NOTHING
                    view.reports = {name: (NOTHING, report) for name, (_, report) in view.reports.items()}
                case Bucket.INFO:
                    view.info_revision = NOTHING
                case Bucket.HEARTBEAT:
                    view.boots.forget()
                    for seen in view.slots.values():
                        seen.revision = NOTHING
                case Bucket.OBJECTS | Bucket.IDENTITY:
                    pass

    # --- problems

    def _invalid(self, read: Invalid) -> DeviceView | Problem | None:
        kept = self._own_key(read.bucket, read.key)
        if kept is not None:
            slot = kept[1]
            if read.revision > slot.revision:
                slot.stands, slot.revision, slot.last = False, read.revision, read.revision
        return self.note_problem(read.bucket.value, read.key, read.revision, read.reason)

    def note_problem(self, where: str, name: str, revision: Revision, reason: str) -> Problem | None:
        """Remember something unreadable; answers it when this is news."""
        known = self.problems.get((where, name))
        if known is not None and (known.revision, known.reason) == (revision, reason):
            return None
        if known is not None and revision < known.revision:
            return None
        problem = self.problems[where, name] = Problem(where, name, revision, reason)
        self.invalid_count += 1
        return problem

    def forget_problem(self, where: str, name: str) -> None:
        """It can be read again, or is gone."""
        self.problems.pop((where, name), None)

    def _healed(self, bucket: Bucket, key: str, revision: Revision) -> None:
        known = self.problems.get((bucket.value, key))
        if known is not None and known.revision < revision:
            del self.problems[bucket.value, key]

    def owner(self, bucket: Bucket, key: str) -> DeviceView | None:
        """The device whose desired key this is."""
        kept = self._own_key(bucket, key)
        return None if kept is None else kept[0]

    def _own_key(self, bucket: Bucket, key: str) -> tuple[DeviceView, Kept] | None:
        """The place that a key of the desired bucket has here; None for keys that are not of the layout."""
        if bucket is not Bucket.DESIRED or layout.record_type(bucket, key) is None:
            return None
        parts = key.split(".")
        try:
            view = self.view(DeviceId(parts[0]))
            deployment = DeploymentName(parts[2]) if len(parts) == 3 else None
        except InvalidValue:
            return None
        if deployment is not None:
            return view, view.workloads.setdefault(deployment, Kept())
        return view, view.agent if parts[1] == "agent" else view.index

    # --- life

    def session(self, at: Instant) -> None:
        """The operator listens from now on: nobody is late before a whole stale time has passed."""
        self._session = at

    def expect(self, view: DeviceView, at: Instant) -> None:
        """Expect signs of a device that the operator has only just been told of."""
        view.sign, view.alive = at, True
        self._order[view.device] = view
        self._order.move_to_end(view.device)

    def forget(self, view: DeviceView) -> None:
        """Expect nothing of a device any more."""
        self._order.pop(view.device, None)
        view.alive = view.heard = False
        view.offline_since = None

    def overdue(self, at: Instant, wall: Instant) -> list[DeviceView]:
        """The devices that turn stale now, in the order of their last signs."""
        late: list[DeviceView] = []
        if at - self._session < self._stale_after:
            return late
        while self._order:
            view = next(iter(self._order.values()))
            if at - view.sign < self._stale_after:
                break
            del self._order[view.device]
            view.alive, view.offline_since = False, wall
            late.append(view)
        return late

    def adopt(self, view: DeviceView, device: Device, at: Instant) -> None:
        """Take a `Device` object in."""
        first = view.object is None
        view.object, view.unreadable = device, False
        if not first:
            return
        view.cloned = device.status.cloned
        if device.status.phase is DevicePhase.STALE:
            view.alive, view.offline_since = False, device.status.since
        else:
            self.expect(view, at)


def _says_the_same(seen: Seen, beat: Heartbeat) -> bool:
    known, now = seen.instance, beat.instance
    return (
        known.start == now.start
        and known.boot == now.boot
        and seen.role is beat.role
        and seen.release.sha256 == beat.release.sha256
        and known.version == now.version
    )


def _kept(view: DeviceView, record: DesiredAgent | DesiredWorkload | DesiredWorkloads) -> Kept:
    match record:
        case DesiredAgent():
            return view.agent
        case DesiredWorkload():
            return view.workloads.setdefault(record.deployment, Kept())
        case DesiredWorkloads():
            return view.index


def _remember_grant(view: DeviceView, before: DesiredAgent | None) -> None:
    """A bus that lost its tail forgets a grant, but not that of a slot which is still taken."""
    now = view.desired
    if before is None or now is None or before.attempt != now.attempt or now.granted is not None:
        return
    view.granting = view.granting or before.granted


def _keep(kept: Kept, record: Record, revision: Revision) -> bool:
    if revision <= kept.revision:
        return False
    stands = revision > kept.floor or (revision == kept.floor and record == kept.record)
    kept.record, kept.stands, kept.revision, kept.last = record, stands, revision, revision
    return True


def own_keys(view: DeviceView) -> list[tuple[str, Kept]]:
    """The desired keys of a device that are known, with what is known of each."""
    keys = [
        (layout.desired_agent(view.device).key, view.agent),
        (layout.desired_workloads(view.device).key, view.index),
    ]
    keys += [(layout.desired_workload(view.device, name).key, kept) for name, kept in view.workloads.items()]
    return keys

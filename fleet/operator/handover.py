"""One device's upgrade attempt as the operator sees it (ADR-022): where it stands, whom to confirm, whom to stop.

Everything follows from what is stored (desired record, reported state, heartbeats), so that an operator that was
restarted at any moment goes on where the last one was. The one thing that has to be seen with own eyes, and is begun
anew after a restart, is the row of heartbeats that verifies a release.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.contracts.ids import AttemptId, InstanceId, Release
from fleet.contracts.records import (
    TERMINAL,
    DeferredUpgrade,
    InProgress,
    RefusedUpgrade,
    Role,
    RolledBack,
    StopRequest,
    Succeeded,
    UpgradePhase,
    UpgradeState,
)
from fleet.contracts.time import Duration, Instant
from fleet.operator.fleet_state import DeviceView, Seen, Trial
from fleet.operator.ports import OperatorTimings


@dataclass(frozen=True, slots=True)
class NoAttempt:
    """Nothing was ever asked of the device."""


@dataclass(frozen=True, slots=True)
class Asking:
    """The attempt stands in the desired record and has no slot."""


@dataclass(frozen=True, slots=True)
class Holding:
    """The attempt holds its slot and is not terminal: the device counts as unavailable."""

    since: Instant


@dataclass(frozen=True, slots=True)
class Overdue:
    """The attempt did not become terminal within its lease: its slot is free."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The device reported how the attempt ended."""

    status: Succeeded | RolledBack | RefusedUpgrade | DeferredUpgrade


Progress = NoAttempt | Asking | Holding | Overdue | Ended


def attempt_of(view: DeviceView) -> AttemptId | None:
    """The attempt last asked of the device; as the device reports it when the desired record cannot be read."""
    if view.desired is not None:
        return view.desired.attempt
    return None if view.upgrade is None else view.upgrade.attempt


def release_of(view: DeviceView) -> Release | None:
    """The release of that attempt."""
    if view.desired is not None:
        return view.desired.artefact.release
    return None if view.upgrade is None else view.upgrade.release


def report_of(view: DeviceView) -> UpgradeState | None:
    """What the device says of that attempt; None when it has said nothing yet."""
    return view.upgrade if view.upgrade is not None and view.upgrade.attempt == attempt_of(view) else None


def progress(view: DeviceView, wall: Instant, lease: Duration) -> Progress:
    """Where the newest attempt stands at this time of day."""
    if attempt_of(view) is None:
        return NoAttempt()
    report = report_of(view)
    if report is not None and not isinstance(report.status, InProgress):
        return Ended(report.status)
    granted = view.desired.granted if view.desired is not None else None
    since = granted if granted is not None else view.granting
    if since is None:
        return Asking()
    return Overdue() if wall - since >= lease else Holding(since)


def track(view: DeviceView, at: Instant) -> None:
    """Forget what was remembered of an earlier attempt once another one stands."""
    attempt = attempt_of(view)
    if view.tracked != attempt:
        if view.tracked is not None:
            view.tracked_since = at
        view.tracked = attempt
        view.trial = view.granting = view.deferred_at = view.stop_sent = None


def note_grant(view: DeviceView, wall: Instant) -> None:
    """Remember a slot that is taken although no grant is stored: the record that said so was lost.

    The evidence is a phase past `locking`, or an instance of the desired release that stands by since this attempt is
    desired: one that was heard before stood by for an attempt that is over. While two machines are the device, what
    one of them says or runs is no evidence.
    """
    if view.cloned is not None:
        return
    stored = view.desired is not None and view.desired.granted is not None
    report = report_of(view)
    if stored or (report is not None and isinstance(report.status, TERMINAL)):
        view.granting = None
    elif view.granting is None and (_works(report) or _stands_by(view)):
        view.granting = wall


def _works(report: UpgradeState | None) -> bool:
    return (
        report is not None and isinstance(report.status, InProgress) and report.status.phase is not UpgradePhase.LOCKING
    )


def _stands_by(view: DeviceView) -> bool:
    return view.desired is not None and any(
        seen.role is Role.STANDBY
        and seen.heard is not None
        and seen.heard >= view.tracked_since
        and seen.release == view.desired.artefact.release
        for seen in view.slots.values()
    )


# --- verification ------------------------------------------------------------------------------------


def count(view: DeviceView, seen: Seen, at: Instant, longest_gap: Duration) -> None:
    """Count a heartbeat that was delivered just now toward the verification of the desired release, or start over."""
    desired, report = view.desired, report_of(view)
    if desired is None or seen.release.sha256 != desired.artefact.release.sha256:
        return
    if not seen.healthy or (report is not None and isinstance(report.status, TERMINAL)):
        view.trial = None
        return
    trial = view.trial
    if trial is None or trial.instance != seen.instance or at - trial.latest > longest_gap:
        if _stands_beside(view, seen, at, longest_gap) or not _may_be_counted(seen, report):
            return
        trial = view.trial = Trial(seen.instance, seen.release, at, at, 0)
    trial.count += 1
    trial.latest = at


def _stands_beside(view: DeviceView, seen: Seen, at: Instant, longest_gap: Duration) -> bool:
    """On standby beside another instance of the same release, which is being counted and alive.

    A boot guard that could not read its attempt starts the new release in the old one's slot as well. Were the count
    begun anew at each beat of the other one, neither would ever be verified.
    """
    trial = view.trial
    if trial is None or seen.role is not Role.STANDBY or at - trial.latest > longest_gap:
        return False
    return any(other.instance == trial.instance for other in view.slots.values() if other is not seen)


def _may_be_counted(seen: Seen, report: UpgradeState | None) -> bool:
    """A new instance: not the one that carries the attempt out, unless a reboot brought it up in the new release."""
    return seen.role is Role.MANAGING or report is None or report.reporter != seen.instance


def verified(view: DeviceView, timings: OperatorTimings) -> InstanceId | None:
    """The instance that has passed the heartbeat check of the desired release, or None."""
    trial, desired = view.trial, view.desired
    if trial is None or desired is None or trial.release != desired.artefact.release:
        return None
    enough = trial.count >= timings.verify_heartbeats and trial.latest - trial.first >= timings.verify_time
    return trial.instance if enough else None


def confirmation(view: DeviceView, timings: OperatorTimings) -> InstanceId | None:
    """The instance the desired record shall confirm: the one it does, unless that fell silent and another passed.

    The confirmed instance may be gone before it could note on disk that it was confirmed: after a crash its slot holds
    another one, after a power cut another one runs in another boot. While two machines are the device, nobody else is
    confirmed.
    """
    desired, passed = view.desired, verified(view, timings)
    if desired is None:
        return None
    if view.cloned is not None:
        return desired.confirmed
    if desired.confirmed is None or passed is None or view.trial is None:
        return desired.confirmed or passed
    seen = confirmed_slot(view)
    is_silent = seen is None or seen.heard is None or seen.heard <= view.trial.first
    return passed if is_silent else desired.confirmed


def confirmed_slot(view: DeviceView) -> Seen | None:
    """The newest heartbeat of the confirmed instance; None when a later instance took its place."""
    if view.desired is None or view.desired.confirmed is None:
        return None
    confirmed = view.desired.confirmed
    return next((seen for seen in view.slots.values() if seen.instance == confirmed), None)


# --- the stop ----------------------------------------------------------------------------------------


def to_stop(view: DeviceView, at: Instant, alive_for: Duration) -> StopRequest | None:
    """The explicit stop that is due: the new instance is confirmed and was heard lately, and the old one is not gone.

    A confirmed instance that manages is the proof that the old one is gone; a reply to the stop is not. The exception
    is an old one that was killed in the overlap and came back: it lost the host lock and beats on standby.
    """
    desired, report, new = view.desired, report_of(view), confirmed_slot(view)
    if desired is None or desired.confirmed is None or not view.agent.stands:
        return None
    if new is None or new.heard is None or at - new.heard >= alive_for:
        return None
    if new.role is Role.MANAGING:
        old = _came_back(view, new, at, alive_for)
    elif report is not None and isinstance(report.status, TERMINAL):
        return None
    else:
        old = _predecessor(view, new, report)
    if old is None:
        return None
    return StopRequest(device=view.device, instance=old, successor=desired.confirmed, attempt=desired.attempt)


def _came_back(view: DeviceView, new: Seen, at: Instant, alive_for: Duration) -> InstanceId | None:
    """An instance of the old release that stands by beside a new one that manages already."""
    for seen in view.slots.values():
        heard_lately = seen.heard is not None and at - seen.heard < alive_for
        if seen is not new and seen.role is Role.STANDBY and heard_lately and _is_older(seen.instance, new):
            return seen.instance
    return None


def _is_older(instance: InstanceId, new: Seen) -> bool:
    """Of the same boot (one of an earlier boot died with it) and not of the new version."""
    return instance.boot == new.instance.boot and instance.version != new.instance.version


def _predecessor(view: DeviceView, new: Seen, report: UpgradeState | None) -> InstanceId | None:
    """The instance beside the new one: the newest in the other slot, else the one that reported the attempt.

    Never one of the same version as the new one, and never one of an earlier boot, which died with it.
    """
    beside = [seen.instance for seen in view.slots.values() if seen is not new]
    reporter = [] if report is None else [report.reporter]
    for instance in beside + reporter:
        if _is_older(instance, new):
            return instance
    return None

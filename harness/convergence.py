"""Whether what is observed equals what is desired, and what is missing. Costs time only where something changed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fleet.contracts.ids import DeploymentName, DeviceId
from fleet.contracts.objects import ENDED, AgentRollout, Deployment, DevicePhase, RolloutPhase, RunState
from fleet.contracts.records import TERMINAL, DesiredAgent, InProgress, Succeeded, UpgradePhase
from harness.checks import workload_ready
from harness.scenario import Cast
from harness.view import DeviceView, FleetView

SHOWN = 5
"""At most this many devices are named in an answer."""


_ATTEMPT = re.compile(r"(.+)-\d+-[0-9a-f]{12}(?:-r\d+)?")


def rollout_of(attempt: str) -> str:
    """The rollout of an attempt: attempts are named `<rollout>-<sequence>-<sha12>`, repeated ones `…-r<n>`."""
    named = _ATTEMPT.fullmatch(attempt)
    return named[1] if named else attempt


class Convergence:
    """Remembers for each device what it lacks, and looks again at those that changed."""

    def __init__(self, cast: Cast, view: FleetView) -> None:
        self._view = view
        self._labels = dict(zip(cast.devices, cast.plan.labels, strict=True))
        self._dirty = dict.fromkeys(cast.devices)
        self._lacking: dict[DeviceId, str] = {}
        self._plans: tuple[tuple[str, int], ...] = ()
        self._seen = -1
        """The version of the view that was looked at."""
        view.on_change(self._changed)

    def waiting_for(self) -> tuple[str, ...]:
        """What is still missing, for people; empty when everything desired is observed."""
        self._refresh()
        return (*self._fleet(), *self._devices())

    @property
    def settled(self) -> bool:
        """Nothing is missing."""
        self._refresh()
        return not self._lacking and next(self._fleet(), None) is None

    @property
    def lacking(self) -> tuple[DeviceId, ...]:
        """The devices that lack something."""
        self._refresh()
        return tuple(self._lacking)

    def _changed(self, device: DeviceId | None) -> None:
        if device is not None:
            self._dirty[device] = None

    def _refresh(self) -> None:
        if self._seen == self._view.version:
            return
        self._seen = self._view.version
        plans = tuple((name, item.metadata.generation) for name, item in self._view.deployments.items())
        stopped = tuple(
            (name, item.metadata.generation) for name, item in self._view.rollouts.items() if gives_no_more(item)
        )
        if plans + stopped != self._plans:
            self._plans = plans + stopped
            self._dirty = dict.fromkeys(self._view.devices)
        for device in self._dirty:
            lack = self._lack(self._view.devices[device])
            if lack is None:
                self._lacking.pop(device, None)
            else:
                self._lacking[device] = lack
        self._dirty = {}

    # --- the fleet

    def _fleet(self) -> Iterator[str]:
        if not self._view.operator_running:
            yield "the operator to run"
        for rollout in self._view.rollouts.values():
            if not has_ended(rollout):
                yield _unfinished(rollout)
        for deployment in self._view.deployments.values():
            wanted = sum(deployment.spec.selector.matches(labels) for labels in self._labels.values())
            status = deployment.status
            current = status.observed_generation == deployment.metadata.generation
            if not current or (status.desired, status.ready) != (wanted, wanted):
                yield f"deployment {deployment.name} to be ready: {status.ready} of {wanted} devices"

    def _devices(self) -> Iterator[str]:
        for device, lack in sorted(self._lacking.items())[:SHOWN]:
            yield f"{device} {lack}"
        if len(self._lacking) > SHOWN:
            yield f"{len(self._lacking) - SHOWN} more devices"

    # --- one device

    def _lack(self, device: DeviceView) -> str | None:
        """What one device lacks."""
        if not device.powered:
            return "to have power"
        if device.revoked:
            return None if device.phase is DevicePhase.STALE else "to be cut off (it was revoked)"
        if device.cloned:
            return "to be heard from one machine only (it is said to be cloned)"
        if device.managing is None:
            return "to be managed by an agent"
        if device.phase is not DevicePhase.READY:
            return f"to be Ready (is {device.phase})"
        if len(device.running) > 1:
            return "to run one agent (two are running)"
        if device.current != device.managing:
            return f"to run its current release {device.current} (runs {device.managing})"
        upgrade = None if device.desired is None else self._lacking_upgrade(device, device.desired)
        return upgrade or self._lacking_workload(device)

    def _lacking_upgrade(self, device: DeviceView, desired: DesiredAgent) -> str | None:
        report = device.upgrade
        wanted, running = desired.artefact.release, device.managing
        if report is None or report.attempt != desired.attempt or not isinstance(report.status, TERMINAL):
            return None if self._never_granted(device, desired) else f"to end attempt {desired.attempt}"
        if isinstance(report.status, Succeeded):
            return None if running == wanted else f"to run {wanted} (runs {running})"
        if report.release.sha256 in device.condemned and running == report.release:
            return f"to leave the release {running} that it rolled back"
        return None

    def _never_granted(self, device: DeviceView, desired: DesiredAgent) -> bool:
        """A rollout that was stopped gives out no more slots: who was waiting for one stays as it is."""
        rollout = self._view.rollouts.get(rollout_of(desired.attempt))
        if rollout is None or not gives_no_more(rollout):
            return False
        report = device.upgrade
        if report is None or report.attempt != desired.attempt:
            return True
        return isinstance(report.status, InProgress) and report.status.phase is UpgradePhase.LOCKING

    def _lacking_workload(self, device: DeviceView) -> str | None:
        wanted = [plan for plan in self._view.deployments.values() if self._selects(plan, device.device)]
        for plan in wanted:
            name = DeploymentName(plan.name)
            desired = device.workloads.get(name)
            if desired is None or desired[1].score != plan.spec.score:
                return f"to be given workload {plan.name}"
            if not workload_ready(device, name):
                return f"to have workload {plan.name} ready"
        names = [plan.name for plan in wanted]
        extra = sorted({*device.workloads, *device.reports, *(name for name, _ in device.containers)} - {*names})
        return f"to be rid of workload {extra[0]}" if extra else None

    def _selects(self, plan: Deployment, device: DeviceId) -> bool:
        return plan.spec.selector.matches(self._labels[device])


def _unfinished(rollout: AgentRollout) -> str:
    status = rollout.status
    return f"rollout {rollout.name} to end: {status.phase}, {status.upgraded} of {status.total} upgraded"


def gives_no_more(rollout: AgentRollout) -> bool:
    """Devices that wait for a slot of it may wait for ever: it was stopped, by itself or by a person."""
    return rollout.status.phase in _STOPPED


_STOPPED = (
    RolloutPhase.FAILED,
    RolloutPhase.HALTED,
    RolloutPhase.ROLLED_BACK,
    RolloutPhase.ABORTED,
    RolloutPhase.PAUSED,
    RolloutPhase.REFUSED,
)


def has_ended(rollout: AgentRollout) -> bool:
    """It is over, or stands still because a person wants it to."""
    status = rollout.status
    paused = rollout.spec.run is RunState.PAUSED and status.phase is RolloutPhase.PAUSED
    current = status.observed_generation == rollout.metadata.generation
    return current and (paused or status.phase in ENDED)

"""Where a run is judged: collects the first violation, and remembers the latest events that explain it to a person."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import Bucket
from fleet.contracts.lease import Lease
from fleet.contracts.time import Instant
from harness.checks import Judge, judge
from harness.convergence import Convergence
from harness.invariants import ALL, Ground
from harness.scenario import Cast
from harness.timeline import Timeline
from harness.triggers import Triggers
from harness.verdict import Violated
from harness.view import FleetView
from sim.journal import Event, HeartbeatStored, Journal, KvDeleted, KvStored, ObjectStored, RequestSent, to_json

RECENT = 40
RECENT_OF_DEVICE = 20
WIDTH = 400
"""Longest line of an event in a report."""
_HOLDER = re.compile(rb'"holderIdentity":"([^"]*)"')


class Trail:
    """The newest events, of the run and of each device, but heartbeats and renewals of a lease by its holder."""

    def __init__(self, journal: Journal) -> None:
        self._recent: deque[Event] = deque(maxlen=RECENT)
        self._of_device: dict[str, tuple[Event, ...]] = {}
        self._holder = b""
        for kind in _kinds(Event):
            if kind is not HeartbeatStored:
                journal.subscribe(kind, self._seen)

    def lines(self, devices: tuple[DeviceId, ...] = ()) -> tuple[str, ...]:
        """What happened last, in order, as text; with the last events of these devices, even if they were earlier."""
        chosen = [event for device in devices for event in self._of_device.get(device, ())]
        recent = list(self._recent)
        earlier = [event for event in chosen if not any(event is other for other in recent)]
        earlier.sort(key=lambda event: event.at)
        return tuple(_line(event) for event in [*earlier, *recent])

    def _seen(self, event: Event) -> None:
        if isinstance(event, ObjectStored) and event.kind == Lease.kind_name and not self._is_new_holder(event):
            return
        self._recent.append(event)
        device = _device(event)
        if device is not None:
            kept = self._of_device.get(device, ())
            self._of_device[device] = (*kept, event)[-RECENT_OF_DEVICE:]

    def _is_new_holder(self, event: ObjectStored) -> bool:
        known, found = self._holder, _HOLDER.search(event.value)
        self._holder = found[1] if found else b""
        return self._holder != known


def _kinds(base: type[Event]) -> list[type[Event]]:
    found: list[type[Event]] = []
    for kind in base.__subclasses__():
        found += [kind, *_kinds(kind)]
    return found


def _device(event: Event) -> str | None:
    if isinstance(event, KvStored | KvDeleted):
        return None if event.bucket is Bucket.OBJECTS else event.key.split(".", 1)[0]
    if isinstance(event, RequestSent):
        return event.subject.rpartition(".")[2]
    named: str | None = getattr(event, "device", None)
    return named


def _line(event: Event) -> str:
    text = to_json(event)
    body = text.partition(",")[2]  # the time comes first and is said in seconds instead
    line = f"{event.at.in_seconds:10.3f}s {{{body}"
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


class Court:
    """All invariants and checks of one run. The first violation is the verdict; nothing is judged after it."""

    def __init__(self, cast: Cast, journal: Journal) -> None:
        self.view = FleetView(cast.devices, journal)
        self.trail = Trail(journal)
        self.timeline = Timeline(self.view, journal)
        self.convergence = Convergence(cast, self.view)
        self.violation: Violated | None = None
        self.evidence: tuple[str, ...] = ()
        self._closed = False
        self._stop: Callable[[], None] | None = None
        ground = Ground(cast, self.view, self.convergence, self._report)
        self._invariants = [kind(ground) for kind in ALL]
        for invariant in self._invariants:
            invariant.subscribe(journal)
        self.triggers = Triggers(cast, self.view, journal)
        checks = enumerate(cast.scenario.checks, 1)
        self._checks = [(check, judge(check, index, cast, self.view, self._report)) for index, check in checks]
        self.view.on_change(self._changed)

    def on_violation(self, stop: Callable[[], None]) -> None:
        """Call back at the first violation, from wherever its event came: only good for asking a task to stop."""
        self._stop = stop

    def begin(self, now: Instant) -> None:
        """The drive begins: checks count from now, or from their own event."""
        self.view.now = now
        for check, judged in self._checks:
            since = getattr(check, "since", None)
            if since is None:
                judged.arm(self.view.now)
            else:
                self.triggers.on(since, _arms(judged, self.view))

    def passed(self, now: Instant) -> None:
        """Time passed, with or without an event."""
        self.view.now = now
        for _, judged in self._checks:
            judged.passed(self.view.now)

    @property
    def pending(self) -> bool:
        """Some check waits for something that has a deadline."""
        return any(judged.pending is not None for _, judged in self._checks)

    def finish(self) -> None:
        """The run is over: judge what can only be judged now."""
        for invariant in self._invariants:
            invariant.finish()
        for _, judged in self._checks:
            judged.finish()

    def idle(self) -> tuple[str, ...]:
        """The checks that said nothing about the run, each with why."""
        return tuple(text for _, judged in self._checks if (text := judged.idle) is not None)

    def close(self) -> None:
        """Judge nothing any more: what a tear-down does is no behaviour of the system."""
        self._closed = True

    def _changed(self, device: DeviceId | None) -> None:
        for _, judged in self._checks:
            judged.changed(device, self.view.now)

    def _report(self, rule: str, evidence: str, device: DeviceId | None) -> None:
        if self._closed or self.violation is not None:
            return
        self.violation = Violated(rule, evidence)
        self.evidence = self.trail.lines(() if device is None else (device,))
        if self._stop is not None:
            self._stop()


def _arms(judged: Judge, view: FleetView) -> Callable[[DeviceId | None], None]:
    return lambda _: judged.arm(view.now)

"""An instance is told to stop only after the operator has verified and confirmed its successor."""

from __future__ import annotations

from collections import deque

from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId, InstanceId, Slot
from fleet.contracts.layout import Bucket, Valid
from fleet.contracts.records import TERMINAL, DesiredAgent, Heartbeat, StopRequest, UpgradeState
from fleet.contracts.time import Duration
from harness.invariants.base import Ground, Invariant
from sim.journal import AgentStarted, HeartbeatStored, Journal, KvStored, RequestSent

KEPT = 8
"""Newest heartbeats kept per slot, undecoded, while the device's upgrade is under way: more than is needed."""
SLACK = Duration.seconds(2)
"""The operator measures when heartbeats reach it, the journal when they were stored: links lie between the two."""
BEATS = 3
SPAN = Duration.seconds(55)
"""What a verification takes. Said here on its own: a judge that took the operator's settings would share its errors."""


class StopOnlyAfterVerified(Invariant):
    """Before the first stop there are enough healthy heartbeats of the right release by the confirmed successor."""

    name = "stop-only-after-verified"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._beats: dict[str, deque[HeartbeatStored]] = {}
        self._verified: dict[tuple[DeviceId, InstanceId], None] = {}

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(HeartbeatStored, self._beat)
        journal.subscribe(KvStored, self._stored)
        journal.subscribe(AgentStarted, self._started)
        journal.subscribe(RequestSent, self._sent)

    def _beat(self, event: HeartbeatStored) -> None:
        kept = self._beats.get(event.key)
        if kept is not None:
            kept.append(event)

    def _stored(self, event: KvStored) -> None:
        if event.bucket is not Bucket.DESIRED and event.bucket is not Bucket.STATE:
            return
        read = self.ground.view.read(event)
        match read.record if isinstance(read, Valid) else None:
            case DesiredAgent(device=device):
                for slot in Slot:
                    self._beats.setdefault(layout.heartbeat(device, slot).key, deque(maxlen=KEPT))
            case UpgradeState(device=device, status=status) if isinstance(status, TERMINAL):
                for slot in Slot:
                    self._beats.pop(layout.heartbeat(device, slot).key, None)
            case _:
                return

    def _started(self, event: AgentStarted) -> None:
        kept = self._beats.get(layout.heartbeat(event.device, event.slot).key)
        if kept is not None:
            kept.clear()

    def _sent(self, event: RequestSent) -> None:
        if not event.subject.startswith("fleet.stop."):
            return
        try:
            request = layout.decode(StopRequest, event.payload)
        except InvalidValue as error:
            self.violated(f"a stop on {event.subject} cannot be read: {error}")
            return
        problem = self._problem(request)
        if problem is not None:
            text = f"{event.sender} told {request.instance} to stop in favour of {request.successor}, but {problem}"
            self.violated(text, request.device)

    def _problem(self, request: StopRequest) -> str | None:
        view = self.ground.view.devices.get(request.device)
        desired = None if view is None else view.desired
        if request.instance == request.successor:
            return "they are the same instance"
        if desired is None or desired.attempt != request.attempt:
            return f"attempt {request.attempt} is not desired"
        if desired.confirmed != request.successor:
            return f"what was confirmed is {desired.confirmed}"
        if (request.device, request.successor) in self._verified:
            return None
        problem = self._unverified(request, desired)
        if problem is None:
            self._verified[request.device, request.successor] = None
        return problem

    def _unverified(self, request: StopRequest, desired: DesiredAgent) -> str | None:
        """Why the heartbeats kept are not enough; None when those of one slot are."""
        best = 0
        for slot in Slot:
            events = self._beats.get(layout.heartbeat(request.device, slot).key, ())
            good = [event for event in events if _speaks_for(event, request.successor, desired)]
            best = max(best, len(good))
            enough = len(good) >= BEATS
            if enough and good[-1].at - good[0].at >= SPAN - SLACK:
                return None
        wanted = f"{BEATS} over {SPAN} are needed"
        return f"only {best} healthy heartbeats of it for {desired.artefact.release} were stored in time ({wanted})"


def _speaks_for(event: HeartbeatStored, successor: InstanceId, desired: DesiredAgent) -> bool:
    read = layout.read(event.bucket, event.key, event.value, event.revision)
    beat = read.record if isinstance(read, Valid) else None
    if not isinstance(beat, Heartbeat) or beat.instance != successor:
        return False
    return beat.release == desired.artefact.release and beat.health.healthy == beat.health.workloads

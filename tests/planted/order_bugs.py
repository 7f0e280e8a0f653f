"""Bugs in what comes before what: revisions, clocks, a bus that forgets, replicas, and attempts that overtake."""

from __future__ import annotations

import asyncio
from typing import Final

from agent.desired import Desired
from agent.reports import Reports
from agent.states import Draining, Locking, Staging, Testing
from agent.upgrade import Instructions, Upgrade
from fleet.capabilities.bus import Entry
from fleet.contracts.ids import DeviceId, Revision
from fleet.contracts.layout import Bucket, Invalid, Valid
from fleet.contracts.records import DesiredAgent, Heartbeat, Record
from fleet.contracts.time import Duration, Instant
from fleet.operator import handover
from fleet.operator.brain import Brain
from fleet.operator.election import Election
from fleet.operator.fleet_state import DeviceView, FleetState, Problem, Seen
from tests.planted.plant import CHECK, STUCK, Bug, Patch
from tests.planted.stories import CHANGED, LOST_TAIL, TWO_OPERATORS, WRONG_CLOCKS

# --- revisions -----------------------------------------------------------------------------------------


def lower_revision_accepted(patch: Patch) -> None:
    """Sometimes a late copy of an earlier message arrives, and is taken for news."""
    stored = Desired._stored
    first: dict[tuple[DeviceId, str], tuple[Entry, Valid[Record] | Invalid]] = {}

    def late(desired: Desired, entry: Entry, found: Valid[Record] | Invalid) -> None:
        stored(desired, entry, found)
        place = (desired._device, entry.key)
        if ".workload." in entry.key and place in first and first[place][0].revision < entry.revision:
            asyncio.get_running_loop().call_later(5, stored, desired, *first[place])
        first.setdefault(place, (entry, found))

    patch.setattr(Desired, "_stored", late)


def lost_tail_not_written_again(patch: Patch) -> None:
    fold_all = FleetState.fold_all

    def as_known(
        state: FleetState, bucket: Bucket, entries: tuple[Entry, ...], seen: Revision, at: Instant
    ) -> list[DeviceView | Problem] | None:
        newest = max((entry.revision for entry in entries), default=Revision(0))
        return [] if newest < seen else fold_all(state, bucket, entries, seen, at)

    def missing_is_well(state: FleetState, bucket: Bucket, present: set[str], seen: Revision) -> list[object]:
        return []

    def never_missing(state: FleetState, bucket: Bucket, key: str) -> DeviceView | None:
        return None

    patch.setattr(FleetState, "fold_all", as_known)
    patch.setattr(FleetState, "_forget_missing", missing_is_well)
    patch.setattr(FleetState, "missing", never_missing)


def lost_reports_not_sent_again(patch: Patch) -> None:
    def trust(reports: Reports) -> None:
        return

    patch.setattr(Reports, "check", trust)


# --- clocks --------------------------------------------------------------------------------------------


def heartbeats_ordered_by_the_clock(patch: Patch) -> None:
    heartbeat = FleetState._heartbeat
    newest: dict[DeviceId, Instant] = {}

    def newer_only(state: FleetState, beat: Heartbeat, *rest: object) -> DeviceView | None:
        device = beat.instance.device
        if beat.sent < newest.get(device, Instant(0)):
            return None
        newest[device] = beat.sent
        return heartbeat(state, beat, *rest)  # type: ignore[arg-type]  # handed on as they came

    patch.setattr(FleetState, "_heartbeat", newer_only)


def verified_by_the_devices_clock(patch: Patch) -> None:
    heartbeat, count = FleetState._heartbeat, handover.count
    sent: dict[DeviceId, Instant] = {}

    def note(state: FleetState, beat: Heartbeat, *rest: object) -> DeviceView | None:
        sent[beat.instance.device] = beat.sent
        return heartbeat(state, beat, *rest)  # type: ignore[arg-type]  # handed on as they came

    def by_its_clock(view: DeviceView, seen: Seen, at: Instant, longest_gap: Duration) -> None:
        count(view, seen, sent[view.device], Duration.minutes(60))

    patch.setattr(FleetState, "_heartbeat", note)
    patch.setattr(handover, "count", by_its_clock)


# --- who acts, and which attempt counts ------------------------------------------------------------------


def standby_writes_what_it_sees(patch: Patch) -> None:
    def eager(brain: Brain) -> None:
        return

    patch.setattr(Brain, "stand_by", eager)
    patch.setattr(Election, "acts", property(lambda election: True))


def newer_attempt_not_noticed(patch: Patch) -> None:
    now = Upgrade._desired_now

    def busy(brain: Upgrade, desired: DesiredAgent) -> Instructions:
        return () if isinstance(brain.state, Locking | Draining | Staging | Testing) else now(brain, desired)

    patch.setattr(Upgrade, "_desired_now", busy)


BUGS: Final = (
    Bug(
        "lower revision accepted",
        "a late message takes a device back to what was desired before",
        CHANGED,
        ("no-lower-revision", "unaffected-containers-not-restarted", STUCK),
        lower_revision_accepted,
    ),
    Bug(
        "lost tail never written again",
        "what the bus forgot is desired by nobody any more",
        LOST_TAIL,
        (STUCK, CHECK),
        lost_tail_not_written_again,
    ),
    Bug(
        "lost reports never sent again",
        "what a device achieved is unknown for ever",
        LOST_TAIL,
        (STUCK, CHECK),
        lost_reports_not_sent_again,
    ),
    Bug(
        "heartbeats ordered by the clock",
        "after a jump of its clock a living device is dead",
        WRONG_CLOCKS,
        (STUCK, CHECK),
        heartbeats_ordered_by_the_clock,
    ),
    Bug(
        "release verified by the device's clock",
        "a good release is rolled back because a clock was put right",
        WRONG_CLOCKS,
        (STUCK, CHECK),
        verified_by_the_devices_clock,
    ),
    Bug(
        "standby replica acts",
        "two operators decide, and the slower one undoes what the other did",
        TWO_OPERATORS,
        ("one-operator-acts",),
        standby_writes_what_it_sees,
    ),
    Bug(
        "newer attempt not noticed",
        "a device carries out what nobody wants any more",
        "upgrade/superseded-while-staging.toml",
        (CHECK, STUCK),
        newer_attempt_not_noticed,
    ),
)

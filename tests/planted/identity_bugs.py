"""Bugs of logins by token: in the callout, in how a device gets its tokens, and in what the two are to each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import fleet.identity.callout.brain as callout_brain
from fleet.adapters.token_login import TokenLoginSource
from fleet.adapters.zitadel_exchange import Exchange
from fleet.capabilities.bus import Entry, Stored
from fleet.capabilities.callout import Admission, Connected
from fleet.contracts import layout
from fleet.contracts.auth import FleetDeviceAuth
from fleet.contracts.ids import BootId, Revision
from fleet.contracts.layout import Valid
from fleet.contracts.objects import Cloned
from fleet.contracts.permissions import of_device
from fleet.contracts.records import Enrolment, Heartbeat, LockDenied, LockGranted, LockRequest, Revoked
from fleet.contracts.time import Duration, Instant
from fleet.identity.callout import service
from fleet.identity.callout.brain import Allow, Refuse
from fleet.identity.callout.roster import Roster
from fleet.identity.callout.tokens import Verified
from fleet.operator import clones, standing
from fleet.operator.brain import Brain
from fleet.operator.clones import Boots
from fleet.operator.fleet_state import DeviceView, FleetState, Problem
from fleet.operator.ports import OperatorTimings
from fleet.operator.standing import Goal, Judgement
from sim.nats import SimBus
from tests.planted.plant import CHECK, STUCK, Bug, Patch

REVOKED: Final = "identity/revoked-and-enrolled-again.toml"
OUT: Final = "revoked-stay-out"
CLONED: Final = "identity/cloned-card.toml"
CLONED_LATE: Final = "identity/cloned-in-the-overlap.toml"


def _connection_left_standing(patch: Patch) -> None:
    def never(connection: Connected, roster: Roster) -> bool:
        return False

    patch.setattr(service, "has_to_end", never)


def _revoked_let_in_again(patch: Patch) -> None:
    real = callout_brain._admit

    def admit(token: Verified, enrolment: Enrolment) -> Allow | Refuse:
        if isinstance(enrolment.standing, Revoked):
            device = enrolment.device
            return Allow(Admission(device, token.user, token.issued, token.expires, of_device(device)))
        return real(token, enrolment)

    patch.setattr(callout_brain, "_admit", admit)


def _token_shown_for_ever(patch: Patch) -> None:
    patch.setattr(TokenLoginSource, "turned_away", lambda source: None)


def _token_not_shared(patch: Patch) -> None:
    def none(source: TokenLoginSource, auth: FleetDeviceAuth) -> None:
        return None

    patch.setattr(TokenLoginSource, "_left_by_others", none)


def _clock_believed(patch: Patch) -> None:
    def now(exchange: Exchange) -> Instant:
        return exchange.clock.wall()

    patch.setattr(Exchange, "now", now)


def _logins_not_tried(patch: Patch) -> None:
    async def yes(bus: SimBus) -> bool:
        return True

    patch.setattr(SimBus, "may_log_in", yes)


def _clone_not_noticed(patch: Patch) -> None:
    def none(boots: Boots, at: Instant, timings: OperatorTimings) -> tuple[BootId, ...]:
        return ()

    patch.setattr(clones, "found", none)


def _reboot_taken_for_a_clone(patch: Patch) -> None:
    def any_two(boots: Boots, at: Instant, timings: OperatorTimings) -> tuple[BootId, ...]:
        return tuple(sorted(boots.returns)) if len(boots.returns) > 1 else ()

    patch.setattr(clones, "found", any_two)


def _read_heartbeats_counted(patch: Patch) -> None:
    """As one would write it first: each heartbeat counts, in whatever order it is seen, and one return is enough."""
    fold, real = FleetState.fold, clones.found

    def as_pushed(state: FleetState, entry: Entry, delivered: bool, at: Instant) -> DeviceView | Problem | None:
        read = layout.read(entry.bucket, entry.key, entry.value, entry.revision) if isinstance(entry, Stored) else None
        if isinstance(read, Valid) and isinstance(read.record, Heartbeat) and not delivered:
            boots = state.view(read.record.instance.device).boots
            boots.hear(read.record.instance.boot, Revision(boots.revision + 1), at, Duration.minutes(1))
        return fold(state, entry, delivered, at)

    def once(boots: Boots, at: Instant, timings: OperatorTimings) -> tuple[BootId, ...]:
        return real(boots, at, replace(timings, clone_returns=1))

    def keep(boots: Boots) -> None:
        boots.revision = Revision(0)

    patch.setattr(Boots, "forget", keep)
    patch.setattr(FleetState, "fold", as_pushed)
    patch.setattr(clones, "found", once)


def _clone_given_a_slot(patch: Patch) -> None:
    real = Brain._objection

    def objection(brain: Brain, view: DeviceView, wall: Instant) -> str | None:
        cloned, view.cloned = view.cloned, None
        try:
            return real(brain, view, wall)
        finally:
            view.cloned = cloned

    patch.setattr(Brain, "_objection", objection)


def _clone_holds_the_rollout(patch: Patch) -> None:
    real = standing.judge

    def judge(view: DeviceView, goal: Goal, wall: Instant, timings: OperatorTimings) -> Judgement:
        cloned, view.cloned = view.cloned, None
        try:
            return real(view, goal, wall, timings)
        finally:
            view.cloned = cloned

    patch.setattr("fleet.operator.rollout.judge", judge)


def _clone_for_ever(patch: Patch) -> None:
    real = clones.look

    def look(boots: Boots, known: Cloned | None, at: Instant, wall: Instant, timings: OperatorTimings) -> Cloned | None:
        return known or real(boots, known, at, wall, timings)

    patch.setattr(clones, "look", look)


def _clone_answered_in_the_overlap(patch: Patch) -> None:
    real = Brain._lock

    def lock(brain: Brain, request: LockRequest, at: Instant) -> LockGranted | LockDenied:
        return real(brain, request, at) or LockDenied(reason="two machines", retry_after=Duration.seconds(20))

    patch.setattr(Brain, "_lock", lock)


BUGS: Final = (
    Bug(
        "clone not noticed",
        "two machines under one identity, and nobody knows of it",
        CLONED,
        (CHECK, STUCK),
        _clone_not_noticed,
    ),
    Bug(
        "reboot taken for a clone",
        "every supply that fails twice puts its device out of all rollouts",
        "power/brown-outs-after-an-upgrade.toml",
        ("no-clone-imagined",),
        _reboot_taken_for_a_clone,
    ),
    Bug(
        "old heartbeats counted toward a clone",
        "a restored bus makes copied cards of all devices that were restarted since",
        "identity/old-boots-are-no-clone.toml",
        (CHECK, "no-clone-imagined"),
        _read_heartbeats_counted,
    ),
    Bug(
        "clone given an upgrade slot",
        "two machines race through one attempt",
        CLONED,
        ("rollout-limits",),
        _clone_given_a_slot,
    ),
    Bug(
        "clone waited for by its rollout",
        "one copied card holds the whole fleet",
        CLONED,
        (STUCK,),
        _clone_holds_the_rollout,
    ),
    Bug(
        "clone remembered for ever",
        "the device is one machine again and is never upgraded any more",
        CLONED,
        (STUCK,),
        _clone_for_ever,
    ),
    Bug(
        "clone answered in its overlap",
        "a good release is condemned because nobody could confirm it between two machines",
        CLONED_LATE,
        (CHECK,),
        _clone_answered_in_the_overlap,
    ),
    Bug(
        "connection of a revoked device left standing",
        "a revocation that only new logins notice",
        REVOKED,
        (OUT,),
        _connection_left_standing,
    ),
    Bug(
        "revoked device let in again",
        "it is cut off, and comes back with the token that it has",
        REVOKED,
        (OUT, STUCK),
        _revoked_let_in_again,
    ),
    Bug(
        "token shown again whatever the server says",
        "locked out for hours after a rotation of signing keys",
        "identity/signing-keys-rotated.toml",
        (STUCK,),
        _token_shown_for_ever,
    ),
    Bug(
        "token not shared by the instances",
        "a new release cannot log in while the provider is away",
        "identity/provider-restarted-in-the-overlap.toml",
        (CHECK, STUCK),
        _token_not_shared,
    ),
    Bug(
        "device's own clock believed",
        "assertions from the past or the future after a boot without a time server",
        "identity/clock-wrong-at-boot.toml",
        (CHECK, STUCK),
        _clock_believed,
    ),
    Bug(
        "outage of logins taken for a fault of the release",
        "the old instance is in, so the new one has to be at fault",
        "identity/callout-down-in-the-overlap.toml",
        (CHECK, STUCK),
        _logins_not_tried,
    ),
)

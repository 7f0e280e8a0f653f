"""The moves of the upgrade brain as data: what is not declared here is refused, what is declared is drawn and tested.

`docs/explanation/upgrade.md` draws this table. A test walks through the brain and finds each row taken. An event that
tells of work for another attempt, or of looking at what nobody watches any more, is passed over before it gets here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.events import (
    BecameManaging,
    Closed,
    DesiredSeen,
    DesiredWithdrawn,
    Drained,
    DrainOverran,
    Event,
    LookedAgain,
    MarkedVerified,
    OverlapWatched,
    Restored,
    SelfTestFailed,
    SelfTestPassed,
    SlotGranted,
    Staged,
    StageOverran,
    StageRefused,
    StopAsked,
    StreamWentBack,
    SwapDone,
    SwapFailed,
    TrialWatched,
)
from agent.states import (
    Closing,
    Confirmed,
    Draining,
    Idle,
    Leaving,
    Locking,
    Marking,
    OnTrial,
    Overlapping,
    RollingBack,
    Staging,
    State,
    Swapping,
    Testing,
)

States = tuple[type[State], ...]


@dataclass(frozen=True, slots=True)
class Move:
    """An event may lead from one state to another one, and why it does."""

    state: type[State]
    event: type[Event]
    to: type[State]
    why: str


WORKING: Final[States] = (Locking, Draining, Staging, Testing)
"""The phases before the swap: they can be dropped at any moment."""
EVERY: Final[States] = (
    Idle,
    *WORKING,
    Swapping,
    Overlapping,
    RollingBack,
    OnTrial,
    Marking,
    Confirmed,
    Closing,
    Leaving,
)

BEGINS: Final[Mapping[type[State], str]] = {
    Idle: "runs the verified release",
    OnTrial: "runs a release that is not verified",
    Swapping: "was cut off in an overlap, which begins again",
    RollingBack: "the boot guard has condemned the new release",
    Confirmed: "was cut off after it was marked verified",
    Closing: "was cut off after its success was written down",
}
"""The states in which a process can find itself by what the disk says."""


def _moves(states: States, event: type[Event], to: type[State], why: str) -> tuple[Move, ...]:
    return tuple(Move(state, event, to, why) for state in states)


def _considered(states: States, event: type[Event]) -> tuple[Move, ...]:
    """What is desired is looked at with nothing else under way."""
    return (
        *_moves(states, event, Locking, "another release is desired"),
        *_moves(states, event, OnTrial, "the unverified release that runs is desired"),
        *_moves(states, event, Marking, "the unverified release that runs is desired and confirmed"),
    )


MOVES: Final[tuple[Move, ...]] = (
    # Something is desired.
    *_considered((Idle, *WORKING), DesiredSeen),
    *_considered((Idle,), BecameManaging),
    *_moves(WORKING, DesiredSeen, Idle, "superseded by what is answered at once"),
    *_moves(WORKING, DesiredWithdrawn, Idle, "nothing is desired any more"),
    # The way to the overlap.
    Move(Locking, SlotGranted, Draining, "the operator gave the slot"),
    Move(Draining, Drained, Staging, "the workloads are at rest and healthy"),
    Move(Draining, DrainOverran, Idle, "deferred"),
    Move(Staging, Staged, Testing, "the release is on disk, whole"),
    Move(Staging, StageOverran, Idle, "deferred"),
    Move(Staging, StageRefused, Idle, "refused"),
    Move(Testing, SelfTestPassed, Swapping, "it is what it should be, and starts"),
    Move(Testing, StageOverran, Idle, "deferred: the disk damaged it"),
    Move(Testing, SelfTestFailed, RollingBack, "condemned"),
    Move(Swapping, SwapDone, Overlapping, "both run"),
    Move(Swapping, SwapDone, RollingBack, "superseded or withdrawn meanwhile"),
    Move(Swapping, SwapFailed, RollingBack, "deferred"),
    # The end of the overlap.
    Move(Overlapping, StopAsked, Leaving, "the operator ends this instance"),
    Move(Overlapping, DesiredSeen, RollingBack, "superseded"),
    Move(Overlapping, DesiredWithdrawn, RollingBack, "nothing is desired any more"),
    Move(Overlapping, OverlapWatched, RollingBack, "the new instance is dead or condemned"),
    Move(Overlapping, LookedAgain, RollingBack, "not confirmed in time"),
    Move(RollingBack, Restored, Idle, "everything is as it was"),
    Move(RollingBack, Restored, Leaving, "this process runs the bad release"),
    *_considered((RollingBack,), Restored),
    # The new instance.
    Move(OnTrial, DesiredSeen, Marking, "the operator has confirmed this instance"),
    *_moves((OnTrial,), DesiredSeen, Locking, "another release is desired, and nobody else manages"),
    *_moves((OnTrial,), DesiredSeen, Idle, "another release is desired and is refused"),
    *_moves((OnTrial,), BecameManaging, Locking, "another release is desired, and nobody else manages"),
    *_moves((OnTrial,), BecameManaging, Idle, "another release is desired and is refused"),
    Move(OnTrial, LookedAgain, RollingBack, "not confirmed in time, and nobody else watches"),
    Move(Marking, MarkedVerified, Confirmed, "the old instance is still there"),
    Move(Marking, MarkedVerified, Closing, "the old instance is gone"),
    Move(Confirmed, BecameManaging, Closing, "the old instance is gone"),
    Move(Closing, Closed, Idle, "succeeded"),
    Move(Closing, Closed, Locking, "succeeded, and another release is desired"),
)

_ANYWHERE: Final = (DesiredSeen, DesiredWithdrawn, StreamWentBack, BecameManaging, StopAsked)
"""What can come at any time. Where it leads nowhere, it is remembered, and looked at when the attempt has ended."""

STAYS: Final[Mapping[type[State], tuple[type[Event], ...]]] = {
    **dict.fromkeys(EVERY, _ANYWHERE),
    **dict.fromkeys(WORKING, (DesiredSeen, StreamWentBack, BecameManaging, StopAsked)),
    Confirmed: (DesiredSeen, DesiredWithdrawn, StreamWentBack, StopAsked),
    Overlapping: (DesiredSeen, StreamWentBack, BecameManaging, StopAsked, OverlapWatched, LookedAgain),
    OnTrial: (*_ANYWHERE, TrialWatched, LookedAgain),
}
"""The events that a state takes in and stays."""

_DECLARED: Final = frozenset(
    [(move.state, move.event, move.to) for move in MOVES]
    + [(state, event, state) for state, events in STAYS.items() for event in events]
)


def is_declared(state: type[State], event: type[Event], to: type[State]) -> bool:
    """Whether the event may lead from the one state to the other."""
    return (state, event, to) in _DECLARED

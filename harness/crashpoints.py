"""Crash points: one run of a scenario with one or two crashes added, each at a counted operation.

A run with the same seed is the same run up to its first crash, so that "the 17th change of the disk" names one
operation for ever; a run in which another operation stands there is no answer, and says so. Whatever was cut off, the
fleet has to end as desired, or rolled back, with every invariant held (ADR-020 says what is judged).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import get_args

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId, Release, Slot
from fleet.contracts.records import InProgress, RolledBack, Succeeded
from fleet.contracts.time import ZERO, Duration, Instant
from harness.progress import Silent
from harness.runner import Result, run_scenario
from harness.scenario import Cast
from harness.schema_checks import Final
from harness.schema_steps import Upgrade
from harness.targets.sim import SimTarget
from harness.targets.sim_taps import ADDED, Decision, Kind
from harness.verdict import HarnessBroken, Held, Violated
from harness.view import FleetView
from sim.journal import (
    AgentEnded,
    FaultInjected,
    Journal,
    LockLeft,
    LockTaken,
    OperatorEnded,
    OperatorStarted,
    PhaseEntered,
    PowerCut,
    StepDone,
)

OPERATOR = "operator"
_POINT = re.compile(r"(power|kill):([1-9]\d*)(?:#(\d+))?")


@dataclass(frozen=True, slots=True)
class Point:
    """Where to crash: at the `ordinal`-th operation of a kind, counted from the beginning of the first upgrade.

    `draw` chooses what the disk keeps of what was not synced; 0 is what the run itself draws.
    """

    kind: Kind
    ordinal: int
    draw: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.ordinal}" + (f"#{self.draw}" if self.draw else "")


def parse_points(text: str) -> tuple[Point, ...]:
    """One point, or two joined by `+`: `power:17`, `power:17#2+kill:63`. Raises: InvalidValue."""
    points = []
    for part in text.split("+"):
        found = _POINT.fullmatch(part)
        if found is None:
            raise InvalidValue(
                f"--point {text!r}: a point is power:N or kill:N, with #DRAW if not 0; two are joined by +"
            )
        kind: Kind = "power" if found[1] == "power" else "kill"
        points.append(Point(kind, int(found[2]), int(found[3] or 0)))
    if len(points) > 2:
        raise InvalidValue(f"--point {text!r}: at most two crashes are added to a run")
    return tuple(points)


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that can be cut off: which it is, what it does, in which phase, and how many crashes came before."""

    kind: Kind
    ordinal: int
    name: str
    phase: str
    crashes: int


@dataclass(frozen=True, slots=True)
class Aim:
    """A point with the operation that has to stand there. `after`: crash right after the operation before it."""

    point: Point
    name: str
    after: bool = False


class Recorder:
    """The tap: counts the operations of one device or of the operator, and crashes it where it was told to."""

    def __init__(self, who: str, aims: tuple[Aim, ...]) -> None:
        self.operations: list[Operation] = []
        self.armed = False
        self.phase: Callable[[str], str] = lambda name: ""
        """The row of the report that an operation belongs to."""
        self.problem = ""
        """Why the run answers nothing; empty while it does."""
        self.draw = 0
        self._who = who
        self._aims = list(aims)
        self._counts: dict[Kind, int] = dict.fromkeys(get_args(Kind), 0)
        self._crashes = 0

    def ask(self, who: str, kind: Kind, name: str) -> Decision:
        """See `Tap.ask`."""
        if not self.armed or who != self._who:
            return Decision.GO_ON
        self._counts[kind] = ordinal = self._counts[kind] + 1
        self.operations.append(Operation(kind, ordinal, name, self.phase(name), self._crashes))
        aim = self._aims[0] if self._aims else None
        if aim is None or aim.point.kind != kind or aim.point.ordinal - aim.after != ordinal:
            return Decision.GO_ON
        del self._aims[0]
        if aim.name != name:
            self.problem = f"operation {aim.point} is {name!r} in this run, and was {aim.name!r} in the recorded one"
            return Decision.GO_ON
        self._crashes += 1
        self.draw = aim.point.draw
        return Decision.CRASH_AFTER if aim.after else Decision.CRASH_BEFORE

    def finish(self) -> None:
        """The run is over: note an operation that never came."""
        if self._aims and not self.problem:
            self.problem = f"operation {self._aims[0].point} ({self._aims[0].name}) never came"


class Ending(Enum):
    """What became of the attempt that was cut off."""

    CONVERGED = "converged"
    ROLLED_BACK = "rolled back"
    OTHER = "other"


@dataclass(slots=True)
class Witness(Silent):
    """Watches one run from outside: where it is, how long nobody managed the device, when it had converged."""

    who: str
    cast: Cast
    recorder: Recorder
    view: FleetView | None = None
    crashed: list[Instant] = field(default_factory=list)
    converged: Instant | None = None
    longest_gap: Duration = ZERO
    before: Release | None = None
    """What the device ran when counting began."""
    _since: Instant | None = None
    _holder: Slot | None = None

    def begin(self, cast: Cast, view: FleetView) -> None:
        """See `Progress.begin`."""
        self.view = view
        self.recorder.phase = self._phase

    def attach(self, journal: Journal) -> None:
        """Read the run's journal."""
        journal.subscribe(PhaseEntered, self._entered)
        journal.subscribe(StepDone, self._step_done)
        journal.subscribe(FaultInjected, self._fault)
        if self.who == OPERATOR:
            journal.subscribe(OperatorEnded, lambda event: self._left(event.at))
            journal.subscribe(OperatorStarted, lambda event: self._back(event.at))
            return
        journal.subscribe(LockTaken, self._taken)
        journal.subscribe(LockLeft, self._lock_left)
        journal.subscribe(AgentEnded, self._lock_left)
        journal.subscribe(PowerCut, lambda event: self._left(event.at) if event.device == self.who else None)

    def _phase(self, name: str) -> str:
        if self.who == OPERATOR or self.view is None:
            return " ".join(name.split()[:2])
        report = self.view.devices[DeviceId(self.who)].upgrade
        if report is None:
            return "before"
        return report.status.phase.value if isinstance(report.status, InProgress) else "after"

    def _entered(self, event: PhaseEntered) -> None:
        if event.phase == "drive" and _first_upgrade(self.cast) == 1:
            self._arm()
        if event.phase == "check":
            self.converged = event.at
        if event.phase in ("check", "tear-down"):
            self.recorder.armed = False

    def _step_done(self, event: StepDone) -> None:
        if event.index == _first_upgrade(self.cast) - 1:
            self._arm()

    def _arm(self) -> None:
        self.recorder.armed = True
        if self.who != OPERATOR and self.view is not None:
            self.before = self.view.devices[DeviceId(self.who)].managing

    def _fault(self, event: FaultInjected) -> None:
        if event.index == ADDED:
            self.crashed.append(event.at)

    def _taken(self, event: LockTaken) -> None:
        if event.device == self.who:
            self._holder = event.slot
            self._back(event.at)

    def _lock_left(self, event: LockLeft | AgentEnded) -> None:
        if event.device == self.who and event.slot is self._holder:
            self._left(event.at)

    def _left(self, at: Instant) -> None:
        self._holder = None
        if self._since is None:
            self._since = at

    def _back(self, at: Instant) -> None:
        if self._since is not None and self.recorder.armed:
            self.longest_gap = max(self.longest_gap, Duration(at - self._since))
        self._since = None

    def ending(self) -> Ending:
        """How the attempts ended, by the devices' own reports: all of them for the operator, else the one device's."""
        assert self.view is not None
        chosen = self.cast.devices if self.who == OPERATOR else (DeviceId(self.who),)
        reports = [self.view.devices[device].upgrade for device in chosen]
        statuses = [None if report is None else report.status for report in reports]
        if all(isinstance(status, Succeeded) for status in statuses):
            return Ending.CONVERGED
        rolled = all(isinstance(status, Succeeded | RolledBack) for status in statuses)
        return Ending.ROLLED_BACK if rolled else Ending.OTHER

    def is_back(self) -> bool:
        """Every device that rolled back runs what it ran before."""
        assert self.view is not None
        return self.who == OPERATOR or self.view.devices[DeviceId(self.who)].managing == self.before


def _first_upgrade(cast: Cast) -> int:
    """The number of the first step that upgrades."""
    steps = enumerate(cast.scenario.steps, 1)
    return next((index for index, step in steps if isinstance(step, Upgrade)), 1)


@dataclass(frozen=True, slots=True)
class Crashed:
    """What became of one run with its crashes."""

    points: tuple[Point, ...]
    name: str
    """The operation of the last crash."""
    phase: str
    """… and the phase of the upgrade at the first."""
    result: Result
    ending: Ending
    recovery: Duration
    """From the last crash until all that was desired was observed."""
    gap: Duration
    """The longest time in which no instance managed the device, or no operator ran."""

    @property
    def held(self) -> bool:
        """Recovered, with every invariant held."""
        return isinstance(self.result.verdict, Held)


def prepared(cast: Cast) -> Cast:
    """The scenario as it is judged with crashes: of its checks only those of the end are left.

    Raises:
        InvalidValue: it declares faults itself.
    """
    scenario = cast.scenario
    if scenario.faults:
        raise InvalidValue(f"{scenario.name} declares faults of its own: crash points need a scenario without any")
    finals = tuple(check for check in scenario.checks if isinstance(check, Final))
    return replace(cast, scenario=scenario.model_copy(update={"checks": finals}))


def run_with(cast: Cast, who: str, seed: int, aims: tuple[Aim, ...]) -> tuple[Crashed, list[Operation]]:
    """One run of a `prepared` scenario with crashes added; answers the operations that were counted, too."""
    recorder = Recorder(who, aims)
    witness = Witness(who, cast, recorder)
    result = run_scenario(cast, SimTarget(recorder), seed, witness, witness.attach)
    recorder.finish()
    ending = witness.ending() if witness.view is not None else Ending.OTHER
    if recorder.problem:
        result = replace(result, verdict=HarnessBroken(recorder.problem))
    elif _is_rolled_back(result, ending) and witness.is_back():
        result = replace(result, verdict=Held())
    else:
        ending = ending if isinstance(result.verdict, Held) else Ending.OTHER
    ended = witness.converged if witness.converged is not None else Instant(0)
    recovery = Duration(max(0, ended - witness.crashed[-1])) if witness.crashed else Duration(0)
    struck = [operation for operation in recorder.operations if operation.crashes == 0]
    phase = struck[-1].phase if struck and aims else ""
    points = tuple(aim.point for aim in aims)
    name = aims[-1].name if aims else ""
    return Crashed(points, name, phase, result, ending, recovery, witness.longest_gap), recorder.operations


def _is_rolled_back(result: Result, ending: Ending) -> bool:
    """All that does not hold is a final fact that a return to the former release changes."""
    verdict = result.verdict
    only_final = isinstance(verdict, Violated) and verdict.rule.startswith("check ")
    return ending is Ending.ROLLED_BACK and only_final


def aims_of(operations: list[Operation]) -> list[Aim]:
    """A crash before each operation, and one right after the last of each kind. Chance: the run's own draw."""
    aims = [Aim(Point(item.kind, item.ordinal), item.name) for item in operations]
    for kind in get_args(Kind):
        last = next((item for item in reversed(operations) if item.kind == kind), None)
        if last is not None:
            aims.append(Aim(Point(kind, last.ordinal + 1), last.name, after=True))
    return aims

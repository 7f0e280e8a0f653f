"""All crash points of a scenario: which runs that makes, carried out in order, several at a time.

What is covered is said in words with the result. One crash: at every operation that the undisturbed run counts, and
after the last of each kind. Two crashes: `all` crashes again at every operation between the first crash and the end;
`each` crashes again once per point, at a position that moves through the recovery by the golden ratio from point to
point, so that early and late ones meet early and late ones.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from fleet.contracts.errors import InvalidValue
from harness.crashpoints import OPERATOR, Aim, Crashed, Operation, Point, aims_of, prepared, run_with
from harness.scenario import Cast, load
from harness.targets.sim_taps import Kind
from harness.workers import worker_pool
from sim.loop import quiet_collector

Recovery = Literal["all", "each", "none"]
PART = 8
"""Points that a worker carries out before it answers."""
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is to be swept: one scenario, and one device of it or the operator."""

    path: Path
    who: str
    seed: int
    devices: int | None = None
    recovery: Recovery = "each"
    draws: int = 1
    """How often each power cut is repeated with another draw of what the disk keeps."""
    stride: int = 1
    """Every so-many-th point only."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The undisturbed run, and the crash points that it has."""

    run: Crashed
    operations: tuple[Operation, ...]
    aims: tuple[Aim, ...]


@lru_cache
def _cast(path: Path, devices: int | None) -> Cast:
    return prepared(load(path).cast(devices))


def who_is_there(sweep: Sweep) -> tuple[str, ...]:
    """Who can be crashed. Raises: ScenarioError, InvalidValue."""
    return (*_cast(sweep.path, sweep.devices).devices, OPERATOR)


def record(sweep: Sweep) -> Recorded:
    """Run undisturbed and count.

    Raises:
        ScenarioError, InvalidValue: the scenario cannot be used for this.
    """
    run, operations = _run(sweep, ())
    return Recorded(run, tuple(operations), tuple(_drawn(aims_of(operations), sweep.draws))[:: sweep.stride])


def _run(sweep: Sweep, aims: tuple[Aim, ...]) -> tuple[Crashed, list[Operation]]:
    return run_with(_cast(sweep.path, sweep.devices), sweep.who, sweep.seed, aims)


def _drawn(aims: list[Aim], draws: int) -> Iterator[Aim]:
    for aim in aims:
        for draw in range(draws if aim.point.kind == "power" else 1):
            yield replace(aim, point=replace(aim.point, draw=draw))


def crash(sweep: Sweep, index: int, aim: Aim) -> list[Crashed]:
    """The runs of one point: the crash, and as the sweep wants it a second one in the recovery."""
    first, operations = _run(sweep, (aim,))
    runs = [first]
    if first.held:
        later = [item for item in operations if item.crashes == 1]
        chosen = {"all": later, "each": later[_at(index, len(later)) :][:1], "none": []}[sweep.recovery]
        for item in chosen:
            second = Aim(Point(item.kind, item.ordinal), item.name)
            runs.append(_run(sweep, (aim, second))[0])
    return runs


def _at(index: int, length: int) -> int:
    return int((index * _GOLDEN) % 1 * length)


def crash_at(sweep: Sweep, points: tuple[Point, ...]) -> Crashed:
    """Exactly one run, with these crashes. The runs before it find out which operations those are.

    Raises:
        InvalidValue: there is no such point.
    """
    aims: tuple[Aim, ...] = ()
    for point in points:
        operations = [item for item in _run(sweep, aims)[1] if item.crashes == len(aims)]
        aims = (*aims, _aim(point, operations))
    return _run(sweep, aims)[0]


def _aim(point: Point, operations: list[Operation]) -> Aim:
    for aim in aims_of(operations):
        if (aim.point.kind, aim.point.ordinal) == (point.kind, point.ordinal):
            return replace(aim, point=point)
    known = [
        f"{kind}:{item[0].ordinal} to {kind}:{item[-1].ordinal + 1}"
        for kind in _kinds()
        if (item := _of(operations, kind))
    ]
    raise InvalidValue(f"there is no crash point {point}: there are {' and '.join(known) or 'none'}")


def _kinds() -> tuple[Kind, ...]:
    return get_args(Kind)


def _of(operations: list[Operation], kind: Kind) -> list[Operation]:
    return [item for item in operations if item.kind == kind]


def _crash_part(sweep: Sweep, part: list[tuple[int, Aim]]) -> list[Crashed]:
    """The runs of some points. What worlds leave behind is swept up once per point, what was there before never."""
    runs: list[Crashed] = []
    with quiet_collector():
        for index, aim in part:
            runs += crash(sweep, index, aim)
            gc.collect()
    return runs


def crashes(sweep: Sweep, aims: tuple[Aim, ...], jobs: int) -> Iterator[list[Crashed]]:
    """The runs of all points, in their order, whatever the number of jobs."""
    numbered = list(enumerate(aims))
    parts = [numbered[begin : begin + PART] for begin in range(0, len(numbered), PART)]
    if jobs == 1:
        for part in parts:
            yield _crash_part(sweep, part)
        return
    pool = worker_pool(jobs)
    try:
        for future in [pool.submit(_crash_part, sweep, part) for part in parts]:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)

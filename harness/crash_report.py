"""How a sweep of crash points is shown: a table by phase, what was covered in words, and a command as the last line."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fleet.contracts.time import ZERO, Duration
from harness.crash_sweep import Recorded, Sweep
from harness.crashpoints import OPERATOR, Crashed, Ending, Point
from harness.verdict import exit_code

SHOWN = 10
"""At most this many failing points are listed."""


@dataclass(slots=True)
class Row:
    """The runs whose first crash came in one phase."""

    points: dict[str, int] = field(default_factory=lambda: {"power": 0, "kill": 0})
    once: int = 0
    twice: int = 0
    endings: dict[Ending, int] = field(default_factory=lambda: dict.fromkeys(Ending, 0))
    failed: int = 0
    slowest: Crashed | None = None
    longest_gap: Duration = ZERO

    def take(self, run: Crashed) -> None:
        """Count one run."""
        if not run.points:
            self.failed += 1
            return
        if len(run.points) == 1:
            self.points[run.points[0].kind] += not run.points[0].draw
            self.once += 1
        else:
            self.twice += 1
        self.longest_gap = max(self.longest_gap, run.gap)
        if not run.held:
            self.failed += 1
            return
        self.endings[run.ending] += 1
        if self.slowest is None or run.recovery > self.slowest.recovery:
            self.slowest = run

    def cells(self) -> list[str]:
        """The row as text."""
        slowest = "-" if self.slowest is None else f"{self.slowest.recovery.in_seconds:.0f} s"
        return [
            f"{self.points['power']}",
            f"{self.points['kill']}",
            f"{self.once}",
            f"{self.twice}",
            f"{self.endings[Ending.CONVERGED]}",
            f"{self.endings[Ending.ROLLED_BACK]}",
            f"{self.failed}",
            f"{self.longest_gap.in_seconds:.0f} s",
            slowest,
            "-" if self.slowest is None else spelled(self.slowest.points),
        ]


COLUMNS = (
    "power",
    "kill",
    "one crash",
    "two",
    "converged",
    "rolled back",
    "failed",
    "unmanaged",
    "recovery",
    "at point",
)


@dataclass(slots=True)
class Found:
    """Everything about one sweep."""

    sweep: Sweep
    recorded: Recorded
    rows: dict[str, Row] = field(default_factory=dict)
    total: Row = field(default_factory=Row)
    failures: list[Crashed] = field(default_factory=list)
    code: int = 0

    def take(self, run: Crashed) -> None:
        """Count one run."""
        self.rows.setdefault(run.phase, Row()).take(run)
        self.total.take(run)
        self.code = max(self.code, exit_code(run.result.verdict))
        if not run.held:
            self.failures.append(run)


def spelled(points: tuple[Point, ...]) -> str:
    """As `--point` takes it."""
    return "+".join(map(str, points)) or "undisturbed"


def command(sweep: Sweep, points: tuple[Point, ...]) -> str:
    """The command that makes exactly this run."""
    who = "--operator" if sweep.who == OPERATOR else f"--device {sweep.who}"
    devices = "" if sweep.devices is None else f" --devices {sweep.devices}"
    if not points:
        return f"twin run {shlex.quote(str(sweep.path))} --seed {sweep.seed}{devices}"
    return (
        f"twin crashpoints {shlex.quote(str(sweep.path))} --seed {sweep.seed}{devices} {who} --point {spelled(points)}"
    )


def covered(found: Found) -> str:
    """What was covered, in words."""
    sweep, operations = found.sweep, found.recorded.operations
    power = sum(item.kind == "power" for item in operations)
    who = "the operator" if sweep.who == OPERATOR else sweep.who
    kinds = (
        f"{power} changes of its disk and {len(operations) - power} effects of its programs"
        if power
        else (f"{len(operations)} writes and answers")
    )
    text = f"{who}: {kinds}, each cut off once, and once more after the last of each kind"
    if sweep.draws > 1:
        text += f"; power cuts with {sweep.draws} draws each of what the disk keeps"
    if sweep.stride > 1:
        text += f"; of these every {sweep.stride}th only"
    second = {
        "all": "a second crash at every operation of each recovery",
        "each": "a second crash once per point, its place moving through the recoveries",
        "none": "no second crash",
    }[sweep.recovery]
    return f"{text}; {second}"


def show(out: Console, found: Found) -> None:
    """The table, what was covered, the failures."""
    name = found.recorded.run.result.scenario
    table = Table(f"{name}: phase", box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for phase, row in found.rows.items():
        table.add_row(phase, *row.cells())
    table.add_row("together", *found.total.cells(), style="bold")
    out.print()
    out.print(table)
    out.print(covered(found), markup=False, soft_wrap=True)
    runs, total = found.total.once + found.total.twice, sum(found.total.points.values())
    out.print(
        f"{total} points, {runs} runs, {runs - found.total.failed} recovered, {found.total.failed} failed; "
        f"undisturbed the run takes {found.recorded.run.result.simulated_s:.0f} s",
        markup=False,
    )
    for run in found.failures[:SHOWN]:
        out.print()
        verdict = type(run.result.verdict).__name__
        words = f"{spelled(run.points)} ({run.name}): {verdict}: {run.result.reason}"
        out.print(Text(words, style="bold red"), soft_wrap=True)
        out.print(command(found.sweep, run.points), markup=False, soft_wrap=True)
    if len(found.failures) > SHOWN:
        out.print(f"and {len(found.failures) - SHOWN} more", markup=False)


def last_line(every: list[Found]) -> str:
    """The command of the first failure, or else of the slowest recovery."""
    failing = next((found for found in every if found.failures), None)
    if failing is not None:
        return command(failing.sweep, failing.failures[0].points)
    slowest = [found for found in every if found.total.slowest is not None]
    if not slowest:
        return "twin crashpoints --help"
    found = max(slowest, key=lambda item: item.total.slowest.recovery if item.total.slowest else ZERO)
    assert found.total.slowest is not None
    return command(found.sweep, found.total.slowest.points)


def show_one(out: Console, sweep: Sweep, run: Crashed) -> None:
    """A single run: its trail, how it ended, and its command."""
    for line in (*run.result.timeline, *run.result.trail):
        out.print(line, markup=False, soft_wrap=True)
    verdict = type(run.result.verdict).__name__
    words = run.result.reason or f"{run.ending.value}, {run.recovery.in_seconds:.0f} s after the last crash"
    out.print(f"{spelled(run.points)} ({run.name}): {verdict}: {words}", markup=False, soft_wrap=True)
    out.print(command(sweep, run.points), markup=False, soft_wrap=True)


def as_json(found: Found) -> str:
    """One JSON object."""
    total = found.total
    return json.dumps(
        {
            "scenario": found.recorded.run.result.scenario,
            "who": found.sweep.who,
            "seed": found.sweep.seed,
            "recovery": found.sweep.recovery,
            "draws": found.sweep.draws,
            "stride": found.sweep.stride,
            "covered": covered(found),
            "points": dict(total.points),
            "runs": total.once + total.twice,
            "converged": total.endings[Ending.CONVERGED],
            "rolled_back": total.endings[Ending.ROLLED_BACK],
            "failed": total.failed,
            "worst_recovery_s": None if total.slowest is None else round(total.slowest.recovery.in_seconds, 3),
            "worst_recovery_point": None if total.slowest is None else spelled(total.slowest.points),
            "worst_unmanaged_s": round(total.longest_gap.in_seconds, 3),
            "failures": [
                {
                    "point": spelled(run.points),
                    "operation": run.name,
                    "verdict": type(run.result.verdict).__name__,
                    "reason": run.result.reason,
                    "reproduce": command(found.sweep, run.points),
                }
                for run in found.failures
            ],
        }
    )

"""`twin crashpoints`: cuts a scenario off at each of its operations, one run each, and shows what became of it."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn, get_args

import typer

from fleet.contracts.errors import InvalidValue
from harness import crash_report, report
from harness.crash_report import Found
from harness.crash_sweep import Recovery, Sweep, crash_at, crashes, record, who_is_there
from harness.crashpoints import OPERATOR, parse_points
from harness.schema_errors import ScenarioError
from harness.verdict import BAD_INPUT, Held, exit_code


def crashpoints(
    paths: Annotated[list[Path], typer.Argument(help="Scenario files without faults of their own.")],
    device: Annotated[str | None, typer.Option(help="Whom to cut off; the first device if not given.")] = None,
    operator: Annotated[bool, typer.Option("--operator", help="Kill the operator before each of its writes.")] = False,
    devices: Annotated[int | None, typer.Option(min=1, help="Another number of devices than the file says.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of every run.")] = 1,
    recovery: Annotated[str, typer.Option(help="Second crashes: all, each (one per point), none.")] = "each",
    draws: Annotated[int, typer.Option(min=1, help="Repeat power cuts with so many draws of what the disk keeps.")] = 1,
    stride: Annotated[int, typer.Option(min=1, help="Every so-many-th point only.")] = 1,
    point: Annotated[str | None, typer.Option(help="Exactly this run: power:17, or power:17+kill:63.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per scenario, and nothing else.")] = False,
) -> None:
    """Cut the power of one device at every change of its disk, kill its programs before every effect, once per run.

    Each run has to end converged or rolled back with all invariants held. Exit code: that of the worst verdict.
    """
    try:
        sweeps = [
            _sweep(path, device, operator, Sweep(path, "", seed, devices, _recovery(recovery), draws, stride))
            for path in paths
        ]
        if point is not None:
            raise typer.Exit(_one(sweeps, point))
    except (ScenarioError, InvalidValue) as error:
        _refuse(str(error))
    every = [_whole(sweep, jobs, as_json) for sweep in sweeps]
    if not as_json:
        report.console().print(crash_report.last_line(every), markup=False, soft_wrap=True)
    raise typer.Exit(max(found.code for found in every))


def _refuse(text: str) -> NoReturn:
    print(text, file=sys.stderr)
    raise typer.Exit(BAD_INPUT)


def _recovery(text: str) -> Recovery:
    for known in get_args(Recovery):
        if text == known:
            chosen: Recovery = known
            return chosen
    raise InvalidValue(f"--recovery {text!r}: known are {', '.join(get_args(Recovery))}")


def _sweep(path: Path, device: str | None, operator: bool, sweep: Sweep) -> Sweep:
    known = who_is_there(sweep)
    if operator and device is not None:
        raise InvalidValue("--device and --operator exclude each other: one of them is cut off")
    who = OPERATOR if operator else device or known[0]
    if who not in known:
        raise InvalidValue(f"{path}: there is no device {who}: known are {known[0]} to {known[-2]}")
    return replace(sweep, who=who)


def _one(sweeps: list[Sweep], point: str) -> int:
    if len(sweeps) != 1:
        raise InvalidValue("--point names a run of one scenario; give one file")
    run = crash_at(sweeps[0], parse_points(point))
    crash_report.show_one(report.console(), sweeps[0], run)
    return exit_code(run.result.verdict)


def _whole(sweep: Sweep, jobs: int, as_json: bool) -> Found:
    """Sweep one scenario and show it."""
    out = report.console(to_stderr=as_json)
    found = Found(sweep, record(sweep))
    if not isinstance(found.recorded.run.result.verdict, Held):
        found.take(found.recorded.run)
    else:
        done = 0
        with out.status("counting") if out.is_terminal else nullcontext() as status:
            for runs in crashes(sweep, found.recorded.aims, jobs):
                for run in runs:
                    found.take(run)
                done += sum(len(run.points) == 1 for run in runs)
                if status is not None:
                    status.update(f"{found.recorded.run.result.scenario}: {done} of {len(found.recorded.aims)} points")
    if as_json:
        print(crash_report.as_json(found), flush=True)
    else:
        crash_report.show(out, found)
    return found

"""How runs are shown: live on a terminal, in plain lines when piped, a table at the end, JSON for programs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fleet.contracts.objects import DevicePhase
from harness.runner import Result
from harness.scenario import Cast
from harness.verdict import Crashed, HarnessBroken, Held, NotApplicable, Stuck, Verdict, Violated, exit_code
from harness.view import FleetView

PIPED_WIDTH = 140
"""Columns when there is no terminal to ask."""

_STYLES: dict[type[Verdict], str] = {
    Held: "green",
    Violated: "bold red",
    Stuck: "bold yellow",
    Crashed: "bold red",
    NotApplicable: "cyan",
    HarnessBroken: "bold magenta",
}


def console(*, to_stderr: bool = False) -> Console:
    """Where people read. As wide as the terminal, or wide enough for the table when piped."""
    made = Console(stderr=to_stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=to_stderr, highlight=False, width=PIPED_WIDTH)


class Lines:
    """Progress in plain lines, each with the time of the run."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._view: FleetView | None = None
        self._name = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing has to be put back."""

    def begin(self, cast: Cast, view: FleetView) -> None:
        """The run begins."""
        self._view, self._name = view, cast.scenario.name
        self._say(f"{len(cast.devices)} devices")

    def phase(self, name: str) -> None:
        """The run enters a phase."""
        self._say(name)

    def note(self, text: str) -> None:
        """A step was done, or a fault happened or ended."""
        self._say(text)

    def _say(self, text: str) -> None:
        seconds = self._view.now.in_seconds if self._view is not None else 0.0
        self._out.print(f"{self._name} {seconds:9.1f}s {text}", markup=False, soft_wrap=True)


class Screen(Lines):
    """Progress on a terminal: the lines, and below them how the fleet stands right now."""

    def __init__(self, out: Console) -> None:
        super().__init__(out)
        self._phase = ""
        self._live = Live(get_renderable=self._now, console=out, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def phase(self, name: str) -> None:
        """The run enters a phase."""
        self._phase = name
        super().phase(name)

    def _now(self) -> RenderableType:
        """Called by the screen's own thread. The view's dictionary of devices never changes its size."""
        view = self._view
        if view is None:
            return Text("bringing the target up …", style="dim")
        devices = list(view.devices.values())
        ready = sum(device.phase is DevicePhase.READY for device in devices)
        two = sum(len(device.running) > 1 for device in devices)
        lines = [f"{self._phase}  {view.now.in_seconds:.0f} s  {ready}/{len(devices)} ready  {two} handing over"]
        for rollout in list(view.rollouts.values()):
            status = rollout.status
            counts = f"{status.upgraded}/{status.total} upgraded, {status.failed} failed"
            lines.append(f"rollout {rollout.name}: {status.phase}, {counts}")
        return Group(*(Text(line, style="dim") for line in lines))


def as_json(result: Result) -> str:
    """One JSON object."""
    return json.dumps(
        {
            "scenario": result.scenario,
            "target": result.target,
            "seed": result.seed,
            "verdict": type(result.verdict).__name__,
            "devices": result.devices,
            "simulated_s": result.simulated_s,
            "wall_s": result.wall_s,
            "events": result.events,
            "journal_sha256": result.journal_sha256,
            "faults_injected": result.faults_injected,
            "reason": result.reason,
        }
    )


def show_summary(out: Console, results: list[tuple[Path, Result]]) -> None:
    """A table of all results; then, for each that did not hold, why, and the command that reproduces it."""
    table = Table("scenario", "verdict", box=None, pad_edge=False)
    for name in ("devices", "simulated", "wall", "events", "faults"):
        table.add_column(name, justify="right")
    table.add_column("journal")
    for _, result in results:
        verdict = Text(type(result.verdict).__name__, style=_STYLES[type(result.verdict)])
        numbers = (f"{result.devices}", f"{result.simulated_s:.0f} s", f"{result.wall_s:.1f} s")
        counts = (f"{result.events}", f"{result.faults_injected}", result.journal_sha256[:12])
        table.add_row(result.scenario, verdict, *numbers, *counts)
    out.print()
    out.print(table)
    held = sum(isinstance(result.verdict, Held) for _, result in results)
    absent = sum(isinstance(result.verdict, NotApplicable) for _, result in results)
    out.print(f"{held} of {len(results)} held" + (f", {absent} not applicable" if absent else ""), markup=False)
    for _, result in results:
        if isinstance(result.verdict, NotApplicable):
            out.print(f"{result.scenario}: not applicable: {result.reason}", markup=False, soft_wrap=True)
    for path, result in results:
        if exit_code(result.verdict):
            show_failure(out, path, result)


def show_timeline(out: Console, result: Result) -> None:
    """The run on one page, ending with its verdict."""
    out.print()
    out.print(f"{result.scenario} with {result.devices} devices, seed {result.seed}", markup=False)
    for line in result.timeline:
        out.print(line, markup=False, soft_wrap=True)
    style = _STYLES[type(result.verdict)]
    words = f"{type(result.verdict).__name__}" + (f": {result.reason}" if result.reason else "")
    out.print(Text(f"{result.simulated_s:9.0f} s  {words}", style=style), soft_wrap=True)


def show_failure(out: Console, path: Path, result: Result) -> None:
    """Why one run did not hold: its trail, its verdict, and the command that reproduces it as the last line."""
    out.print()
    for line in result.trail:
        out.print(line, markup=False, soft_wrap=True)
    if isinstance(result.verdict, Crashed | HarnessBroken) and result.verdict.traceback:
        out.print(result.verdict.traceback, markup=False, soft_wrap=True)
    style = _STYLES[type(result.verdict)]
    words = Text(f"{result.scenario}: {type(result.verdict).__name__}: {result.reason}", style=style)
    out.print(words, soft_wrap=True)
    out.print(reproduce(path, result), markup=False, soft_wrap=True)


def reproduce(path: Path, result: Result) -> str:
    """The command that makes the same run again."""
    options = f"--target {result.target} --seed {result.seed} --devices {result.devices}"
    return f"twin run {shlex.quote(str(path))} {options}"

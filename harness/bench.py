"""What a heartbeat costs in the simulated world, with production code, all invariants and the journal on.

The fleet is brought up, gets one workload and settles; then slices of it alternate, in the same process, with as many
bare simpy timeouts, which are the floor below any simulation on simpy. Everything is CPU time (`process_time`), never
wall time: these numbers are compared between machines that have other things to do. Each fleet size runs in a process
of its own, so that its memory is its own.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import process_time
from typing import Annotated, Final

import typer
from rich.table import Table

from fleet.contracts.time import Duration
from harness import report
from harness.court import Court
from harness.runner import POLL
from harness.scenario import Cast, parse
from harness.schema_steps import Deploy
from harness.steps import deploy
from harness.targets.port import Session
from harness.targets.sim import SimTarget
from sim.journal import HeartbeatStored
from sim.kernel import bare_timeouts
from sim.loop import quiet_collector

SIZES: Final = (100, 1_000, 5_000)
SLICES: Final = 5
SETTLE: Final = Duration.minutes(5)
LEAST_HEARTBEATS: Final = 20_000
"""A slice is long enough for about this many, and at least `SHORTEST`, so that every slow period falls into it."""
SHORTEST: Final = Duration.minutes(10)
HEARTBEAT: Final = Duration.seconds(30)
LIMIT: Final = Duration.minutes(30)
"""A fleet size that is not done by then is given up."""

_SCENARIO: Final = """
schema = 1
installed = "1.0.0"
releases = [{ version = "1.0.0" }]
scenario = { name = "bench", proves = "nothing: it is measured" }
fleet = { devices = 1 }

[[steps]]
do = "deploy"
name = "hello"
containers = [{ name = "hello", image = "hello:1" }]

[[checks]]
check = "final"
that = { fact = "workload", over = "all", deployment = "hello", condition = "ready" }
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One fleet size. Costs are medians over the slices, in CPU time."""

    devices: int
    heartbeats: int
    microseconds_per_heartbeat: float
    simulated_s_per_cpu_s: float
    bytes_per_device: int
    floor_microseconds: float
    """One bare simpy timeout."""
    times_the_floor: float
    """Median of the ratios of neighbouring slices."""
    bring_up_cpu_s: float


def measure(devices: int, slices: int = SLICES, length: Duration | None = None) -> Measured:
    """Measure a fleet of that size in this process.

    Args:
        slices: how many slices of the fleet and of the floor alternate.
        length: simulated time of a slice; by default long enough for a stable number.
    """
    cast = parse(_SCENARIO, Path("bench.toml")).cast(devices)
    length = length or max(SHORTEST, HEARTBEAT * (LEAST_HEARTBEATS // devices))
    gc.collect()
    before = _resident()

    async def main(session: Session) -> Measured:
        fleet = _Fleet(session, cast)
        began = process_time()
        await fleet.bring_up()
        bring_up, used = process_time() - began, _resident() - before
        rounds = [await fleet.round(length) for _ in range(slices)]
        fleet.check()
        return _summary(devices, length, rounds, used, bring_up)

    with quiet_collector():  # as in every run on this target
        return SimTarget().run(cast.plan, 1, main)


@dataclass(frozen=True, slots=True)
class _Round:
    """One slice of the fleet and one of the floor, in CPU seconds."""

    heartbeats: int
    fleet_s: float
    floor_s: float


class _Fleet:
    """A fleet under the eyes of the court, as in a scenario run."""

    def __init__(self, session: Session, cast: Cast) -> None:
        self._session = session
        self._cast = cast
        self._heartbeats = 0
        self._court = Court(cast, session.journal)
        session.journal.subscribe(HeartbeatStored, self._count)

    async def bring_up(self) -> None:
        """Start every device, deploy one workload everywhere, and wait until nothing is left to do."""
        await self._session.start()
        (step,) = self._cast.scenario.steps
        assert isinstance(step, Deploy)
        await deploy(self._session, self._cast, step)
        self._court.begin(self._session.clock.monotonic())
        await self._pass(SETTLE)
        while not self._court.convergence.settled:
            await self._pass(POLL)

    async def round(self, length: Duration) -> _Round:
        """A slice of the fleet, then as many bare timeouts, from as many processes."""
        heartbeats, began = self._heartbeats, process_time()
        await self._pass(length)
        between, heartbeats = process_time(), self._heartbeats - heartbeats
        bare_timeouts(heartbeats, len(self._cast.devices))
        return _Round(heartbeats, between - began, process_time() - between)

    def check(self) -> None:
        """What was measured is a healthy fleet. Raises: RuntimeError when an invariant does not hold."""
        self._court.finish()
        if self._court.violation is not None:
            raise RuntimeError(f"{self._court.violation.rule}: {self._court.violation.evidence}")

    async def _pass(self, length: Duration) -> None:
        """Let time pass the way the runner does."""
        for _ in range(length // POLL):
            await self._session.clock.sleep(POLL)
            self._court.passed(self._session.clock.monotonic())

    def _count(self, _: HeartbeatStored) -> None:
        self._heartbeats += 1


def _summary(devices: int, length: Duration, rounds: list[_Round], used: int, bring_up: float) -> Measured:
    return Measured(
        devices=devices,
        heartbeats=sum(item.heartbeats for item in rounds),
        microseconds_per_heartbeat=median(item.fleet_s / item.heartbeats for item in rounds) * 1e6,
        simulated_s_per_cpu_s=median(length.in_seconds / item.fleet_s for item in rounds),
        bytes_per_device=used // devices,
        floor_microseconds=median(item.floor_s / item.heartbeats for item in rounds) * 1e6,
        times_the_floor=median(item.fleet_s / item.floor_s for item in rounds),
        bring_up_cpu_s=bring_up,
    )


def _resident() -> int:
    """Bytes of memory this process has now, or, where the system does not tell, the most it ever had."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _in_own_process(devices: int) -> Measured:
    command = [sys.executable, "-m", "harness.bench", "--devices", str(devices), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LIMIT.in_seconds, check=True)
    return Measured(**json.loads(done.stdout))


def _table(results: list[Measured]) -> Table:
    table = Table("devices", "heartbeats", box=None, pad_edge=False)
    heads = ("µs/heartbeat", "simulated s/CPU s", "kB/device", "bare timeout µs", "ratio", "bring-up CPU s")
    for head in heads:
        table.add_column(head, justify="right")
    for item in results:
        table.add_row(
            f"{item.devices:,}",
            f"{item.heartbeats:,}",
            f"{item.microseconds_per_heartbeat:.1f}",
            f"{item.simulated_s_per_cpu_s:,.0f}",
            f"{item.bytes_per_device / 1000:.1f}",
            f"{item.floor_microseconds:.2f}",
            f"{item.times_the_floor:.0f}",
            f"{item.bring_up_cpu_s:.1f}",
        )
    return table


def main(
    devices: Annotated[list[int] | None, typer.Option(help="A fleet size; may be given several times.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per fleet size, instead of a table.")
    ] = False,
) -> None:
    """Print what a heartbeat costs for fleets of several sizes."""
    sizes = devices or list(SIZES)
    if as_json and len(sizes) == 1:
        print(json.dumps(asdict(measure(sizes[0]))))
        return
    results = [_in_own_process(size) for size in sizes]
    if as_json:
        for result in results:
            print(json.dumps(asdict(result)))
    else:
        out = report.console()
        out.print("One heartbeat of a simulated fleet: production code, all invariants and the journal on. CPU time,")
        out.print("medians, taken in turns with as many bare simpy timeouts in the same process.\n")
        out.print(_table(results))


if __name__ == "__main__":
    typer.run(main)

"""Many seeds of many scenarios: a worker process carries out one run after another, so that it starts only once.

Each run is the very run that `twin run --seed N` makes: worlds share nothing but code. Seeds are handed out in small
parts, in order, and results are folded as they come, so that forty thousand runs need no more memory than one.
"""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from harness.progress import Silent
from harness.runner import Result, run_scenario
from harness.scenario import Loaded, load
from harness.targets import registry
from harness.verdict import HarnessBroken, exit_code
from harness.workers import worker_pool
from sim.loop import quiet_collector

PART = 20
"""Seeds that a worker carries out before it answers."""
KEPT = 10
"""Failing runs of a scenario that are kept whole."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some seeds of one scenario."""

    path: Path
    target: str
    devices: int
    seeds: range


@dataclass(slots=True)
class Tally:
    """What became of the seeds of one scenario."""

    path: Path
    scenario: str
    target: str
    devices: int
    seeds: range
    verdicts: Counter[str] = field(default_factory=Counter)
    simulated: list[float] = field(default_factory=list)
    """Simulated seconds of each run, in the order of the seeds."""
    wall_s: float = 0.0
    code: int = 0
    """The worst exit code."""
    failures: list[Result] = field(default_factory=list)
    """The first `KEPT` runs that did not hold."""
    _journals: list[str] = field(default_factory=list)

    def take(self, result: Result) -> None:
        """One more run."""
        self.verdicts[type(result.verdict).__name__] += 1
        self.simulated.append(result.simulated_s)
        self.wall_s += result.wall_s
        self._journals.append(result.journal_sha256)
        code = exit_code(result.verdict)
        self.code = max(self.code, code)
        if code and len(self.failures) < KEPT:
            self.failures.append(result)

    @property
    def done(self) -> int:
        """Runs that are over."""
        return len(self.simulated)

    @property
    def failed(self) -> int:
        """Runs whose verdict is a failure."""
        return sum(count for name, count in self.verdicts.items() if name not in ("Held", "NotApplicable"))

    @property
    def median_s(self) -> float:
        """The median of the simulated seconds."""
        return statistics.median(self.simulated)

    @property
    def worst(self) -> tuple[float, int]:
        """The longest run in simulated seconds, and its seed."""
        longest = max(self.simulated)
        return longest, self.seeds[self.simulated.index(longest)]

    @property
    def journals_sha256(self) -> str:
        """One hash over the journals' hashes, in the order of the seeds: the same runs give the same."""
        return hashlib.sha256("\n".join(self._journals).encode()).hexdigest()


def parts_of(path: Path, target: str, devices: int, seeds: range) -> list[Part]:
    """The seeds of a scenario, in portions for the workers."""
    return [Part(path, target, devices, seeds[begin : begin + PART]) for begin in range(0, len(seeds), PART)]


def perform(part: Part) -> list[Result]:
    """Carry out some seeds, one after the other. Never raises for what happens in a run."""
    cast, target = _load(part.path).cast(part.devices), registry.target(part.target)
    with ExitStack() as stack:
        if part.target == "sim":
            stack.enter_context(quiet_collector())
        return [replace(run_scenario(cast, target, seed, Silent()), timeline=()) for seed in part.seeds]


@lru_cache
def _load(path: Path) -> Loaded:
    return load(path)


def performed(parts: list[Part], jobs: int) -> Iterator[list[Result]]:
    """The results of all parts, in their order; several at the same time when `jobs` is more than one."""
    if jobs == 1:
        yield from map(perform, parts)
        return
    pool = worker_pool(jobs)
    try:
        futures = [pool.submit(perform, part) for part in parts]
        for part, future in zip(parts, futures, strict=True):
            yield _fetch(part, future)
    finally:
        pool.shutdown(cancel_futures=True)


def _fetch(part: Part, future: Future[list[Result]]) -> list[Result]:
    try:
        return future.result()
    except BrokenProcessPool as error:
        name = _load(part.path).scenario.name
        why = HarnessBroken(f"the process of the run was ended from outside: {error}")
        return [Result(name, part.target, seed, why, part.devices, 0.0, 0.0, 0, "", 0) for seed in part.seeds]


def tallies(plan: list[tuple[Path, int]], target: str, seeds: range, jobs: int) -> Iterator[Tally]:
    """Run the seeds of each scenario, given with its number of devices. Each tally comes again as it grows."""
    parts = {path: parts_of(path, target, devices, seeds) for path, devices in plan}
    results = performed([part for path, _ in plan for part in parts[path]], jobs)
    for path, devices in plan:
        tally = Tally(path, _load(path).scenario.name, target, devices, seeds)
        for _ in parts[path]:
            for result in next(results):
                tally.take(result)
            yield tally

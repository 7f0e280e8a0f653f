"""The `twin` command: runs scenarios on a target, and says what is wrong with a file before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Generator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from fleet.contracts.errors import InvalidValue
from harness import report, report_seeds
from harness.crash_cli import crashpoints
from harness.journal_file import JournalFile, join
from harness.progress import Progress, Silent
from harness.runner import Result, run_scenario
from harness.scenario import Cast, Loaded, json_schema, load
from harness.schema_errors import ScenarioError
from harness.seeds import Tally, tallies
from harness.targets import registry
from harness.verdict import BAD_INPUT, HarnessBroken, exit_code
from harness.workers import worker_pool
from sim.loop import quiet_collector

app = typer.Typer(
    help="Run fleet scenarios in a virtual world or on real processes, and judge them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Paths = Annotated[list[Path], typer.Argument(help="Scenario files, or folders that are searched for *.toml.")]


@dataclass(frozen=True, slots=True)
class Job:
    """One run, as it is handed to a process of its own."""

    path: Path
    target: str
    seed: int
    devices: int
    journal: Path | None


@app.command()
def run(
    paths: Paths,
    target: Annotated[str, typer.Option(help=f"Where to run: {', '.join(registry.MODULES)}.")] = "sim",
    seed: Annotated[int, typer.Option(min=0, help="The seed of everything that is left to chance.")] = 1,
    devices: Annotated[int | None, typer.Option(min=1, help="Another number of devices than the file says.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Scenarios that run at the same time.")] = 1,
    seeds: Annotated[
        int, typer.Option(min=1, help="Run so many seeds of each scenario, from --seed on (sim only).")
    ] = 1,
    timeline: Annotated[
        bool, typer.Option(help="Show each run on one page: phases, faults, groups in counts.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per scenario, and nothing else.")] = False,
    journal: Annotated[
        Path | None, typer.Option(help="Write every event as JSON lines, after a header line per scenario.")
    ] = None,
) -> None:
    """Run scenarios and exit with the code of the worst verdict: 0 held, 1 violated, 3 stuck, 4 crashed, 5 broken."""
    try:
        _refuse_many(seeds, target, journal)
        work = _prepare(paths, target, seed, devices, jobs, journal)
    except (ScenarioError, InvalidValue, OSError) as error:
        _refuse(str(error))
    if seeds > 1:
        raise typer.Exit(_run_seeds(work, range(seed, seed + seeds), jobs, as_json))
    results: list[tuple[Path, Result]] = []
    out = report.console(to_stderr=as_json)
    with closing(_parallel(work, jobs, out, as_json) if jobs > 1 else _one_by_one(work, out, as_json)) as runs:
        for job, result in zip(work, runs, strict=True):
            results.append((job.path, result))
            if as_json:
                print(report.as_json(result), flush=True)
            elif timeline:
                report.show_timeline(out, result)
    if not as_json:
        report.show_summary(out, results)
    raise typer.Exit(max(exit_code(result.verdict) for _, result in results))


@app.command("list")
def list_scenarios(paths: Paths) -> None:
    """List scenarios with what they prove."""
    try:
        loaded = [load(path) for path in _files(paths)]
    except ScenarioError as error:
        _refuse(str(error))
    table = Table("scenario", "devices", "proves", box=None, pad_edge=False)
    table.add_column("file", overflow="fold")
    for item in loaded:
        about = item.scenario.scenario
        table.add_row(about.name, str(item.scenario.fleet.devices), about.proves, str(item.path))
    report.console().print(table)


@app.command()
def check(paths: Paths) -> None:
    """Read scenario files and say what is wrong with them; run nothing."""
    try:
        for path in _files(paths):
            load(path)
            print(f"{path}: ok")
    except ScenarioError as error:
        _refuse(str(error))


@app.command()
def schema() -> None:
    """Print the JSON Schema of a scenario file."""
    print(json_schema(), end="")


app.command()(crashpoints)


def _refuse(text: str) -> NoReturn:
    """Say what is wrong with the input and leave; nothing was started."""
    print(text, file=sys.stderr)
    raise typer.Exit(BAD_INPUT)


def _files(paths: list[Path]) -> list[Path]:
    """The scenario files, each once, folders searched in order of their names."""
    found: dict[Path, None] = {}
    for path in paths:
        inside = sorted(path.rglob("*.toml")) if path.is_dir() else [path]
        if not inside:
            raise ScenarioError(f"{path}: there are no scenario files (*.toml) in this folder")
        found.update(dict.fromkeys(inside))
    return list(found)


def _prepare(
    paths: list[Path], target: str, seed: int, devices: int | None, jobs: int, journal: Path | None
) -> list[Job]:
    """Read everything, so that a mistake in the last file is found before the first one runs."""
    if jobs > 1 and target not in registry.IN_PARALLEL:
        raise InvalidValue(f"--jobs {jobs}: target {target} runs one scenario at a time")
    count = devices or registry.target(target).default_devices
    loaded = [load(path) for path in _files(paths)]
    _refuse_same_names(loaded)
    if journal is not None:
        journal.write_bytes(b"")
    work = []
    for index, item in enumerate(loaded):
        cast = item.cast(count)
        part = journal if journal is None or jobs == 1 else journal.with_name(f"{journal.name}.{index}.part")
        work.append(Job(item.path, target, seed, len(cast.devices), part))
    return work


def _refuse_many(seeds: int, target: str, journal: Path | None) -> None:
    if seeds > 1 and target not in registry.SEEDED:
        raise InvalidValue(f"--seeds {seeds}: only the sim target runs many seeds; elsewhere no run is repeatable")
    if seeds > 1 and journal is not None:
        raise InvalidValue(f"--seeds {seeds}: a journal is written of one run; give --seed alone")


def _run_seeds(work: list[Job], seeds: range, jobs: int, as_json: bool) -> int:
    """Run many seeds of each scenario; answers the worst exit code."""
    out = report.console(to_stderr=as_json)
    done: list[Tally] = []
    plan = [(job.path, job.devices) for job in work]
    with out.status("starting") if out.is_terminal else nullcontext() as status:
        for tally in tallies(plan, work[0].target, seeds, jobs):
            if status is not None:
                status.update(report_seeds.line(tally))
            if tally.done < len(seeds):
                continue
            done.append(tally)
            if as_json:
                print(report_seeds.as_json(tally), flush=True)
            else:
                out.print(report_seeds.line(tally), markup=False)
    if not as_json:
        report_seeds.show_summary(out, done)
    return max(tally.code for tally in done)


def _refuse_same_names(loaded: list[Loaded]) -> None:
    seen: dict[str, Path] = {}
    for item in loaded:
        name = item.scenario.name
        if name in seen:
            raise ScenarioError(f"{item.path}: scenario {name} is also the name of {seen[name]}")
        seen[name] = item.path


def perform(job: Job, progress: Progress) -> Result:
    """Carry out one run."""
    cast = load(job.path).cast(job.devices)
    target = registry.target(job.target)
    with ExitStack() as stack:
        if job.target == "sim":
            stack.enter_context(quiet_collector())
        attach = None
        if job.journal is not None:
            attach = stack.enter_context(JournalFile(job.journal, _header(job, cast))).attach
        return run_scenario(cast, target, job.seed, progress, attach)


def _header(job: Job, cast: Cast) -> dict[str, str | int]:
    return {"scenario": cast.scenario.name, "target": job.target, "seed": job.seed, "devices": job.devices}


def _one_by_one(work: list[Job], out: Console, as_json: bool) -> Generator[Result, None, None]:
    for job in work:
        if as_json and not out.is_terminal:
            yield perform(job, Silent())
            continue
        with report.Screen(out) if out.is_terminal else report.Lines(out) as progress:
            result = perform(job, progress)
        yield result


def _perform_quietly(job: Job) -> Result:
    return perform(job, Silent())


def _parallel(work: list[Job], jobs: int, out: Console, as_json: bool) -> Generator[Result, None, None]:
    """Each run in a fresh process; results come in the order of the files."""
    pool = worker_pool(jobs, tasks_each=1)
    try:
        futures = [pool.submit(_perform_quietly, job) for job in work]
        for job, future in zip(work, futures, strict=True):
            result = _fetch(job, future)
            if not as_json:
                out.print(f"{result.scenario}: {type(result.verdict).__name__}", markup=False)
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
        parts = [job.journal for job in work if job.journal is not None]
        if parts:
            join(parts, parts[0].with_name(parts[0].name.removesuffix(".0.part")))


def _fetch(job: Job, future: Future[Result]) -> Result:
    try:
        return future.result()
    except BrokenProcessPool as error:
        name = load(job.path).scenario.name
        why = HarnessBroken(f"the process of the run was ended from outside: {error}")
        return Result(name, job.target, job.seed, why, job.devices, 0.0, 0.0, 0, "", 0)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()

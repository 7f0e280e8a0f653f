"""Crash points: taps that change nothing, points that stay where they are, and bugs that a sweep finds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from typer.testing import CliRunner

import agent.handover
from fleet.capabilities.disk import Disk
from fleet.contracts.errors import InvalidValue
from harness.cli import app
from harness.crash_sweep import Sweep, crash, crash_at, record
from harness.crashpoints import OPERATOR, Aim, Ending, Point, parse_points, prepared, run_with
from harness.progress import Silent
from harness.runner import run_scenario
from harness.scenario import load, parse
from harness.targets import registry
from harness.targets.sim_taps import EFFECTS, OBSERVATIONS
from harness.verdict import HarnessBroken, Held
from sim.disk import SimDisk

ROOT = Path(__file__).parents[2]
STRAIGHT = ROOT / "scenarios" / "upgrade" / "straight.toml"
RETURN = ROOT / "scenarios" / "rollback" / "automatic-return.toml"
EXPLICIT = ROOT / "scenarios" / "rollback" / "explicit.toml"
ONE = Sweep(STRAIGHT, "device-001", 1, devices=1)


def twin(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output


@pytest.mark.parametrize("port", EFFECTS, ids=lambda port: port.__name__)
def test_every_method_of_a_port_is_an_effect_or_an_observation(port: type) -> None:
    methods = {name for name, item in vars(port).items() if callable(item) and not name.startswith("_")}
    assert {*EFFECTS[port], *OBSERVATIONS.get(port, ())} == methods


@pytest.mark.parametrize("who", ["device-002", OPERATOR])
def test_a_tap_that_lets_everything_pass_changes_nothing(who: str) -> None:
    cast = load(STRAIGHT).cast()
    plain = run_scenario(cast, registry.target("sim"), 5, Silent())
    tapped, operations = run_with(prepared(cast), who, 5, ())
    assert tapped.result.journal_sha256 == plain.journal_sha256
    assert len(operations) > 25
    ordinals = [item.ordinal for item in operations if item.kind == "kill"]
    assert ordinals == list(range(1, len(ordinals) + 1))


def test_the_power_goes_instead_of_the_operation_and_comes_back() -> None:
    recorded = record(ONE)
    (swap,) = [aim for aim in recorded.aims if aim.name == "rename /usr/local/bin/fleet-agent"]
    first, second = crash(ONE, 3, swap)
    assert (first.ending, first.phase, first.result.verdict) == (Ending.CONVERGED, "testing", Held())
    assert first.recovery.in_seconds > 50
    assert first.gap.in_seconds > 30, "nobody manages a device without power"
    assert second.points[0] == swap.point
    assert crash_at(ONE, second.points).result.journal_sha256 == second.result.journal_sha256


def test_draws_settle_the_disk_differently_and_move_nothing_before_the_crash() -> None:
    (aim,) = [aim for aim in record(ONE).aims if aim.name == "sync_folder /usr/local/bin"]
    runs = [crash_at(ONE, (replace(aim.point, draw=draw),)) for draw in range(6)]
    assert all(run.held for run in runs)
    assert len({run.result.journal_sha256 for run in runs}) > 1


def test_a_release_that_the_power_takes_before_its_last_sync_was_not_erased() -> None:
    aim = [aim for aim in record(ONE).aims if aim.name == "sync_folder /usr/bin" and aim.point.kind == "power"][-1]
    runs = [crash_at(ONE, (replace(aim.point, draw=draw),)) for draw in range(6)]
    assert [run.result.verdict for run in runs] == [Held()] * 6
    assert len({run.result.journal_sha256 for run in runs}) > 1


def test_another_operation_than_the_recorded_one_is_no_answer() -> None:
    cast = prepared(load(STRAIGHT).cast(1))
    run, _ = run_with(cast, "device-001", 1, (Aim(Point("power", 3), "rename /elsewhere"),))
    assert isinstance(run.result.verdict, HarnessBroken)
    assert "operation power:3 is 'sync " in run.result.reason
    run, _ = run_with(cast, "device-001", 1, (Aim(Point("kill", 9999), "bus put"),))
    assert run.result.verdict == HarnessBroken("operation kill:9999 (bus put) never came")


async def unlink_first(disk: Disk, link: PurePosixPath, target: PurePosixPath) -> None:
    """How not to swap a link: there is an instant without one."""
    await disk.unlink(link)
    await disk.symlink(target, link)
    await disk.sync_folder(link.parent)


def test_a_scenario_that_does_not_hold_undisturbed_is_not_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.handover, "point_link", unlink_first)
    code, output = twin("crashpoints", str(STRAIGHT), "--devices", "1")
    assert code == 1
    assert "undisturbed (): Violated: current-link-complete" in output
    assert output.splitlines()[-1] == f"twin run {STRAIGHT} --seed 1 --devices 1"


def test_a_sweep_finds_a_bug_that_only_a_crash_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    sync = SimDisk.sync

    async def forgetful(disk: SimDisk, path: PurePosixPath) -> None:
        if path.suffix != ".part":
            await sync(disk, path)

    monkeypatch.setattr(SimDisk, "sync", forgetful)
    code, output = twin("crashpoints", str(STRAIGHT), "--devices", "1", "--recovery", "none", "--stride", "9")
    assert code == 1
    lines = output.splitlines()
    assert "Violated: current-link-complete" in output
    assert lines[-1].startswith(f"twin crashpoints {STRAIGHT} --seed 1 --devices 1 --device device-001 --point power:")
    again, shown = twin(*lines[-1].split()[1:])
    assert again == 1
    assert "Violated: " in shown
    assert shown.splitlines()[-1] == lines[-1]


@pytest.mark.parametrize("path", [STRAIGHT, RETURN, EXPLICIT], ids=lambda path: path.stem)
@pytest.mark.parametrize("who", ["--device=device-001", "--operator"])
def test_a_part_of_the_whole_sweep_recovers(path: Path, who: str) -> None:
    code, output = twin("crashpoints", str(path), who, "--stride", "24", "--json")
    found = json.loads(output)
    assert code == 0, found["failures"]
    assert (found["failed"], found["failures"]) == (0, [])
    assert found["runs"] == found["converged"] + found["rolled_back"]
    assert found["runs"] > sum(found["points"].values()) > 1
    ending = "rolled_back" if path is RETURN else "converged"
    assert found[ending] == found["runs"]


def test_several_jobs_find_the_same_in_the_same_order() -> None:
    arguments = ("crashpoints", str(STRAIGHT), "--devices", "1", "--stride", "30", "--draws", "2", "--json")
    assert twin(*arguments) == twin(*arguments, "--jobs", "2")


def test_points_are_written_as_they_are_read() -> None:
    for text in ("power:17", "kill:3", "power:17#2+kill:63"):
        assert "+".join(map(str, parse_points(text))) == text
    for text in ("power", "power:0", "cut:3", "kill:1+kill:2+kill:3", ""):
        with pytest.raises(InvalidValue, match="--point"):
            parse_points(text)


def test_a_scenario_with_faults_is_refused() -> None:
    text = STRAIGHT.read_text(encoding="utf-8")
    text += '\n[[faults]]\nfault = "kill-operator"\ndown = "1s"\nat = "1s"\n'
    with pytest.raises(InvalidValue, match="declares faults of its own"):
        prepared(parse(text, Path("x.toml")).cast())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("missing.toml",), "missing.toml: cannot be read"),
        (
            (str(STRAIGHT), "--device", "device-009"),
            "there is no device device-009: known are device-001 to device-003",
        ),
        ((str(STRAIGHT), "--device", "device-001", "--operator"), "--device and --operator exclude each other"),
        ((str(STRAIGHT), "--recovery", "some"), "--recovery 'some': known are all, each, none"),
        (
            (str(STRAIGHT), "--devices", "1", "--point", "power:999"),
            "there is no crash point power:999: there are power:1 to",
        ),
        ((str(STRAIGHT), "--point", "x"), "--point 'x': a point is power:N or kill:N"),
        ((str(STRAIGHT), str(RETURN), "--point", "power:1"), "--point names a run of one scenario"),
    ],
)
def test_bad_input_is_said_and_starts_nothing(arguments: tuple[str, ...], words: str) -> None:
    code, output = twin("crashpoints", *arguments)
    assert code == 2
    assert words in output
    assert "Traceback" not in output

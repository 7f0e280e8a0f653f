"""Many seeds: each run is the run that its seed alone makes, whichever process it shares with others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import seeds
from harness.cli import app
from harness.progress import Silent
from harness.runner import run_scenario
from harness.scenario import load
from harness.targets import registry
from harness.verdict import Held

ROOT = Path(__file__).parents[2]
PATH = ROOT / "scenarios" / "power" / "power-and-links.toml"
GOOD = """\
schema = 1
installed = "1.0.0"
scenario = { name = "good", proves = "that it runs" }
fleet = { devices = 3 }
releases = [{ version = "1.0.0" }]
checks = [{ check = "final", that = { fact = "device-phase", phase = "Ready", over = "all" } }]
"""


def twin(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output


def test_a_run_among_many_is_the_run_of_its_seed_alone() -> None:
    among = seeds.perform(seeds.Part(PATH, "sim", 4, range(1, 4)))
    cast, target = load(PATH).cast(4), registry.target("sim")
    for result in (among[2], among[0]):
        alone = run_scenario(cast, target, result.seed, Silent())
        assert (alone.verdict, alone.journal_sha256) == (Held(), result.journal_sha256)
    command = [sys.executable, "-m", "harness.cli", "run", str(PATH), "--seed", "3", "--devices", "4", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout)["journal_sha256"] == among[2].journal_sha256
    assert len({result.journal_sha256 for result in among}) == 3


def test_every_seed_is_counted_once_whatever_the_number_of_jobs(tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text(GOOD, encoding="utf-8")
    arguments = ("run", str(tmp_path), "--target", "scripted", "--seeds", "45", "--seed", "3", "--json")
    (code, one), (_, two) = twin(*arguments), twin(*arguments, "--jobs", "2")
    assert code == 0
    first, second = json.loads(one), json.loads(two)
    assert first | {"wall_s": 0} == second | {"wall_s": 0}
    assert (first["first_seed"], first["seeds"], first["verdicts"]) == (3, 45, {"Held": 45})


def test_failing_seeds_are_named_and_the_last_line_reproduces_one(tmp_path: Path) -> None:
    bad = GOOD.replace("good", "bad").replace('over = "all"', 'over = "any"').replace("Ready", "Stale")
    (tmp_path / "a.toml").write_text(GOOD, encoding="utf-8")
    (tmp_path / "b.toml").write_text(bad, encoding="utf-8")
    code, output = twin("run", str(tmp_path), "--target", "scripted", "--seeds", "12", "--seed", "5")
    lines = output.splitlines()
    assert code == 1
    assert "good: 12 of 12 seeds, 12 held" in lines
    assert "bad: 12 of 12 seeds, 0 held, 12 failed" in lines
    assert "12 of 24 runs held" in lines
    assert sum(line.startswith("bad seed ") for line in lines) == seeds.KEPT
    assert "bad: and 2 more" in lines
    assert lines[-1] == f"twin run {tmp_path / 'b.toml'} --target scripted --seed 5 --devices 3"


@pytest.mark.parametrize("more", [("--target", "local"), ("--journal", "j.jsonl")])
def test_many_seeds_are_refused_where_they_say_nothing(tmp_path: Path, more: tuple[str, ...]) -> None:
    (tmp_path / "good.toml").write_text(GOOD, encoding="utf-8")
    code, output = twin("run", str(tmp_path), "--seeds", "2", *more)
    assert code == 2
    assert "--seeds 2:" in output

"""The `twin` command: exit codes, output for people and for programs, and bad input that starts nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fleet.contracts.errors import InvalidValue
from harness.cli import app
from harness.faults import KillOperator
from harness.scenario import json_schema
from harness.targets import registry
from harness.targets.scripted import ScriptedSession, ScriptedTarget

GOOD = """\
schema = 1
installed = "1.0.0"
scenario = { name = "NAME", proves = "that it runs" }
fleet = { devices = 3 }
releases = [{ version = "1.0.0" }]
checks = [{ check = "final", that = { fact = "device-phase", phase = "Ready", over = "all" } }]
"""
BAD = GOOD.replace('over = "all"', 'over = "any"').replace("Ready", "Stale")
RAW = '[[faults]]\nfault = "write-raw"\nbucket = "state"\nkey = "x"\nvalue = "y"\nat = "1s"\n'
KILL = '[[faults]]\nfault = "kill-operator"\ndown = "1s"\nat = "1s"\n'
KEYS = [
    "scenario",
    "target",
    "seed",
    "verdict",
    "devices",
    "simulated_s",
    "wall_s",
    "events",
    "journal_sha256",
    "faults_injected",
    "reason",
]


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> ScriptedTarget:
    scripted = ScriptedTarget()
    monkeypatch.setattr(registry, "target", lambda name: scripted)
    return scripted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "b/good.toml", GOOD.replace("NAME", "good"))
    write(tmp_path, "a/raw.toml", GOOD.replace("NAME", "raw") + RAW)
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def twin(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.usefixtures("folder", "target")
def test_a_folder_runs_in_order_and_holds() -> None:
    done = twin("run", ".")
    assert done.exit_code == 0, done.output
    assert "2 of 2 held" in done.output.splitlines()[-1]
    assert done.output.index("raw") < done.output.index("good")
    assert "fault 1: write-raw 1 bytes on state/x" in done.output


@pytest.mark.usefixtures("folder", "target")
def test_json_is_one_object_per_scenario_and_nothing_else() -> None:
    done = twin("run", ".", "--json", "--seed", "7", "--devices", "5")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(line) for line in lines] == [KEYS, KEYS]
    assert [(line["scenario"], line["faults_injected"]) for line in lines] == [("raw", 1), ("good", 0)]
    assert {(line["seed"], line["devices"], line["verdict"], line["reason"]) for line in lines} == {(7, 5, "Held", "")}


@pytest.mark.usefixtures("target")
def test_the_last_line_of_a_failure_reproduces_it(folder: Path) -> None:
    write(folder, "c/bad one.toml", BAD.replace("NAME", "bad"))
    done = twin("run", ".", "--seed", "3", "--devices", "4")
    assert done.exit_code == 1
    assert done.output.splitlines()[-1] == "twin run 'c/bad one.toml' --target scripted --seed 3 --devices 4"
    assert "bad: Violated: check 1 (final): device phase Stale is true of 0 of 4 devices (any asked)" in done.output
    assert "2 of 3 held" in done.output


def test_the_worst_verdict_is_the_exit_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bend(session: ScriptedSession) -> None:
        if len(session.plan.devices) == 4:
            raise InvalidValue("no such thing")

    monkeypatch.setattr(registry, "target", lambda name: ScriptedTarget(bend))
    write(folder, "bad.toml", BAD.replace("NAME", "bad"))
    write(folder, "four.toml", GOOD.replace("NAME", "four").replace("devices = 3", "devices = 4"))
    assert twin("run", ".").exit_code == 5
    assert twin("run", "bad.toml", "a").exit_code == 1
    assert twin("run", "four.toml").exit_code == 5


def test_not_applicable_is_no_failure_and_is_visible(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = ScriptedTarget(cannot={KillOperator: "nothing to kill"})
    monkeypatch.setattr(registry, "target", lambda name: scripted)
    done = twin("run", str(write(folder, "kill.toml", GOOD.replace("NAME", "kill") + KILL)))
    assert done.exit_code == 0
    assert scripted.runs == 0
    assert "NotApplicable" in done.output
    assert "not applicable: target scripted cannot inject fault 1 (kill-operator): nothing to kill" in done.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("proves", "prooves"), "z.toml:3: unknown key 'prooves': did you mean 'proves'?"),
        (GOOD.replace("devices = 3", "devices = = 3"), "z.toml:4: not TOML"),
        (GOOD + RAW.replace('"1s"', '"-1s"'), "z.toml:12: faults[1].at: '-1s' is negative"),
        (
            GOOD.replace('over = "all"', 'over = "all", group = "roof"'),
            "z.toml:6: checks[1].that.group: there is no group",
        ),
        (GOOD.replace("NAME", "good"), "z.toml: scenario good is also the name of b/good.toml"),
    ],
)
def test_bad_input_is_one_line_and_starts_nothing(folder: Path, target: ScriptedTarget, text: str, words: str) -> None:
    write(folder, "z.toml", text.replace("NAME", "z"))
    done = twin("run", "b", "z.toml")
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert target.runs == 0


@pytest.mark.usefixtures("folder")
def test_bad_arguments_start_nothing(target: ScriptedTarget, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments in (
        ("missing.toml",),
        ("empty",),
        ("b", "--devices", "0"),
        ("b", "--seeds", "2", "--target", "local"),
        ("b", "--journal", "no/such/folder.jsonl"),
        ("b", "--sead", "1"),
        (),
    ):
        done = twin("run", *arguments)
        assert done.exit_code == 2, arguments
        assert "Traceback" not in done.output
    assert target.runs == 0


@pytest.mark.usefixtures("folder")
def test_an_unknown_target_is_refused() -> None:
    done = twin("run", "b", "--target", "moon")
    assert done.exit_code == 2
    assert done.stderr == "there is no target 'moon': known are sim, local\n"


@pytest.mark.usefixtures("folder", "target")
def test_the_journal_file_holds_every_run_after_its_header(tmp_path: Path) -> None:
    (tmp_path / "j.jsonl").write_text("from an earlier run\n", encoding="utf-8")
    done = twin("run", ".", "--json", "--journal", "j.jsonl")
    events = {line["scenario"]: line["events"] for line in map(json.loads, done.stdout.splitlines())}
    lines = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text(encoding="utf-8").splitlines()]
    headers = [index for index, line in enumerate(lines) if "event" not in line]
    assert lines[0] == {"scenario": "raw", "target": "sim", "seed": 1, "devices": 3}
    assert headers == [0, events["raw"] + 1]
    assert len(lines) == events["raw"] + events["good"] + 2


@pytest.mark.usefixtures("folder")
def test_list_and_check_and_schema() -> None:
    assert "that it runs" in twin("list", ".").stdout
    assert twin("check", ".").stdout == "a/raw.toml: ok\nb/good.toml: ok\n"
    assert twin("schema").stdout == json_schema()
    done = twin("check", "missing.toml")
    assert (done.exit_code, done.stdout) == (2, "")


def test_parallel_runs_are_the_same_runs_in_the_order_of_the_files(folder: Path) -> None:
    write(folder, "c.toml", BAD.replace("NAME", "bad"))
    arguments = ("run", ".", "--target", "scripted", "--json", "--journal", "j.jsonl")
    alone, journal = twin(*arguments), (folder / "j.jsonl").read_bytes()
    together = twin(*arguments, "--jobs", "2")
    assert alone.exit_code == together.exit_code == 1
    first, second = ([json.loads(line) for line in done.stdout.splitlines()] for done in (alone, together))
    assert [line["scenario"] for line in second] == ["raw", "good", "bad"]
    assert [line | {"wall_s": 0} for line in first] == [line | {"wall_s": 0} for line in second]
    assert (folder / "j.jsonl").read_bytes() == journal
    assert not list(folder.glob("*.part"))

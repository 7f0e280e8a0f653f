"""`fleet secret`: what it shows, what it refuses, and that it never shows a value."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fleet.capabilities.secrets import SecretSeen, SecretUnreadable
from fleet.commands.config import load
from fleet.commands.secrets import SecretList, SecretMissing, show
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import ObjectName
from fleet.contracts.time import Instant
from fleet.secrets.registry import GENERATED

ROOT = Path(__file__).parents[3]
PASSWORD = "nats-admin-password"


def configured(folder: Path, secrets: object) -> Path:
    config = {"bus": {"url": "nats://127.0.0.1:1", "login": "login.json"}, "secrets": secrets}
    path = folder / "fleet.json"
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}), encoding="utf-8")
    return path


def fleet(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "fleet", "secret", *words, "--config", str(config))
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_from_installation_to_rotation(tmp_path: Path) -> None:
    config = configured(tmp_path, {"store": "file", "folder": "secrets"})
    assert fleet(config, "list").returncode == 1, "everything is missing"
    count = len(GENERATED)
    for done in (f"{count} made, 0 kept", f"0 made, {count} kept"):
        assert fleet(config, "prepare").stdout == f"{count} secrets stand: {done}\n"
    before = {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}
    listed = fleet(config, "list", "--json")
    assert listed.returncode == 0, listed
    lines = json.loads(listed.stdout)["secrets"]
    assert [line["name"] for line in lines] == [item.name for item in GENERATED]
    assert {(line["state"], line["version"]) for line in lines} == {("ready", 1)}
    assert all(
        0 <= line["age_seconds"] < 60 and set(line) == {"name", "state", "version", "made", "age_seconds"}
        for line in lines
    )
    rotated = fleet(config, "rotate", PASSWORD, "--last", "1")
    assert (rotated.returncode, rotated.stdout) == (0, f"secret {PASSWORD} has version 2\n")
    again = fleet(config, "rotate", PASSWORD, "--last", "1")
    assert (again.returncode, again.stdout) == (1, "")
    assert "is 2, not 1" in again.stderr
    after = {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}
    assert {name for name in after if after[name] != before[name]} == {f"{PASSWORD}.json"}


def test_a_damaged_secret_is_told_and_nothing_is_made(tmp_path: Path) -> None:
    config = configured(tmp_path, {"store": "file", "folder": "secrets"})
    fleet(config, "prepare")
    path = tmp_path / "secrets" / f"{PASSWORD}.json"
    value = json.loads(path.read_bytes())["value"]
    path.write_bytes(path.read_bytes()[:-3])
    for words in (("prepare",), ("rotate", PASSWORD, "--last", "1")):
        done = fleet(config, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{PASSWORD}.json is damaged" in done.stderr
        assert done.stderr.count("\n") == 1
    listed = fleet(config, "list")
    assert listed.returncode == 1
    assert f"{PASSWORD}.json is damaged" in listed.stdout
    assert value not in listed.stdout


def test_an_unknown_name_names_those_there_are(tmp_path: Path) -> None:
    done = fleet(configured(tmp_path, {"store": "file", "folder": "secrets"}), "rotate", "nothing", "--last", "1")
    assert done.returncode == 1
    assert f"no secret is called nothing: there are {GENERATED[0].name}," in done.stderr


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        (None, 'add "secrets" to --config'),
        ({"store": "kubernetes", "namespace": "fleet"}, "reaches no cluster"),
    ],
)
def test_a_store_that_cannot_be_used_is_told(tmp_path: Path, secrets: object, said: str) -> None:
    done = fleet(configured(tmp_path, secrets), "list")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_an_openbao_out_of_reach_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token", encoding="ascii")
    secrets = {"store": "openbao", "url": "http://127.0.0.1:1", "token_file": "token"}
    done = fleet(configured(tmp_path, secrets), "prepare")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be reached" in done.stderr


@pytest.mark.parametrize(
    ("secrets", "field"),
    [
        ({}, "secrets: "),
        ({"store": "floppy"}, "secrets: "),
        ({"store": "file"}, "secrets.file.folder"),
        ({"store": "file", "folder": "x", "mode": 7}, "secrets.file.mode"),
        ({"store": "openbao", "url": "http://bao/", "token_file": "t"}, "secrets.openbao.url"),
        ({"store": "openbao", "url": "http://bao", "token_file": "t", "path": "../x"}, "secrets.openbao.path"),
        ({"store": "kubernetes", "namespace": "No"}, "secrets.kubernetes.namespace"),
    ],
)
def test_a_malformed_section_names_its_field(tmp_path: Path, secrets: object, field: str) -> None:
    with pytest.raises(InvalidValue, match=field):
        load(configured(tmp_path, secrets))


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load(configured(tmp_path, {"store": "file", "folder": "secrets"}))
    assert getattr(config.secrets, "folder", None) == tmp_path / "secrets"


def test_the_table_for_people() -> None:
    now = Instant(10**9 * 1_800_000_000)
    a, b, c, d = (ObjectName(name) for name in "abcd")
    lines = (
        SecretSeen(a, 3, Instant(now - 10**9 * 200_000)),
        SecretSeen(b, 1, Instant(now + 5)),
        SecretUnreadable(c, "it is [broken]"),
        SecretMissing(d),
    )
    console = Console(width=100, force_terminal=False, record=True)
    with console.capture() as captured:
        show(SecretList(lines, now), console)
    shown = captured.get().splitlines()
    assert shown[0].split() == ["secret", "version", "made", "age"]
    assert [line.split()[-1] for line in shown[1:5]] == ["2d", "0s", "unreadable", "missing"]
    assert shown[5] == "c: it is [broken]"

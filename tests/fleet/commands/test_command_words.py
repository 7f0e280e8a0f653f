"""The small languages of the command line, and the configuration file: what they take, and how they refuse."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from fleet.commands import words
from fleet.commands.config import load
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import Architecture, ObjectName, Percent
from fleet.contracts.objects import MaxFailed, MaxUnavailable, RolloutGroup, Selector
from fleet.contracts.time import Duration
from fleet.contracts.windows import Weekday, Window

TWO = MaxUnavailable(count=2)
WORKDAYS = tuple(Weekday)[:5]


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("all", RolloutGroup(name=ObjectName("all"))),
        (
            "canary:ring=first,shop=7@2",
            RolloutGroup(
                name=ObjectName("canary"),
                selector=Selector(match_labels={"ring": "first", "shop": "7"}),
                max_unavailable=MaxUnavailable(count=2),
            ),
        ),
        ("rest@25%", RolloutGroup(name=ObjectName("rest"), max_unavailable=MaxUnavailable(percent=Percent(25)))),
        ("soft@2+30m", RolloutGroup(name=ObjectName("soft"), max_unavailable=TWO, soak=Duration.minutes(30))),
        ("soft+1h30m", RolloutGroup(name=ObjectName("soft"), soak=Duration.minutes(90))),
        ("a:b=c=d", RolloutGroup(name=ObjectName("a"), selector=Selector(match_labels={"b": "c=d"}))),
    ],
)
def test_groups(text: str, group: RolloutGroup) -> None:
    assert words.group(text) == group


@pytest.mark.parametrize(
    "text",
    ["", "A", "a:", "a:b", "a:=c", "a:b=c,b=d", "a@", "a@0", "a@x", "a@101%", "a@-1", "a@5%%", "a+", "a+5", "a@2+-3m"],
)
def test_what_is_no_group(text: str) -> None:
    with pytest.raises(InvalidValue):
        words.group(text)


def test_the_soak_of_all_groups_is_for_those_that_do_not_say() -> None:
    assert words.group("a", Duration.minutes(5)).soak == Duration.minutes(5)
    assert words.group("a+1m", Duration.minutes(5)).soak == Duration.minutes(1)


def test_how_many_may_fail() -> None:
    assert words.tolerance("0") == MaxFailed(count=0)
    assert words.tolerance("5%") == MaxFailed(percent=Percent(5))
    for text in ("", "-1", "x", "5%%", "101%"):
        with pytest.raises(InvalidValue):
            words.tolerance(text)


@pytest.mark.parametrize(
    ("text", "days", "start", "hours"),
    [
        ("22:00 4h", tuple(Weekday), "22:00", 4),
        ("mon-fri 22:00 4h", WORKDAYS, "22:00", 4),
        ("sat,sun 01:30 6h", (Weekday.SATURDAY, Weekday.SUNDAY), "01:30", 6),
        ("sun-mon 00:00 1h", (Weekday.SUNDAY, Weekday.MONDAY), "00:00", 1),
    ],
)
def test_windows(text: str, days: tuple[Weekday, ...], start: str, hours: int) -> None:
    assert words.window(text) == Window(days=days, start=start, length=Duration.minutes(60 * hours))


@pytest.mark.parametrize("text", ["", "22:00", "24:00 1h", "22:00 0s", "22:00 8d", "noday 22:00 1h", "mon- 22:00 1h"])
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(InvalidValue):
        words.window(text)


def test_an_unknown_time_zone_is_named() -> None:
    with pytest.raises(InvalidValue, match="Mars/Olympus"):
        words.windows(["22:00 4h"], "Mars/Olympus")
    assert words.windows([], "UTC") is None


def test_an_artefact_is_described_by_its_name_and_contents(tmp_path: Path) -> None:
    file = tmp_path / "fleet-agent-v1.2.3-rc1-aarch64"
    file.write_bytes(b"release")
    artefact = words.artefact(file, "http://host:8080")
    sha256 = hashlib.sha256(b"release").hexdigest()
    assert (artefact.release.version, artefact.release.sha256) == ("1.2.3-rc1", sha256)
    assert (artefact.architecture, artefact.size) == (Architecture.AARCH64, 7)
    assert artefact.url == f"http://host:8080/releases/{sha256}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("fleet-agent", b"x"),
        ("fleet-agent-v1.0.0-riscv", b"x"),
        ("fleet-agent-vone-x86_64", b"x"),
        ("fleet-agent-v1.0.0-x86_64", b""),
        ("fleet-agent-v1.0.0-x86_64", None),
    ],
)
def test_what_is_no_artefact(name: str, content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidValue):
        words.artefact(tmp_path / name, "http://host")


CONFIG = {"bus": {"url": "nats://127.0.0.1:4222", "login": "login.json"}}


def written(folder: Path, content: object) -> Path:
    path = folder / "fleet.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load(written(tmp_path, {**CONFIG, "releases": {"folder": "releases"}}))
    assert config.bus.login == tmp_path / "login.json"
    assert config.releases is not None
    assert config.releases.folder == tmp_path / "releases"
    assert config.pace == 1.0


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "not a configuration"),
        ({}, "bus: Field required"),
        ({**CONFIG, "pase": 2}, "pase"),
        ({**CONFIG, "pace": 0}, "pace"),
        ({"bus": {**CONFIG["bus"], "url": "http://x"}}, "bus.url"),
        ({**CONFIG, "releases": {"folder": "r", "url": "http://x/"}}, "releases.url"),
    ],
)
def test_a_wrong_configuration_names_its_field(content: object, named: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=named):
        load(written(tmp_path, content))


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="cannot be read"):
        load(tmp_path / "missing.json")

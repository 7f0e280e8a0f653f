"""The words for defects, what a misbehaving file says of itself, and that nothing of it is in a healthy release."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import Sha256, Version
from fleet.contracts.time import Duration
from fleet.releases.build import build, running_architecture
from fleet.releases.closure import sources
from fleet.releases.defects import catalogue
from fleet.releases.defects.catalogue import Defect, Misbehaviour
from fleet.releases.defects.wrappers import another
from fleet.releases.faulty import build_faulty, damaged, served_file

ROOT = Path(__file__).parents[3]
HERE, VERSION = running_architecture(), Version("1.2.3")


def about(path: Path) -> dict[str, object]:
    with zipfile.ZipFile(path) as archive:
        found = json.loads(archive.read("site-packages/agent/release.json"))
    assert isinstance(found, dict)
    return found


def inside(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return [name for name in archive.namelist() if name.startswith("site-packages/fleet/releases/")]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    assert catalogue.find("hangs") is Defect.HANGS
    with pytest.raises(InvalidValue, match="did you mean never-heartbeats"):
        catalogue.find("never-heartbeat")
    with pytest.raises(InvalidValue, match="there are: corrupt"):
        catalogue.find("none")


def test_a_time_goes_with_a_defect_that_takes_one() -> None:
    assert Misbehaviour(Defect.EXITS_LATER, Duration.minutes(2)).delay == Duration.minutes(2)
    assert Misbehaviour(Defect.EXITS_LATER).delay == Duration.seconds(20)
    with pytest.raises(InvalidValue, match="hangs takes no time"):
        Misbehaviour(Defect.HANGS, Duration.minutes(2))


def test_every_defect_is_explained() -> None:
    text = (ROOT / "docs" / "reference" / "defects.md").read_text("utf-8")
    assert [defect for defect in Defect if f"| `{defect.value}` | " not in text] == []


def test_damage_is_what_it_is_called() -> None:
    data = bytes(range(256)) * 4
    corrupt = damaged(Defect.CORRUPT, data)
    assert (len(corrupt), corrupt != data) == (len(data), True)
    assert damaged(Defect.TRUNCATED, data) == data[: len(data) // 2]
    assert damaged(Defect.HANGS, data) == data


@pytest.mark.parametrize("digits", ["0" * 64, "1" * 64, "0" * 32 + "1" * 32])
def test_another_sha256_is_another(digits: str) -> None:
    assert another(Sha256(digits)) != digits


def test_the_agent_does_not_reach_a_defect() -> None:
    assert [path for path in sources(ROOT) if "releases" in path.parts] == []
    beside = sources(ROOT, ("fleet.releases.defects.program",))
    assert Path("fleet/releases/defects/service.py") in beside
    assert Path("fleet/releases/build.py") not in beside


@pytest.mark.real
def test_only_a_misbehaving_release_holds_defects_and_says_so(tmp_path: Path) -> None:
    healthy = build(VERSION, HERE, tmp_path / "good")
    assert inside(healthy.path) == []
    assert "defect" not in about(healthy.path)
    bad = build_faulty(VERSION, HERE, tmp_path / "bad", Misbehaviour(Defect.EXITS_LATER, Duration.minutes(2)))
    assert "site-packages/fleet/releases/defects/program.py" in inside(bad.path)
    assert (about(bad.path)["defect"], about(bad.path)["defect-after"]) == ("exits-later", Duration.minutes(2).ns)
    assert bad.release.sha256 != healthy.release.sha256


@pytest.mark.real
def test_a_damaged_release_is_announced_whole(tmp_path: Path) -> None:
    healthy = build(VERSION, HERE, tmp_path / "good")
    built = build_faulty(VERSION, HERE, tmp_path / "bad", Misbehaviour(Defect.TRUNCATED))
    assert (built.release, built.size) == (healthy.release, healthy.size)
    assert served_file(tmp_path / "bad", built.release).read_bytes() == healthy.path.read_bytes()[: healthy.size // 2]


@pytest.mark.real
def test_the_command_warns_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        line = (sys.executable, "-m", "fleet", "release", "build", "1.2.3", "--folder", str(tmp_path), *words)
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)

    done = command("--architecture", HERE.value, "--defect", "hangs")
    assert done.returncode == 0, done.stderr
    assert "MISBEHAVES ON PURPOSE: hangs" in done.stdout
    assert about(tmp_path / f"fleet-agent-v1.2.3-{HERE.value}")["defect"] == "hangs"
    unknown = command("--defect", "hang")
    assert (unknown.returncode, unknown.stderr) == (2, "fleet: there is no defect 'hang': did you mean hangs?\n")
    alone = command("--defect-after", "2m")
    assert alone.returncode == 2
    assert "needs --defect" in alone.stderr

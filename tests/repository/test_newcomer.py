"""What the repository promises to a newcomer: commands that exist, links that lead somewhere, pinned versions."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))
PROSE = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NOT_PINNED = {"libvirt-python"}
"""Compiled against the libvirt of the machine, whose version the project does not choose."""


def tracked() -> list[Path]:
    """The files of the project: those git knows, or all of an unpacked archive."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    if listing.returncode == 0:
        paths = [ROOT / os.fsdecode(name) for name in listing.stdout.split(b"\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not any(part.startswith(".") for part in path.parts)]
    return [path for path in paths if path.is_file()]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as renderers make them."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", head)).strip().lower().replace(" ", "-") for head in heads}


def links(page: Path) -> list[str]:
    found: list[str] = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [link for link in found if not link.startswith(("http://", "https://"))]


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_commands_in_prose_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fenced = "\n".join(re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    named = re.findall(r"`make ([a-z0-9-]+)", text) + re.findall(r"^(?:\$ )?make ([a-z0-9-]+)", fenced, re.MULTILINE)
    assert set(named) <= TARGETS


def test_the_two_commands_of_the_readme_are_there() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^make demo\b", readme, re.MULTILINE)
    assert re.search(r"^make test\b", readme, re.MULTILINE)
    assert {"demo", "test", "check", "bench", "e2e"} <= TARGETS


def test_the_ci_script_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    lines = script.read_text(encoding="utf-8").splitlines()
    assert "make test" in lines
    assert "set -euo pipefail" in lines
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_repository_resolve(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{link}: no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if link[0] != "#"]
    assert set(PROSE) - reached == set()


def test_no_file_names_a_place_of_the_machine_it_was_written_on() -> None:
    here = str(ROOT).encode()
    folders = [rb"/home/[a-z]", rb"/root/", rb"/Users/[a-z]", re.escape(here)]
    pattern = re.compile(b"|".join(folders))
    found = {
        str(path.relative_to(ROOT)): match[0]
        for path in tracked()
        if path != Path(__file__) and (match := pattern.search(path.read_bytes()))
    }
    assert found == {}


def test_the_constraints_are_pins_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!-]+", line) for line in pins)
    assert len({normal(line.partition("==")[0]) for line in pins}) == len(pins)


def test_the_constraints_pin_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = list(project["project"]["dependencies"]) + list(project["build-system"]["requires"])
    wanted += [item for extra in project["project"]["optional-dependencies"].values() for item in extra]
    names = {normal(re.split(r"[\[<>=!~; ]", item)[0]) for item in wanted} - {"harmony-fleet"}
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert names - {normal(line.partition("==")[0]) for line in pinned} == NOT_PINNED


def normal(name: str) -> str:
    """A distribution's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()

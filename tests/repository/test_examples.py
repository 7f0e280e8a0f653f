"""What the documents show works as they say: the tutorial's files parse, run, and end as told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from fleet.__main__ import command as fleet
from fleet.commands import config
from harness.cli import app as twin
from harness.scenario import parse

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial" / "first-scenario.md"
HOW_TO = ROOT / "docs" / "how-to" / "write-a-scenario.md"


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def variants() -> dict[str, str]:
    """The tutorial's file as first written, with the defect put in, and with the checks of the last step."""
    whole, releases, checks = blocks(TUTORIAL)
    broken = re.sub(r"^releases = .*\n", releases, whole, flags=re.MULTILINE)
    return {"whole": whole, "broken": broken, "claimed": broken[: broken.index("[[checks]]")] + checks}


@pytest.mark.parametrize(("variant", "verdict"), [("whole", "Held"), ("broken", "Violated"), ("claimed", "Held")])
def test_the_tutorial_ends_as_told(variant: str, verdict: str, tmp_path: Path) -> None:
    file = tmp_path / "first.toml"
    file.write_text(variants()[variant], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "run", str(file), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    result = json.loads(done.stdout)
    assert result["verdict"] == verdict, result
    assert result["devices"] == 20


@pytest.mark.parametrize("block", blocks(HOW_TO))
def test_the_pieces_of_the_how_to_fit_into_a_scenario(block: str) -> None:
    whole = variants()["whole"]
    parse(f"{whole}\n{block}", Path("how-to.toml")).cast()


def commands(page: Path) -> list[tuple[str, ...]]:
    """The words of every `twin` and `fleet` command that a page shows."""
    fences = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    code = "\n".join(block for language, block in fences if not language).replace("\\\n", " ")
    return [tuple(line.split()) for line in re.findall(r"^.*\.venv/bin/((?:twin|fleet) .*)$", code, re.MULTILINE)]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: str(page.name))
def test_the_commands_in_the_documents_exist_with_their_options(page: Path) -> None:
    roots = {"twin": get_command(twin), "fleet": get_command(fleet)}
    for words in commands(page):
        command, rest = roots[words[0]], list(words[1:])
        while isinstance(command, TyperGroup):
            assert rest[0] in command.commands, f"{' '.join(words)}: there is no {rest[0]!r}"
            command = command.commands[rest.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, " ".join(words)


def test_there_are_commands_to_look_at() -> None:
    assert len([words for page in (ROOT / "docs").rglob("*.md") for words in commands(page)]) > 8


def test_the_configuration_in_the_how_to_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / "build-a-release.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "fleet.json").write_text(shown, encoding="utf-8")
    assert config.load(tmp_path / "fleet.json").releases is not None

"""What the documents show works as they say: the tutorial's files parse, run, and end as told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

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

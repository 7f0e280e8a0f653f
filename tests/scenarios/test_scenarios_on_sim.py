"""Every scenario of the repository, on the virtual world: it holds, and it is the same run in a disturbed process.

The second run differs in everything that must not matter: hash seed, allocator, time zone, working folder. The two
journals are compared by their chain hash; `twin run … --journal FILE` on both shows the first event that differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.scenario import load

ROOT = Path(__file__).parents[2]
SCENARIOS = sorted((ROOT / "scenarios").rglob("*.toml"))
DEVICES = "8"


def run(path: Path, folder: Path, **disturbance: str) -> dict[str, object]:
    command = [sys.executable, "-m", "harness.cli", "run", str(path), "--json", "--seed", "7", "--devices", DEVICES]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | disturbance
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result | {"stderr": done.stderr}


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 8


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_names_the_failure_it_guards_against(path: Path) -> None:
    about = load(path).scenario.scenario
    assert about.name == path.stem
    assert about.guards_against


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_holds_and_is_the_same_run_in_a_disturbed_process(path: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        calm = pool.submit(run, path, ROOT, PYTHONHASHSEED="0", TZ="UTC")
        disturbed = pool.submit(run, path, tmp_path, PYTHONHASHSEED="4242", TZ="Asia/Kathmandu", PYTHONMALLOC="malloc")
    first, second = calm.result(), disturbed.result()
    assert first["verdict"] == "Held", first
    assert first["journal_sha256"] == second["journal_sha256"]
    assert first["events"] == second["events"]
    assert int(str(first["events"])) > 100

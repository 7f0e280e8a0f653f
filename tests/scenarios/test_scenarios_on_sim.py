"""Every scenario of the repository, on the virtual world: it holds, and it is the same run in a disturbed process.

The second run differs in everything that must not matter: hash seed, allocator, time zone, working folder. And it has
a process to itself, while the first one's has carried out other scenarios before. The two journals are compared by
their chain hash; `twin run … --journal FILE` on both shows the first event that differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.cli import Job, perform
from harness.progress import Silent
from harness.scenario import load
from harness.verdict import Held
from harness.workers import worker_pool

ROOT = Path(__file__).parents[2]
SCENARIOS = sorted((ROOT / "scenarios").rglob("*.toml"))
DEVICES = 8
SEED = 7


@pytest.fixture(scope="module")
def calm() -> Iterator[ProcessPoolExecutor]:
    """A process for one run after another: to start one takes longer than most scenarios."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONHASHSEED", "0")
        patch.setenv("TZ", "UTC")
        pool = worker_pool(1)
        pool.submit(os.getpid).result(timeout=60)
    with pool:
        yield pool


def run(path: Path, folder: Path, **disturbance: str) -> dict[str, object]:
    command = [sys.executable, "-m", "harness.cli", "run", str(path), "--json"]
    command += ["--seed", str(SEED), "--devices", str(DEVICES)]
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
def test_holds_and_is_the_same_run_in_a_disturbed_process(
    path: Path, tmp_path: Path, calm: ProcessPoolExecutor
) -> None:
    job = Job(path, "sim", SEED, len(load(path).cast(DEVICES).devices), None)
    with ThreadPoolExecutor(1) as pool:
        disturbed = pool.submit(run, path, tmp_path, PYTHONHASHSEED="4242", TZ="Asia/Kathmandu", PYTHONMALLOC="malloc")
        first = calm.submit(perform, job, Silent()).result(timeout=300)
        second = disturbed.result()
    assert first.verdict == Held(), first.reason
    assert second["verdict"] == "Held", second
    assert first.journal_sha256 == second["journal_sha256"]
    assert first.events == second["events"]
    assert first.events > 100

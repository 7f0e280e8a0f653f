"""Every import contract of pyproject.toml holds for the tree, and each of them breaks when a breach is planted.

A contract whose names do not match anything would be kept for ever; only a planted breach tells.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("fleet", "agent", "sim", "harness")
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")

BREACHES = (
    ("production-is-unchanged", "agent/loop.py", "import sim.kernel"),
    ("production-is-unchanged", "fleet/operator/loop.py", "import harness.faults"),
    ("production-is-unchanged", "fleet/contracts/ids.py", "import simpy"),
    ("contracts-stand-alone", "fleet/contracts/layout.py", "import fleet.capabilities.bus"),
    ("contracts-stand-alone", "fleet/contracts/planted.py", "import agent.paths"),
    ("ports-are-only-ports", "fleet/capabilities/bus.py", "import fleet.operator.ports"),
    ("ports-are-only-ports", "fleet/capabilities/planted.py", "import asyncio"),
    ("agent-is-small", "agent/loop.py", "import fleet.adapters.planted"),
    ("agent-is-small", "agent/planted.py", "import fleet.operator.ports"),
    ("agent-is-small", "agent/__main__.py", "import fleet.releases.build"),
    ("boot-guard-stands-alone", "agent/launcher.py", "import agent.paths"),
    ("boot-guard-stands-alone", "agent/launcher.py", "from fleet.contracts.ids import Version"),
    ("boot-guard-stands-alone", "agent/launcher.py", "import pydantic"),
    *(
        ("brains-are-pure", f"{brain}.py", "import asyncio")
        for brain in (
            "agent/events",
            "agent/upgrade",
            "agent/workloads",
            "fleet/operator/brain",
            "fleet/operator/events",
            "fleet/operator/fleet_state",
            "fleet/operator/handover",
            "fleet/operator/placement",
            "fleet/operator/rollout",
        )
    ),
    ("brains-are-pure", "agent/upgrade.py", "import agent.loop"),
    ("brains-are-pure", "agent/upgrade.py", "from time import monotonic"),
    ("brains-are-pure", "fleet/operator/rollout.py", "import random"),
    ("brains-are-pure", "fleet/operator/rollout.py", "import os"),
    ("brains-name-no-files-and-dates", "agent/upgrade.py", "from pathlib import Path"),
    ("brains-name-no-files-and-dates", "fleet/operator/brain.py", "import datetime"),
    ("operator-knows-ports", "fleet/operator/rollout.py", "import fleet.releases.build"),
    ("operator-knows-ports", "fleet/operator/loop.py", "import agent.ports"),
    ("libraries-stay-in-adapters", "harness/planted.py", "import nats"),
    ("libraries-stay-in-adapters", "agent/linux/planted.py", "import httpx2"),
    ("libraries-stay-in-adapters", "fleet/operator/loop.py", "import kubernetes"),
    ("adapters-know-ports", "fleet/adapters/planted.py", "import fleet.operator.ports"),
    ("adapters-know-ports", "fleet/adapters/planted.py", "import agent.ports"),
    ("adapters-are-chosen-at-the-root", "fleet/operator/planted.py", "import fleet.adapters.planted"),
    ("operator-is-sealed", "fleet/releases/planted.py", "import fleet.operator.ports"),
    ("operator-is-sealed", "harness/planted.py", "import fleet.operator.rollout"),
    ("the-door-is-for-outside", "fleet/operator/planted.py", "from fleet import PodmanScore"),
    ("the-door-is-for-outside", "agent/planted.py", "import fleet"),
    ("web-at-the-edge", "fleet/releases/build.py", "import starlette"),
    ("web-at-the-edge", "fleet/operator/loop.py", "import uvicorn"),
    ("sim-serves-ports", "sim/planted.py", "import agent.paths"),
    ("sim-serves-ports", "sim/planted.py", "import fleet.operator.ports"),
    ("sim-serves-ports", "sim/planted.py", "import harness.faults"),
    ("simpy-in-the-kernel", "sim/loop.py", "import simpy"),
    ("simpy-in-the-kernel", "harness/planted.py", "import simpy"),
)


def lint(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [LINT_IMPORTS, "--no-logo", "--no-cache", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def contract_ids() -> set[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {contract["id"] for contract in settings["tool"]["importlinter"]["contracts"]}


def test_the_tree_keeps_every_contract(tree: Path) -> None:
    done = lint(tree)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Contracts: {len(contract_ids())} kept, 0 broken." in done.stdout


def test_every_contract_has_a_planted_breach() -> None:
    assert {contract for contract, _, _ in BREACHES} == contract_ids()


@pytest.mark.parametrize(
    ("contract", "file", "line"), BREACHES, ids=[f"{contract}: {file}: {line}" for contract, file, line in BREACHES]
)
def test_a_planted_breach_breaks_its_contract(tree: Path, contract: str, file: str, line: str) -> None:
    (tree / "fleet" / "adapters" / "planted.py").touch()
    path = tree / file
    path.write_text((path.read_text(encoding="utf-8") if path.exists() else "") + f"\n{line}\n", encoding="utf-8")
    done = lint(tree, "--contract", contract)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Contracts: 0 kept, 1 broken." in done.stdout


def test_the_architecture_page_names_every_contract() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    assert {name for name in contract_ids() if f"`{name}`" not in page} == set()

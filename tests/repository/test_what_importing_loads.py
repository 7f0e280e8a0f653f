"""Importing the agent loads nothing of the cluster side: a device has neither the memory nor the packages for it.

The import contracts see what is written; this sees what really happens, `__init__` files of parents included.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_ON_A_DEVICE = (
    "fleet.operator",
    "fleet.console",
    "fleet.releases",
    "fleet.scores",
    "fleet.identity",
    "fleet.secrets",
    "fleet.topologies",
    "kubernetes",
    "nacl",
    "starlette",
    "uvicorn",
    "typer",
    "rich",
    "simpy",
    "sim",
    "harness",
)


def loaded_by(*modules: str) -> set[str]:
    program = f"import {', '.join(modules)}, sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


def unwanted(loaded: set[str]) -> set[str]:
    return {name for name in loaded if any(name == root or name.startswith(f"{root}.") for root in NOT_ON_A_DEVICE)}


@pytest.mark.parametrize("modules", [("agent", "agent.loop"), ("agent.linux", "agent.__main__")])
def test_the_agent_loads_nothing_of_the_cluster_side(modules: tuple[str, ...]) -> None:
    loaded = loaded_by(*modules)
    assert set(modules) <= loaded
    assert unwanted(loaded) == set()


def test_the_check_sees_what_it_looks_for() -> None:
    assert unwanted(loaded_by("agent.loop", "fleet.operator.loop")) >= {"fleet.operator", "fleet.operator.loop"}


def test_the_boot_guard_starts_with_the_standard_library_alone(tmp_path: Path) -> None:
    """It is one file on the device, with nothing beside it: isolated, and without third-party packages."""
    (tmp_path / "launcher.py").write_bytes((ROOT / "agent" / "launcher.py").read_bytes())
    program = "import sys; sys.path.insert(0, sys.argv[1]); import launcher; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    roots = {name.partition(".")[0] for name in done.stdout.split()}
    assert roots - set(sys.stdlib_module_names) <= {"__main__", "launcher"}

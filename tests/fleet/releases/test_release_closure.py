"""The set of files that go into a release is what the agent's imports reach, no less and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.releases.closure import sources

ROOT = Path(__file__).parents[3]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    files = {
        "agent/__init__.py": "",
        "agent/loop.py": "from fleet.contracts.ids import Name\n\ndef late():\n    import fleet.adapters.clock\n",
        "agent/data.json": "{}",
        "agent/__pycache__/loop.cpython-311.pyc": "",
        "fleet/__init__.py": "from fleet import facade",
        "fleet/facade.py": "from .scores import Score\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from fleet.operator import loop\nelse:\n    import fleet.otherwise\n",
        "fleet/scores/__init__.py": "from . import plain as p\nScore = 1",
        "fleet/scores/plain.py": "from ..contracts import ids",
        "fleet/otherwise.py": "",
        "fleet/contracts/__init__.py": "",
        "fleet/contracts/ids.py": "import pydantic.main, fleet.contracts.errors\n",
        "fleet/contracts/errors.py": "",
        "fleet/contracts/unused.py": "",
        "fleet/adapters/__init__.py": "",
        "fleet/adapters/clock.py": "",
        "fleet/adapters/kubernetes.py": "",
        "fleet/operator/__init__.py": "",
        "fleet/operator/loop.py": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_everything_of_agent_and_what_it_reaches_of_fleet(tree: Path) -> None:
    assert [str(path) for path in sources(tree)] == [
        "agent/__init__.py",
        "agent/data.json",
        "agent/loop.py",
        "fleet/__init__.py",
        "fleet/adapters/__init__.py",
        "fleet/adapters/clock.py",
        "fleet/contracts/__init__.py",
        "fleet/contracts/errors.py",
        "fleet/contracts/ids.py",
        "fleet/facade.py",
        "fleet/otherwise.py",
        "fleet/scores/__init__.py",
        "fleet/scores/plain.py",
    ]


def test_the_real_agent_takes_nothing_of_the_control_plane_with_it() -> None:
    names = {str(path) for path in sources(ROOT)}
    assert {"agent/__init__.py", "fleet/__init__.py", "fleet/contracts/layout.py"} <= names
    forbidden = ("fleet/operator/", "fleet/console/", "fleet/releases/", "fleet/topologies/", "fleet/__main__.py")
    assert [name for name in sorted(names) if name.startswith(forbidden)] == []

"""What a machine says of itself, present, padded or missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.linux.facts import read_facts
from fleet.contracts.errors import NotFound


def machine(root: Path) -> Path:
    for name, text in {
        "etc/machine-id": "0123abcd\n",
        "proc/sys/kernel/random/boot_id": "516f51f3-227e-4cce-95d6-06440c91dde3\n",
        "etc/os-release": 'NAME="X"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_all_there(tmp_path: Path) -> None:
    facts = read_facts(machine(tmp_path))
    assert facts.machine_id == "0123abcd"
    assert facts.boot == "516f51f3-227e-4cce-95d6-06440c91dde3"
    assert facts.operating_system == "Debian GNU/Linux 12"
    assert facts.hardware == "Raspberry Pi 4 Model B Rev 1.4"


def test_what_is_only_for_people_may_be_missing(tmp_path: Path) -> None:
    machine(tmp_path)
    (tmp_path / "etc/os-release").unlink()
    (tmp_path / "proc/device-tree/model").unlink()
    facts = read_facts(tmp_path)
    assert facts.operating_system.startswith("Linux ")
    assert facts.hardware


@pytest.mark.parametrize("name", ["etc/machine-id", "proc/sys/kernel/random/boot_id"])
def test_what_tells_machines_and_boots_apart_must_not(tmp_path: Path, name: str) -> None:
    (machine(tmp_path) / name).write_text("\n")
    with pytest.raises(NotFound):
        read_facts(tmp_path)

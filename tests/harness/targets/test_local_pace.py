"""A run on real parts goes as fast as the machine has room for; a slow processor is slow in the scenario's time."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.contracts.errors import Unavailable
from harness.targets.local_cpu import LEAST, beyond
from harness.targets.local_pace import FASTEST_BY_ITSELF, ROOM, SLOWEST_BY_ITSELF, fitting, measured


def test_an_idle_machine_has_room_for_the_usual_pace_and_a_busy_one_for_less() -> None:
    assert fitting(0.5) == FASTEST_BY_ITSELF
    assert fitting(ROOM / 5) == 5
    assert fitting(1000) == SLOWEST_BY_ITSELF


def test_starting_is_measured_on_the_file_itself(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("import os, time\nassert os.environ['SHIV_ROOT']\ntime.sleep(0.3)\n")
    assert 0.3 <= measured(slow) < 60
    slow.write_text("raise SystemExit(1)\n")
    with pytest.raises(Unavailable, match="slow cannot be started"):
        measured(slow)


@pytest.mark.parametrize(("factor", "pace", "missing"), [(8, 1.0, 8), (8, 4.0, 2), (9, 4.0, 3), (8, 10.0, LEAST)])
def test_the_pace_is_a_part_of_a_slow_processor(factor: int, pace: float, missing: int) -> None:
    assert beyond(factor, pace) == missing

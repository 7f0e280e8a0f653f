"""How fast a run on real parts may go on this machine, as busy as it is now.

A pace makes every timer faster and no program: at pace 10 a release has 12 seconds for the two minutes of its
self-test, most of which unpacking and starting it may take where others use the machine, too. What that takes is
measured once, at the beginning of a run, on a release of that run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from fleet.adapters.clock import WallClock
from fleet.contracts.errors import Unavailable
from fleet.contracts.time import Duration

FASTEST_BY_ITSELF: Final = 10.0
SLOWEST_BY_ITSELF: Final = 2.0
"""At a slower pace a run takes longer than anybody waits: the machine has to become quieter first."""
ROOM: Final = 40.0
"""Seconds of a run that a first start may take: a third of the time limit of a self-test, the shortest that starting a
release has to keep. The rest is for other devices of the run that do the same, and for a machine that gets busier."""
_LONGEST: Final = 120.0


def measured(release: Path) -> float:
    """Unpack and start a release file once; the real seconds it took. Raises: Unavailable when it does not start."""
    with tempfile.TemporaryDirectory(prefix="fleet-pace-") as folder:
        clock = WallClock()
        began = clock.monotonic()
        command = (sys.executable, str(release), "--version")
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_LONGEST, env={"SHIV_ROOT": folder})
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"{release.name} cannot be started on this machine: {error}") from error
        return Duration(clock.monotonic() - began).in_seconds


def fitting(start: float) -> float:
    """The pace at which a first start that takes so many real seconds has room."""
    return min(FASTEST_BY_ITSELF, max(SLOWEST_BY_ITSELF, round(ROOM / start, 1)))

"""Programs are run to their end, and nothing of them is left."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path, PurePosixPath

import pytest

from agent.linux.programs import LinuxPrograms
from fleet.capabilities.clock import Clock
from fleet.capabilities.host import Exited, NotStartable, Overran, ProgramEnd
from fleet.contracts.time import Duration

LONG = Duration.seconds(20)
PROGRAM = PurePosixPath("/usr/bin/program")


def run(root: Path, clock: Clock, script: str | None, deadline: Duration = LONG, mode: int = 0o755) -> ProgramEnd:
    at = root / "usr/bin/program"
    at.parent.mkdir(parents=True, exist_ok=True)
    if script is not None:
        at.write_text(script)
        at.chmod(mode)
    programs = LinuxPrograms(root, {"PATH": "/usr/bin:/bin", "MARK": "here"}, clock)
    return asyncio.run(programs.run(PROGRAM, ("one", "two three"), deadline))


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_code_output_arguments_and_environment(tmp_path: Path, clock: Clock) -> None:
    end = run(tmp_path, clock, '#!/bin/sh\necho "$1|$2|$MARK"; echo noise >&2; exit 3\n')
    assert end == Exited(3, b"one|two three|here\n")


def test_a_program_that_a_signal_ends(tmp_path: Path, clock: Clock) -> None:
    assert run(tmp_path, clock, "#!/bin/sh\nkill -9 $$\n") == Exited(-9, b"")


def test_output_is_cut_and_does_not_block_the_program(tmp_path: Path, clock: Clock) -> None:
    end = run(tmp_path, clock, "#!/bin/sh\nhead -c 1000000 /dev/zero; exit 0\n")
    assert end == Exited(0, bytes(64 * 1024))


def test_past_the_deadline_the_program_and_its_children_are_killed(tmp_path: Path, clock: Clock) -> None:
    script = f"#!/bin/sh\nsleep 300 &\necho $! > {tmp_path}/pid\nwait\n"
    started = time.monotonic()
    assert run(tmp_path, clock, script, Duration.millis(500)) == Overran()
    assert time.monotonic() - started < 5
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_child_that_holds_the_output_open_does_not_hold_the_caller(tmp_path: Path, clock: Clock) -> None:
    script = f"#!/bin/sh\nsleep 300 &\necho $! > {tmp_path}/pid\necho done\n"
    assert run(tmp_path, clock, script) == Exited(0, b"done\n")
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("script", "mode"), [(None, 0), ("#!/bin/sh\n", 0o644), ("#!/no/such/interpreter\n", 0o755), ("\x7fELFjunk", 0o755)]
)
def test_what_cannot_be_started(tmp_path: Path, clock: Clock, script: str | None, mode: int) -> None:
    assert isinstance(run(tmp_path, clock, script, mode=mode), NotStartable)

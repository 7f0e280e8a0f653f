"""What `systemctl show` says, read into the states that the port knows."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.linux.systemd import Systemd, parse_state
from fleet.capabilities.host import Failing, Running, Stopped, UnitState
from fleet.contracts.errors import Refused, Unavailable
from fleet.contracts.ids import Slot


def shown(active: str, sub: str, restarts: int) -> str:
    return f"NRestarts={restarts}\nResult=success\nExecMainStatus=0\nActiveState={active}\nSubState={sub}\n"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (shown("inactive", "dead", 0), Stopped()),
        (shown("active", "running", 0), Running()),
        (shown("active", "running", 3), Running()),
        (shown("activating", "start", 0), Running()),
        (shown("deactivating", "stop-sigterm", 0), Running()),
        (shown("activating", "auto-restart", 0), Failing(1, gave_up=False)),
        (shown("activating", "auto-restart-queued", 2), Failing(3, gave_up=False)),
        (shown("failed", "failed", 5), Failing(5, gave_up=True)),
        (shown("failed", "failed", 0), Failing(1, gave_up=True)),
    ],
)
def test_states(text: str, state: UnitState) -> None:
    assert parse_state(text) == state


@pytest.mark.parametrize("text", ["", "ActiveState=active\n", "ActiveState=active\nSubState=running\nNRestarts=many\n"])
def test_another_answer_is_an_error(text: str) -> None:
    with pytest.raises(Unavailable):
        parse_state(text)


def tool(folder: Path, script: str) -> dict[str, str]:
    """An environment whose `systemctl` is a shell script."""
    (folder / "systemctl").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "systemctl").chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin"}


def test_a_start_that_is_refused_tells_the_last_line(tmp_path: Path) -> None:
    environment = tool(tmp_path, "echo noise >&2; echo 'Start request repeated too quickly.' >&2; exit 1")
    with pytest.raises(Refused, match=r"fleet-agent@b\.service .* too quickly"):
        asyncio.run(Systemd(environment).start(Slot.B))


def test_stopping_resets_the_failures_and_bears_a_unit_that_is_not_loaded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = tool(tmp_path, f'echo "$@" >> {log}; [ "$1" = stop ] || {{ echo "Unit not loaded." >&2; exit 1; }}')
    asyncio.run(Systemd(environment).stop(Slot.B))
    assert log.read_text().splitlines() == ["stop fleet-agent@b.service", "reset-failed fleet-agent@b.service"]


def test_a_missing_tool_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="systemctl cannot be started"):
        asyncio.run(Systemd({"PATH": str(tmp_path)}).state(Slot.A))

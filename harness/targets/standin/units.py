"""The two agent units of one device, under the promises of `fleet-agent@.service`, with every interval paced.

Standard library only. Two real times cannot be paced, because no pace makes an interpreter start or end sooner:
the window of the start limit is longer by what five starts take, and the grace of a stop has a floor.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.targets.standin.children import Children

RESTART_AFTER = 5.0
START_LIMIT = 5
START_WINDOW = 60.0
STOP_GRACE = 10.0
START_ALLOWANCE = 2.0
"""Real seconds that one start may take."""
GRACE_FLOOR = 2.0
"""Real seconds that a program always has to end by itself."""
CLEAN = frozenset({0, -signal.SIGHUP, -signal.SIGINT, -signal.SIGPIPE, -signal.SIGTERM})
LAUNCHER = "usr/local/lib/fleet-agent/launcher.py"


class Refused(Exception):
    """The service manager says no."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a unit needs to know of its device."""

    root: Path
    python: str
    pace: float
    environment: dict[str, str]
    report: Callable[..., None]


class Unit:
    """One slot. `active` and `sub` are systemd's words for where it stands."""

    def __init__(self, slot: str, plan: Plan, children: Children) -> None:
        self.slot = slot
        self.active, self.sub = "inactive", "dead"
        self.restarts = 0
        self.result = "success"
        self.status = 0
        self.pid: int | None = None
        self._plan = plan
        self._children = children
        self._starts: list[float] = []
        self._timer: asyncio.TimerHandle | None = None
        self._again = False
        self._gone = asyncio.Event()

    def start(self) -> None:
        """Raises: Refused when the start limit is hit or the program cannot be started."""
        if self.active == "deactivating":
            self._again = True
        elif self.active in ("inactive", "failed"):
            self.restarts = 0
            self._begin()

    async def stop(self) -> None:
        """Terminate, kill after the grace, return when it is gone."""
        self._again = False
        if self.sub == "auto-restart":
            self._cancel()
        if self.pid is None:
            self._set("failed" if self.active == "failed" else "inactive")
            return
        if self.active != "deactivating":
            self._set("deactivating")
            self._children.signal(self.pid, signal.SIGTERM)
            grace = max(STOP_GRACE / self._plan.pace, GRACE_FLOOR)
            self._timer = asyncio.get_running_loop().call_later(grace, self._overstayed)
        await self._gone.wait()

    def reset_failed(self) -> None:
        """Forget failures and starts."""
        self._starts.clear()
        self.restarts = 0
        self.result = "success"
        if self.active == "failed":
            self._set("inactive")

    def kill(self) -> None:
        """kill -9 of the main process. Raises: Refused when there is none."""
        if self.pid is None:
            raise Refused(f"slot {self.slot} has no process")
        self._children.signal(self.pid, signal.SIGKILL)

    def _set(self, active: str) -> None:
        subs = {"active": "running", "deactivating": "stop-sigterm", "activating": "auto-restart", "failed": "failed"}
        self.active, self.sub = active, subs.get(active, "dead")

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        now = asyncio.get_running_loop().time()
        window = START_WINDOW / self._plan.pace + START_LIMIT * START_ALLOWANCE
        self._starts = [start for start in self._starts if start > now - window]
        if len(self._starts) >= START_LIMIT:
            self._set("failed")
            raise Refused(f"fleet-agent@{self.slot}.service: Start request repeated too quickly.")
        self._starts.append(now)
        root = self._plan.root
        try:
            self.pid = self._children.start(
                (self._plan.python, str(root / LAUNCHER), self.slot),
                self._plan.environment | {"FLEET_SLOT": self.slot},
                root,
                root / f"var/log/agent-{self.slot}.log",
                self._ended,
            )
        except OSError as error:
            self.result = "exec"
            self._set("failed")
            raise Refused(f"fleet-agent@{self.slot}.service: {error}") from error
        self.result = "success"
        self._gone.clear()
        self._set("active")
        self._plan.report("unit-started", slot=self.slot, pid=self.pid)

    def _overstayed(self) -> None:
        self.result = "timeout"
        if self.pid is not None:
            self._children.signal(self.pid, signal.SIGKILL)

    def _ended(self, code: int) -> None:
        assert self.pid is not None
        pid, self.pid = self.pid, None
        self._children.kill_group(pid)
        self._children.kill_orphans()
        self._cancel()
        self.status = abs(code)
        self._plan.report("unit-ended", slot=self.slot, pid=pid, code=code)
        if self.active == "deactivating":
            self._set("failed" if self.result == "timeout" else "inactive")
            self._gone.set()
            if self._again:
                self._begin_again()
        elif code in CLEAN:
            self._set("inactive")
        else:
            self.result = "signal" if code < 0 else "exit-code"
            self._set("activating")
            self._timer = asyncio.get_running_loop().call_later(RESTART_AFTER / self._plan.pace, self._restart)

    def _restart(self) -> None:
        self._timer = None
        self.restarts += 1
        self._begin_again()

    def _begin_again(self) -> None:
        try:
            self._begin()
        except Refused:
            return  # The unit is left as failed, which is what it shows from now on.

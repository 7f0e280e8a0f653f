"""The production operator as child processes, each kept up as a Kubernetes Deployment would."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fleet.capabilities.clock import Clock
from fleet.contracts.errors import NotFound
from fleet.contracts.time import Duration
from harness.targets.local_process import Child
from sim.journal import Journal, OperatorEnded, OperatorStarted

BACK_OFF: Final = Duration.seconds(10)
"""A container that ended by itself is started again after this: the kubelet's first back-off, as it documents it."""
_GRACE: Final = Duration.seconds(30)
"""In real time: what Kubernetes leaves a container between SIGTERM and SIGKILL unless it is told otherwise."""


def operator_name(replica: int) -> str:
    """What a replica is called: on the bus, in the lease, and by its files."""
    return f"operator-{replica}"


class LocalOperator:
    """One replica.

    Args:
        replica: its number.
        port: where it serves releases.
        program: its command line; the first word is an absolute path.
        clock: the run's. Its pace is also that of the operator.
        real: not paced, for how long an end may take.
    """

    def __init__(
        self,
        replica: int,
        port: int,
        program: tuple[str, ...],
        log: Path,
        environment: Mapping[str, str],
        journal: Journal,
        clock: Clock,
        real: Clock,
    ) -> None:
        self.replica = replica
        self.port = port
        self._program = program
        self._frozen = False
        self._log = log
        self._environment = environment
        self._journal = journal
        self._clock = clock
        self._real = real
        self._child: Child | None = None
        self._wanted = asyncio.Event()
        self._gone = asyncio.Event()

    def start(self) -> None:
        """Let `keep` start it. Nothing happens when it runs."""
        self._wanted.set()

    async def kill(self) -> None:
        """kill -9. It stays down until `start`. Raises: NotFound when it does not run."""
        if self._child is None:
            raise NotFound("no operator runs")
        self._wanted.clear()
        self._child.kill()
        await self._gone.wait()

    async def stop(self) -> None:
        """SIGTERM, and kill -9 where that is not enough. It stays down until `start`. Raises: NotFound as `kill`."""
        if self._child is None:
            raise NotFound("no operator runs")
        self._wanted.clear()
        await self._child.stop(self._real, _GRACE)
        await self._gone.wait()

    @property
    def serves(self) -> bool:
        """It runs, and is not frozen: a cluster would send requests for releases to it."""
        return self._child is not None and not self._frozen

    def freeze(self) -> None:
        """SIGSTOP: not one line of it runs until `thaw`. Raises: NotFound as `kill`."""
        if self._child is None:
            raise NotFound("no operator runs")
        self._frozen = True
        os.kill(self._child.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on where it was. Nothing happens when it is not frozen."""
        if self._frozen and self._child is not None and self._child.alive:
            os.kill(self._child.pid, signal.SIGCONT)
        self._frozen = False

    async def keep(self) -> None:
        """Run it for as long as it is wanted, until cancelled; then it is ended in order."""
        try:
            while True:
                await self._wanted.wait()
                await self._run_once()
                if self._wanted.is_set():
                    await self._clock.sleep(BACK_OFF)
        finally:
            if self._child is not None:
                self.thaw()
                await self._child.stop(self._real, _GRACE)

    async def _run_once(self) -> None:
        self._child = await Child.start(self._program, self._log, self._environment)
        self._gone.clear()
        self._journal.record(OperatorStarted(self._clock.monotonic(), self.replica))
        code = await self._child.wait()
        self._child, self._frozen = None, False
        self._journal.record(OperatorEnded(self._clock.monotonic(), self.replica, code))
        self._gone.set()

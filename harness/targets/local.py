"""Real parts on one machine as a target: a real nats-server, the operator as a process, agents as built releases.

Devices are root folders with a stand-in for systemd and Podman. Time is wall time; one pace makes every timer of the
system and of the scenario faster. What no pace makes faster (starting an interpreter, hashing a file) bounds the pace.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from fleet.contracts.ids import Version
from fleet.releases.build import BuiltRelease
from harness.faults import Fault, Partition
from harness.targets.local_parts import RunFolder
from harness.targets.local_releases import build_all
from harness.targets.local_session import LocalSession
from harness.targets.port import FleetPlan, Session

T = TypeVar("T")

PACE: Final = 10.0


class LocalTarget:
    """Devices, operator and bus as processes of this machine.

    Args:
        pace: how many times faster than real all timers run.
        keep: leave the folder of each run where it is; its place is in the note of an error.
    """

    name = "local"
    default_devices: int | None = 5

    def __init__(self, pace: float = PACE, keep: bool = False) -> None:
        self._pace = pace
        self._keep = keep

    @property
    def cannot(self) -> dict[type[Fault], str]:
        """See `Target.cannot`."""
        return {Partition: "all devices share this machine's loopback: cutting one link needs network namespaces"}

    def run(self, plan: FleetPlan, seed: int, main: Callable[[Session], Awaitable[T]]) -> T:
        """See `Target.run`. The seed decides nothing here: the world is real."""
        folder = RunFolder(Path(tempfile.mkdtemp(prefix="fleet-local-")))
        try:
            releases = build_all(plan.releases, folder.releases)
            with asyncio.Runner() as runner:
                return runner.run(self._within(plan, releases, folder, main))
        except BaseException as error:
            error.add_note(folder.last_words())
            if self._keep:
                error.add_note(f"kept: {folder.path}")
            raise
        finally:
            if not self._keep:
                shutil.rmtree(folder.path)

    async def _within(
        self,
        plan: FleetPlan,
        releases: dict[Version, BuiltRelease],
        folder: RunFolder,
        main: Callable[[Session], Awaitable[T]],
    ) -> T:
        _terminate_in_order()
        async with LocalSession(plan, releases, folder, self._pace) as session:
            running = asyncio.ensure_future(main(session))
            failed = asyncio.ensure_future(session.failed())
            try:
                await asyncio.wait((running, failed), return_when=asyncio.FIRST_COMPLETED)
                if not running.done():
                    failed.result()
                return running.result()
            finally:
                for task in (running, failed):
                    task.cancel()
                await asyncio.wait((running, failed))


def _terminate_in_order() -> None:
    """Let SIGTERM end the run as Ctrl-C does: everything is torn down."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def target() -> LocalTarget:
    """See `harness.targets.registry`."""
    return LocalTarget()

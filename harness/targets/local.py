"""Real parts on one machine as a target: a real nats-server, the operator as a process, agents as built releases.

Devices are root folders with a stand-in for systemd and Podman. Time is wall time; one pace makes every timer of the
system and of the scenario faster. What no pace makes faster (starting an interpreter, hashing a file) bounds the pace.
A power cut ends all processes of a device at once; it loses nothing that was written and not synced, which only a
virtual disk or a virtual machine can show.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import Version
from fleet.releases.build import BuiltRelease
from harness.faults import Fault
from harness.targets.local_faults import cannot
from harness.targets.local_identities import engine
from harness.targets.local_pace import FASTEST_BY_ITSELF, fitting, measured
from harness.targets.local_parts import RunFolder
from harness.targets.local_releases import build_all
from harness.targets.local_session import LocalSession
from harness.targets.port import FleetPlan, Need, Session

T = TypeVar("T")

FASTEST: Final = 100.0
"""Beyond, starting an interpreter takes longer than the deadlines of an upgrade."""


class LocalTarget:
    """Devices, operator and bus as processes of this machine.

    Args:
        pace: how many times faster than real all timers run; None for what this machine has room for just now.
        keep: leave the folder of each run where it is, with all logs, and say on standard error where that is.
    """

    name = "local"
    default_devices: int | None = 5

    def __init__(self, pace: float | None = None, keep: bool = False) -> None:
        self._pace = pace
        self._keep = keep

    @property
    def cannot(self) -> dict[type[Fault], str]:
        """See `Target.cannot`."""
        return cannot()

    @property
    def lacks(self) -> dict[Need, str]:
        """See `Target.lacks`."""
        lacks = {
            Need.TIME_OF_DAY: "its run begins at whatever time it is",
            Need.TOKENS_THAT_END: "its provider is not paced, and its tokens last for hours",
        }
        if os.geteuid() != 0:
            lacks[Need.OTHER_OWNERS] = "only the superuser can give files away"
        if engine() is None:
            lacks[Need.IDENTITIES] = "neither stand-in for the identity provider can run on this machine"
        return lacks

    def run(self, plan: FleetPlan, seed: int, main: Callable[[Session], Awaitable[T]]) -> T:
        """See `Target.run`. The seed decides nothing here: the world is real."""
        folder = RunFolder(Path(tempfile.mkdtemp(prefix="fleet-local-")))
        try:
            releases = build_all(plan.releases, folder.releases)
            pace = self._pace or _chosen(releases[plan.installed])
            with asyncio.Runner() as runner:
                return runner.run(self._within(plan, releases, folder, pace, main))
        except BaseException as error:
            error.add_note(folder.last_words())
            raise
        finally:
            if self._keep:
                print(f"the run's folder is kept: {folder.path}", file=sys.stderr)
            else:
                folder.remove()

    async def _within(
        self,
        plan: FleetPlan,
        releases: dict[Version, BuiltRelease],
        folder: RunFolder,
        pace: float,
        main: Callable[[Session], Awaitable[T]],
    ) -> T:
        _terminate_in_order()
        async with LocalSession(plan, releases, folder, pace) as session:
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


def _chosen(first: BuiltRelease) -> float:
    """What this machine has room for; said where it is slower than usual, because the run takes longer then."""
    start = measured(first.path)
    pace = fitting(start)
    if pace < FASTEST_BY_ITSELF:
        print(f"a first start takes {start:.1f} s on this machine now: this run goes at pace {pace:g}", file=sys.stderr)
    return pace


def _terminate_in_order() -> None:
    """Let SIGTERM end the run as Ctrl-C does: everything is torn down."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def target() -> LocalTarget:
    """See `harness.targets.registry`. `TWIN_LOCAL_PACE` sets another pace, `TWIN_LOCAL_KEEP=1` keeps the run's folder.

    Raises:
        InvalidValue: one of them cannot be read.
    """
    return LocalTarget(_pace(os.environ.get("TWIN_LOCAL_PACE", "")), _keep(os.environ.get("TWIN_LOCAL_KEEP", "")))


def _pace(text: str) -> float | None:
    if not text:
        return None
    try:
        pace = float(text)
    except ValueError:
        pace = 0.0
    if not 0 < pace <= FASTEST:
        raise InvalidValue(f"TWIN_LOCAL_PACE is {text!r}: use a number above 0, {FASTEST:g} at most")
    return pace


def _keep(text: str) -> bool:
    if text not in ("", "0", "1"):
        raise InvalidValue(f"TWIN_LOCAL_KEEP is {text!r}: use 1 or 0")
    return text == "1"

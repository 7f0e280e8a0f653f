"""What the tests of the local target share: a fleet of one or two devices, and everything seen in its run."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from fleet.contracts.ids import DeviceId, Version
from fleet.contracts.objects import Device, DevicePhase
from fleet.contracts.time import Duration
from harness.releases import ReleasePlan
from harness.targets.local import LocalTarget
from harness.targets.port import FleetPlan, Session
from sim.journal import Event

FIRST = Version("1.0.0")
DEVICES = (DeviceId("dev-1"), DeviceId("dev-2"))
PLAN = FleetPlan(DEVICES, ({"rack": "a"}, {"rack": "b"}), (ReleasePlan(FIRST),), FIRST)
ONE = FleetPlan(DEVICES[:1], ({},), (ReleasePlan(FIRST),), FIRST)
LONG = Duration.minutes(15)
"""On the run's own clock: far more than anything here takes on a busy machine."""


def processes(place: Path) -> list[str]:
    """The processes that have to do with a folder: it stands in their command line or environment."""
    mark, found = os.fsencode(place), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                told = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue
            if any(mark in text for text in told):
                found.append(told[0].decode(errors="replace"))
    return found


def children() -> list[str]:
    """The children of this process, zombies included."""
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()


async def until(session: Session, condition: Callable[[], bool]) -> None:
    async with session.clock.timeout(LONG):
        while not condition():
            await session.settle()
            await session.clock.sleep(Duration.seconds(1))


async def ready(session: Session) -> None:
    async with session.clock.timeout(LONG):
        while True:
            listed = await session.objects.list(Device)
            if [item.status.phase for item in listed.items] == [DevicePhase.READY] * len(listed.items):
                return
            await session.clock.sleep(Duration.seconds(1))


class Seen(list[Event]):
    """The events of a run, in order."""

    def of(self, *kinds: type[Event]) -> list[Event]:
        return [event for event in self if isinstance(event, kinds)]


def run(plan: FleetPlan, main: Callable[[Session], Awaitable[None]]) -> Seen:
    seen = Seen()

    async def observed(session: Session) -> None:
        session.journal.subscribe_all(seen.append)
        await main(session)

    LocalTarget().run(plan, 1, observed)
    return seen

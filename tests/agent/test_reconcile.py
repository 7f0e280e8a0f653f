"""The hands of workload reconciliation, over a container engine in memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

from agent.desired import Desired
from agent.ports import AgentTimings
from agent.reconcile import Reconciler, Workshop
from agent.reports import Reports
from agent.store import Store
from agent.workloads import Wanted, fingerprint
from fleet.capabilities.containers import ContainerFact, Containers
from fleet.contracts.ids import AttemptId, DeploymentName, DeviceId, Revision
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.records import DesiredWorkload
from fleet.contracts.time import Duration
from sim.clock import SimClock
from sim.disk import DiskImage, SimDisk
from sim.world import World

DEVICE, WEB, FRONT = DeviceId("dev-1"), DeploymentName("web"), DeploymentName("front")
CONTAINER = Container(name=FRONT, image="i:1")


@dataclass
class Known:
    """What is desired, as `agent.desired` tells it."""

    known: bool = False
    read_once: bool = False
    workloads: dict[DeploymentName, Wanted] = field(default_factory=dict)


@dataclass
class Engine:
    """One container runs."""

    removed: list[DeploymentName] = field(default_factory=list)

    async def present(self) -> tuple[ContainerFact, ...]:
        return (ContainerFact(WEB, FRONT, "i:1", fingerprint(CONTAINER), running=True),)

    async def remove(self, deployment: DeploymentName, name: DeploymentName) -> None:
        self.removed.append(name)


class Unsent:
    """Reports that go nowhere."""

    def want(self, record: object) -> None:
        pass


class Alive:
    alive = True


def test_a_drain_that_begins_before_anything_is_known_removes_nothing() -> None:
    """The workloads' file was unreadable and the bus had not answered yet: nothing is known, not even "nothing"."""

    async def story() -> tuple[str, list[DeploymentName]]:
        clock, known, engine = SimClock(world.loop), Known(), Engine()
        store = Store(SimDisk(DiskImage(), Alive()))
        shop = Workshop(DEVICE, cast(Containers, engine), clock, AgentTimings(), store, cast(Reports, Unsent()))
        reconciler = Reconciler(shop, cast(Desired, known), None)
        reconciler.manage()
        running = asyncio.ensure_future(reconciler.run())
        draining = asyncio.ensure_future(reconciler.drain(AttemptId("a-1"), Duration.minutes(2)))
        await clock.sleep(Duration.seconds(3))
        desired = DesiredWorkload(device=DEVICE, deployment=WEB, score=PodmanScore(containers=(CONTAINER,)))
        known.workloads[WEB], known.known = Wanted(desired, Revision(1)), True
        reconciler.kick()
        answer = await draining
        running.cancel()
        return answer, engine.removed

    with World(1) as world:
        assert world.run(story()) == ("", [])

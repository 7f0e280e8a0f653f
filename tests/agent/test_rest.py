"""Rest has an owner, a deadline, and an exact end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from agent.desired import Desired
from agent.ports import AgentTimings
from agent.reconcile import Reconciler, Workshop
from agent.reports import Reports
from agent.store import KeptWorkload, KeptWorkloads, Store
from agent.workloads import fingerprint
from fleet.capabilities.containers import ContainerFact
from fleet.contracts.errors import Unavailable
from fleet.contracts.ids import AttemptId, DeploymentName, DeviceId, Revision
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.records import DesiredWorkload
from fleet.contracts.time import Duration, Instant
from sim.disk import DiskImage, SimDisk

T = TypeVar("T")
PI, WEB = DeviceId("dev-1"), DeploymentName("web")
A1, A2 = AttemptId("a-1"), AttemptId("a-2")
BOX = Container(name=DeploymentName("front"), image="x:1")


class Clock:
    """Two loop turns are a second, and a deadline is a number of them."""

    def wall(self) -> Instant:
        return Instant(0)

    def monotonic(self) -> Instant:
        return Instant(0)

    async def sleep(self, length: Duration) -> None:
        await asyncio.sleep(0.001)

    def timeout(self, length: Duration) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(0.2)


class Engine:
    """One container, which somebody can stop; or silence."""

    def __init__(self) -> None:
        self.silent = False
        self.running = True
        self.starts = 0

    async def present(self) -> tuple[ContainerFact, ...]:
        if self.silent:
            raise Unavailable("silence")
        return (ContainerFact(WEB, BOX.name, BOX.image, fingerprint(BOX), self.running),)

    async def pull(self, image: str) -> None:
        raise AssertionError("it is there")

    async def run(self, deployment: DeploymentName, container: Container, fingerprint: str) -> None:
        raise AssertionError("it is there")

    async def start(self, deployment: DeploymentName, name: DeploymentName) -> None:
        self.starts += 1
        self.running = True

    async def remove(self, deployment: DeploymentName, name: DeploymentName) -> None:
        raise AssertionError("it is desired")


class Alive:
    """A process that lives."""

    alive = True


class Bus:
    """Nobody is there."""

    def listen(self, *_: object) -> None:
        """Never calls."""

    def on_session(self, *_: object) -> None:
        """Never calls."""


class Listener:
    """Nobody cares."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any method of the protocol
        return lambda *_: None


@asynccontextmanager
async def at_work(engine: Engine) -> AsyncIterator[Reconciler]:
    """A reconciler that manages one healthy workload."""
    bus: Any = Bus()
    clock = Clock()
    desired = DesiredWorkload(device=PI, deployment=WEB, score=PodmanScore(containers=(BOX,)))
    kept = KeptWorkloads(workloads=(KeptWorkload(revision=Revision(4), desired=desired),))
    store = Store(SimDisk(DiskImage(), Alive()))
    shop = Workshop(PI, engine, clock, AgentTimings(), store, Reports(bus, clock, Duration.seconds(5)))
    reconciler = Reconciler(shop, Desired(PI, bus, Listener(), kept), kept)
    task = asyncio.ensure_future(reconciler.run())
    reconciler.manage()
    await passed()
    assert reconciler.counts() == (1, 1)
    try:
        yield reconciler
    finally:
        task.cancel()


async def passed() -> None:
    """Time for a pass or two."""
    await asyncio.sleep(0.02)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def test_at_rest_nothing_is_touched_and_after_it_everything_is_as_before() -> None:
    async def main() -> None:
        engine = Engine()
        async with at_work(engine) as reconciler:
            assert await reconciler.drain(A1, Duration.minutes(2)) == ""
            engine.running = False  # Somebody stopped it.
            reconciler.kick()
            await passed()
            assert engine.starts == 0
            reconciler.undrain(A1)
            await passed()
            assert engine.starts == 1

    run(main())


def test_only_the_owner_ends_a_rest() -> None:
    async def main() -> None:
        engine = Engine()
        async with at_work(engine) as reconciler:
            assert await reconciler.drain(A1, Duration.minutes(2)) == ""
            assert await reconciler.drain(A2, Duration.minutes(2)) == ""
            engine.running = False
            reconciler.undrain(A1)
            await passed()
            assert engine.starts == 0
            reconciler.undrain(A2)
            await passed()
            assert engine.starts == 1

    run(main())


def test_a_silent_engine_is_no_rest_although_everything_was_healthy_before() -> None:
    async def main() -> None:
        engine = Engine()
        async with at_work(engine) as reconciler:
            engine.silent = True
            reason = await reconciler.drain(A1, Duration.minutes(2))
            assert reason == "not drained within 2m: the container engine does not answer"
            engine.silent, engine.running = False, False
            reconciler.undrain(A1)
            await passed()
            assert engine.starts == 1

    run(main())


def test_a_drain_that_is_dropped_leaves_no_rest() -> None:
    async def main() -> None:
        engine = Engine()
        async with at_work(engine) as reconciler:
            engine.silent = True
            drain = asyncio.ensure_future(reconciler.drain(A1, Duration.minutes(2)))
            await asyncio.sleep(0.005)
            drain.cancel()
            reconciler.undrain(A1)
            engine.silent, engine.running = False, False
            await passed()
            assert engine.starts == 1

    run(main())

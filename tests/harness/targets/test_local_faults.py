"""Each fault that real parts can be given happens to them, and is over when it is ended."""

from __future__ import annotations

import pytest

from fleet.contracts.errors import NotFound
from fleet.contracts.ids import DeploymentName, DeviceId, ObjectName
from fleet.contracts.layout import Bucket
from fleet.contracts.objects import Deployment, DeploymentSpec, Metadata, Selector
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.time import Duration
from harness.faults import BrownOut, CrashContainer, Direction, Fault, FlapLink, Partition, RandomPowerCuts, RestartBus
from harness.targets.local_faults import Ending
from harness.targets.port import Session
from sim.journal import (
    ContainerEnded,
    ContainerStarted,
    Event,
    HeartbeatStored,
    KvStored,
    LockTaken,
    PowerCut,
    PowerRestored,
)
from tests.harness.targets.local_run import DEVICES, ONE, PLAN, Seen, ready, run, until

pytestmark = pytest.mark.real

DEVICE = DEVICES[0]
OTHER = DEVICES[1]
SECOND = Duration.seconds(1)


def web(environment: str) -> Deployment:
    container = Container(name=DeploymentName("web"), image="web:1", environment=(("V", environment),))
    spec = DeploymentSpec(selector=Selector(match_labels={}), score=PodmanScore(containers=(container,)))
    return Deployment(metadata=Metadata(name=ObjectName("web")), spec=spec)


async def started(session: Session, fault: Fault) -> Ending:
    end = await session.inject(fault)
    assert end is not None
    return end


def writers(seen: Seen) -> set[str]:
    return {event.writer for event in seen.of(HeartbeatStored) if isinstance(event, KvStored)}


def test_links_are_cut_and_power_and_containers_fail() -> None:
    async def main(session: Session) -> None:
        seen = Seen()
        session.journal.subscribe_all(seen.append)
        await session.start()
        await ready(session)

        for fault in (
            Partition((DEVICE,), Direction.FROM_DEVICE, SECOND),
            FlapLink((DEVICE,), Duration.millis(100), Duration.minutes(1), SECOND),
        ):
            end = await started(session, fault)
            seen.clear()
            await session.clock.sleep(Duration.seconds(50))
            assert writers(seen) == {OTHER}
            await end()
            await until(session, lambda: DEVICE in writers(seen))

        await session.objects.create(web("1"))
        await until(session, lambda: len(seen.of(ContainerStarted)) == 2)
        crash = CrashContainer(DEVICE, DeploymentName("web"), DeploymentName("web"))
        assert await session.inject(crash) is None
        await until(session, lambda: len(seen.of(ContainerEnded)) == 1)
        await until(session, lambda: len(seen.of(ContainerStarted)) == 3)
        with pytest.raises(NotFound):
            await session.inject(CrashContainer(DEVICE, DeploymentName("web"), DeploymentName("db")))

        seen.clear()
        end = await started(session, BrownOut((DEVICE, OTHER), 3, SECOND, SECOND))
        await end()
        kinds = [type(event) for event in seen.of(PowerCut, PowerRestored) if of(event) == DEVICE]
        assert kinds == [PowerCut, PowerRestored] * 3
        await until(
            session,
            lambda: {event.device for event in seen.of(LockTaken) if isinstance(event, LockTaken)} >= set(DEVICES),
        )

        seen.clear()
        end = await started(session, RandomPowerCuts((DEVICE,), 2, Duration.seconds(20), SECOND))
        await end()
        kinds = [type(event) for event in seen.of(PowerCut, PowerRestored)]
        assert kinds == [PowerCut, PowerRestored] * 2

    run(PLAN, main)


def of(event: Event) -> DeviceId | None:
    found: DeviceId | None = getattr(event, "device", None)
    return found


async def another_heartbeat(session: Session, seen: Seen) -> None:
    before = len(seen.of(HeartbeatStored))
    await until(session, lambda: len(seen.of(HeartbeatStored)) > before)


def test_the_bus_is_killed_and_comes_back_without_a_write_lost_or_told_twice() -> None:
    async def main(session: Session) -> None:
        seen = Seen()
        session.journal.subscribe_all(seen.append)
        await session.start()
        await ready(session)
        for _ in range(3):
            end = await started(session, RestartBus(Duration.seconds(10)))
            with pytest.raises(NotFound):
                await session.inject(RestartBus(SECOND))
            await session.clock.sleep(Duration.seconds(10))
            await end()
            await another_heartbeat(session, seen)
        await session.objects.create(web("1"))
        await until(session, lambda: len(seen.of(ContainerStarted)) == 1)
        await session.settle()
        for bucket in Bucket:
            revisions = [event.revision for event in seen if isinstance(event, KvStored) and event.bucket is bucket]
            assert revisions == sorted(set(revisions))
            if bucket is Bucket.HEARTBEAT and revisions:
                assert revisions == list(range(revisions[0], revisions[-1] + 1))

    run(ONE, main)

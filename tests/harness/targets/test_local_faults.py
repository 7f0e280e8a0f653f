"""Each fault that real parts can be given happens to them, and is over when it is ended."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import pytest

from agent.linux.disk import LinuxDisk
from fleet.adapters.http import HttpArtefacts
from fleet.contracts.errors import NoSpace, NotFound, Refused
from fleet.contracts.ids import DeploymentName, DeviceId, ObjectName
from fleet.contracts.layout import Bucket
from fleet.contracts.objects import Deployment, DeploymentSpec, Device, Metadata, Selector
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.records import Heartbeat
from fleet.contracts.time import Duration, Instant
from harness.faults import (
    AgentFile,
    BrownOut,
    CloneDevice,
    CrashContainer,
    CutPower,
    Damage,
    DamageFile,
    Direction,
    DriftClock,
    Fault,
    FillDisk,
    FlapLink,
    FreezeOperator,
    IsolateOperator,
    KillOperator,
    LoseBusTail,
    Partition,
    RandomPowerCuts,
    RestartBus,
    SetClock,
    SilenceEngine,
    SlowCpu,
)
from harness.targets import local_mount
from harness.targets.local_faults import Ending
from harness.targets.port import Session
from sim.journal import (
    ContainerEnded,
    ContainerStarted,
    CopyMade,
    Event,
    HeartbeatStored,
    KvDeleted,
    KvStored,
    LockTaken,
    OperatorStarted,
    PowerCut,
    PowerRestored,
)
from tests.harness.targets.local_run import DEVICES, FIRST, ONE, PLAN, Seen, ready, run, until

pytestmark = pytest.mark.real

DEVICE = DEVICES[0]
OTHER = DEVICES[1]
SECOND = Duration.seconds(1)


def web(environment: str, name: str = "web") -> Deployment:
    container = Container(name=DeploymentName("web"), image="web:1", environment=(("V", environment),))
    spec = DeploymentSpec(selector=Selector(match_labels={}), score=PodmanScore(containers=(container,)))
    return Deployment(metadata=Metadata(name=ObjectName(name)), spec=spec)


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


def test_a_second_machine_runs_from_a_copy_of_a_card_under_its_own_name_and_is_found_out() -> None:
    copy = DeviceId(f"{DEVICE}-copy")

    async def main(session: Session) -> None:
        seen = Seen()
        session.journal.subscribe_all(seen.append)
        await session.start()
        await ready(session)
        end = await started(session, CloneDevice(DEVICE, SECOND))
        await until(session, lambda: any(event.device == copy for event in taken(seen)))
        told: list[Device] = []
        while not told or told[-1].status.cloned is None:
            told.append(await session.objects.get(Device, ObjectName(DEVICE)))
            await session.clock.sleep(SECOND)
        stored = told[-1].status.cloned
        assert stored is not None
        assert len(stored.boots) == 2
        assert writers(seen) == {DEVICE}
        await end()

    def taken(seen: Seen) -> list[LockTaken]:
        return [event for event in seen if isinstance(event, LockTaken)]

    seen = run(ONE, main)
    assert [event.device for event in taken(seen)] == [DEVICE, copy]
    assert [(event.device, event.copy) for event in seen if isinstance(event, CopyMade)] == [(DEVICE, copy)]
    assert copy in [event.device for event in seen if isinstance(event, PowerCut)]


def test_each_operator_can_be_cut_off_and_frozen_and_another_one_serves_releases() -> None:
    async def main(session: Session) -> None:
        seen = Seen()
        session.journal.subscribe_all(seen.append)
        await session.start()
        await ready(session)
        (artefact,) = session.artefacts(FIRST)
        start_again = await started(session, KillOperator(SECOND, 0))
        with pytest.raises(NotFound):
            await session.inject(FreezeOperator(0, SECOND))
        downloads = HttpArtefacts(session.clock)
        assert len(await downloads.read(artefact.url, 0, 100)) == 100
        await downloads.close()
        await start_again()
        await until(session, lambda: len(seen.of(OperatorStarted)) == 3)
        await session.inject(KillOperator(SECOND, 1))

        faults: tuple[tuple[str, Fault], ...] = (
            ("cut-off", IsolateOperator(0, SECOND)),
            ("frozen", FreezeOperator(0, SECOND)),
        )
        for name, fault in faults:
            end = await started(session, fault)
            await session.objects.create(web("1", name))
            await session.clock.sleep(Duration.seconds(40))
            assert name not in desired(seen)
            await end()
            await until(session, partial(lambda name: name in desired(seen), name))

    run(replace(ONE, operators=2), main)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the run's folder is made."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_what_can_befall_a_machine_befalls_it(place: Path) -> None:
    async def main(session: Session) -> None:
        seen = Seen()
        session.journal.subscribe_all(seen.append)
        await session.start()
        await ready(session)
        (root,) = place.glob(f"fleet-local-*/devices/{DEVICE}")

        day = Duration.minutes(24 * 60)
        before = await last_sent(session, seen)
        end = await started(session, SetClock((DEVICE,), Duration(-day), SECOND))
        assert await last_sent(session, seen) < before
        await end()
        assert await last_sent(session, seen) > before
        end = await started(session, DriftClock((DEVICE,), 500_000, SECOND))
        await session.clock.sleep(Duration.minutes(1))
        drifted = Duration(int((root / "etc/fleet-agent/clock-offset").read_text()))
        assert Duration.seconds(25) < drifted < Duration.seconds(60)
        await end()
        assert (root / "etc/fleet-agent/clock-offset").read_text() == "0"

        end = await started(session, SilenceEngine((DEVICE,), SECOND))
        await session.objects.create(web("1"))
        restore = await started(session, CutPower((DEVICE,), SECOND))
        await restore()
        await session.clock.sleep(Duration.minutes(1))
        assert seen.of(ContainerStarted) == []
        await end()
        await until(session, lambda: len(seen.of(ContainerStarted)) == 1)

        end = await started(session, SlowCpu((DEVICE,), 5, SECOND))
        states = [state for _ in range(50) for state in await states_on(session, root)]
        assert "T" in states
        await end()
        assert "T" not in await states_on(session, root)

        with pytest.raises(NotFound):
            await session.inject(DamageFile(DEVICE, AgentFile.QUARANTINE_MARK, Damage.EMPTY, FIRST))
        with pytest.raises(Refused):
            await session.inject(DamageFile(DEVICE, AgentFile.RELEASE, Damage.EMPTY, FIRST))
        held = (root / "var/lib/fleet-agent/verified.json").read_bytes()
        assert await session.inject(DamageFile(DEVICE, AgentFile.VERIFIED, Damage.TRUNCATED)) is None
        assert (root / "var/lib/fleet-agent/verified.json").read_bytes() == held[: len(held) // 2]

        end = await started(session, LoseBusTail(SECOND, 3, (Bucket.STATE,)))
        seen.clear()
        await end()
        changed = [event for event in seen if isinstance(event, KvStored | KvDeleted) and event.writer == "harness"]
        assert [(type(event), event.key, event.revision) for event in changed] == [
            (KvDeleted, f"{DEVICE}.workload.web", 0)
        ]
        await until(session, lambda: "web" in [key for key, revision in stored(seen, Bucket.STATE) if revision == 1])

    run(ONE, main)


def desired(seen: Seen) -> list[str]:
    return [name for name, _ in stored(seen, Bucket.DESIRED)]


def stored(seen: Seen, bucket: Bucket) -> list[tuple[str, int]]:
    """The last part of each key that was written, and its revision."""
    written = [event for event in seen if isinstance(event, KvStored) and event.bucket is bucket]
    return [(event.key.rpartition(".")[2], event.revision) for event in written]


async def last_sent(session: Session, seen: Seen) -> Instant:
    """The time of day in a heartbeat that comes now."""
    await another_heartbeat(session, seen)
    await another_heartbeat(session, seen)
    newest = seen.of(HeartbeatStored)[-1]
    assert isinstance(newest, HeartbeatStored)
    return Heartbeat.model_validate_json(newest.value).sent


async def states_on(session: Session, root: Path) -> list[str]:
    """The kernel's letters for what the processes of a device do."""
    await session.clock.sleep(Duration.millis(70))
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and f"FLEET_ROOT={root}".encode() in (read(entry / "environ") or b"").split(b"\0"):
            found.append((read(entry / "stat") or b") ?").rpartition(b")")[2].split()[0].decode())
    return found


def read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


@pytest.mark.skipif(not local_mount.may_mount(), reason="this process may not mount")
def test_a_disk_is_filled_and_emptied_and_its_mount_is_gone_afterwards(place: Path) -> None:
    plan = replace(ONE, faults=frozenset({FillDisk}))

    async def main(session: Session) -> None:
        await session.start()
        (root,) = place.glob(f"fleet-local-*/devices/{DEVICE}")
        end = await started(session, FillDisk((DEVICE,), 10_000, SECOND))
        assert 10_000 <= await LinuxDisk(root).free() < 16_384
        with pytest.raises(NoSpace):
            await LinuxDisk(root).write(PurePosixPath("/big"), b"x" * 20_000)
        await end()
        await LinuxDisk(root).write(PurePosixPath("/big"), b"x" * 20_000)
        await ready(session)

    run(plan, main)
    assert str(place) not in Path("/proc/mounts").read_text()
    assert list(place.iterdir()) == []


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

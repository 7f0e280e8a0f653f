"""The fleet on real parts: it comes up, its faults happen and heal, and nothing of it is left, however the run ends."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleet.contracts.errors import InvalidValue, NotFound
from fleet.contracts.ids import DeviceId, Slot
from fleet.contracts.layout import Bucket
from fleet.contracts.objects import Device
from fleet.contracts.time import Duration
from harness.faults import CutPower, Direction, KillAgent, KillOperator, Partition, WriteRaw
from harness.targets.local import target
from harness.targets.port import Session
from sim.journal import (
    AgentEnded,
    AgentStarted,
    CurrentRelease,
    HeartbeatStored,
    KvStored,
    LockLeft,
    LockTaken,
    OperatorEnded,
    OperatorStarted,
    PowerCut,
    PowerRestored,
    ReleasesOnDisk,
    SecretShown,
)
from tests.harness.targets.local_run import (
    DEVICES,
    FIRST,
    LONG,
    ONE,
    PLAN,
    Seen,
    children,
    processes,
    ready,
    run,
    until,
)

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[3]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, for this test alone: what is left in it was left behind."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def test_the_fleet_comes_up_and_nothing_is_left(place: Path) -> None:
    before = children()

    async def main(session: Session) -> None:
        await session.start()
        await ready(session)
        await session.settle()
        listed = await session.objects.list(Device)
        assert [item.metadata.labels for item in listed.items] == [{"rack": "a"}, {"rack": "b"}]
        assert len(processes(place)) >= 4

    seen = run(PLAN, main)
    assert processes(place) == []
    assert children() == before
    assert list(place.iterdir()) == []

    assert len(seen.of(OperatorStarted)) == 1
    started = {event.device: event.release for event in seen.of(AgentStarted) if isinstance(event, AgentStarted)}
    (release,) = set(started.values())
    assert sorted(started) == sorted(DEVICES)
    assert release.version == FIRST
    for device in DEVICES:
        own = [event for event in seen if getattr(event, "device", None) == device]
        assert [type(event) for event in own[:4]] == [ReleasesOnDisk, CurrentRelease, AgentStarted, LockTaken]
        assert any(event.writer == device for event in seen.of(HeartbeatStored) if isinstance(event, KvStored))
    assert [event.at for event in seen] == sorted(event.at for event in seen)


@pytest.mark.shows_secrets
def test_a_secret_in_a_log_is_found_and_not_quoted(place: Path) -> None:
    async def main(session: Session) -> None:
        await session.start()
        await session.secrets.search()
        (folder,) = place.iterdir()
        kept = json.loads((folder / "secrets" / "nats-operator-password.json").read_bytes())
        with (folder / "operator-0.log").open("ab") as log:
            log.write(base64.b64decode(kept["value"]))
        await session.secrets.search()

    shown = [event for event in run(ONE, main) if isinstance(event, SecretShown)]
    assert [(event.secret, event.where) for event in shown] == [("nats-operator-password", "operator-0.log")]


def test_faults_happen_and_heal(place: Path) -> None:
    device = DEVICES[0]

    async def main(session: Session) -> None:
        seen = Seen()
        session.journal.subscribe_all(seen.append)
        await session.start()
        await ready(session)

        hostile = WriteRaw(Bucket.DESIRED, b"\xff\xfe.agent", b"\x00not json")
        assert await session.inject(hostile) is None
        await session.settle()
        (raw,) = [event for event in seen.of(KvStored) if isinstance(event, KvStored) and event.value == hostile.value]
        assert isinstance(raw, KvStored)
        assert (raw.writer, raw.key) == ("harness", "\udcff\udcfe.agent")

        start_again = await session.inject(KillOperator(Duration.seconds(1)))
        assert start_again is not None
        assert [type(event) for event in seen.of(OperatorStarted, OperatorEnded)] == [OperatorStarted, OperatorEnded]
        with pytest.raises(NotFound):
            await session.inject(KillOperator(Duration.seconds(1)))
        await start_again()
        await until(session, lambda: len(seen.of(OperatorStarted)) == 2)

        with pytest.raises(NotFound):
            await session.inject(KillAgent(device, Slot.B))
        seen.clear()
        assert await session.inject(KillAgent(device, Slot.A)) is None
        await until(session, lambda: len(seen.of(LockTaken)) == 1)
        kinds = [type(event) for event in seen.of(AgentStarted, AgentEnded, LockTaken, LockLeft)]
        assert kinds == [LockLeft, AgentEnded, AgentStarted, LockTaken]

        seen.clear()
        restore = await session.inject(CutPower((device,), Duration.seconds(1)))
        assert restore is not None
        with pytest.raises(NotFound):
            await session.inject(CutPower((device,), Duration.seconds(1)))
        await restore()
        await until(session, lambda: len(seen.of(LockTaken)) == 1)
        kinds = [type(event) for event in seen.of(PowerCut, PowerRestored, AgentStarted, AgentEnded)]
        assert kinds == [PowerCut, AgentEnded, PowerRestored, AgentStarted]

        seen.clear()
        heal = await session.inject(Partition((device,), Direction.BOTH, Duration.seconds(1)))
        assert heal is not None
        await session.clock.sleep(Duration.minutes(2))
        assert seen.of(HeartbeatStored) == []
        await heal()
        await until(session, lambda: len(seen.of(HeartbeatStored)) > 0)
        with pytest.raises(NotFound):
            await session.inject(Partition((DeviceId("nobody"),), Direction.BOTH, Duration.seconds(1)))

    run(ONE, main)
    assert processes(place) == []
    assert list(place.iterdir()) == []


def test_an_error_brings_the_logs_along_and_leaves_nothing(place: Path) -> None:
    async def main(session: Session) -> None:
        await session.start()
        await ready(session)
        raise RuntimeError("the scenario fell over")

    with pytest.raises(RuntimeError, match="fell over") as caught:
        run(ONE, main)
    (note,) = caught.value.__notes__
    assert "--- operator-0.log" in note
    assert "--- nats/nats.log" in note
    assert "--- devices/dev-1/var/log/agent-a.log" in note
    assert processes(place) == []
    assert list(place.iterdir()) == []


def test_a_part_that_fails_ends_the_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(session: Session) -> None:
        await session.start()
        monkeypatch.setattr("harness.targets.local_locks.held", lambda: 1 / 0)
        await session.clock.sleep(LONG)

    with pytest.raises(ZeroDivisionError):
        run(ONE, main)
    assert processes(place) == []
    assert list(place.iterdir()) == []


RUNNER = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background without it

from fleet.contracts.ids import DeviceId, Version
from fleet.contracts.time import Duration
from harness.releases import ReleasePlan
from harness.targets.local import LocalTarget, target
from harness.targets.port import FleetPlan

async def main(session):
    await session.start()
    print("up", flush=True)
    await session.clock.sleep(Duration.minutes(60))

FIRST = Version("1.0.0")
LocalTarget().run(FleetPlan((DeviceId("dev-1"),), ({},), (ReleasePlan(FIRST),), FIRST), 1, main)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_run_that_was_ended_from_outside(place: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", RUNNER]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        try:
            assert process.wait(60) != 0
        finally:
            process.kill()
    deadline = time.monotonic() + 20
    while processes(place) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes(place) == []
    if number is not signal.SIGKILL:
        assert list(place.iterdir()) == []


def test_a_run_can_be_kept(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(session: Session) -> None:
        return None

    monkeypatch.setenv("TWIN_LOCAL_KEEP", "1")
    target().run(ONE, 1, main)
    (kept,) = place.iterdir()
    assert str(kept) in capsys.readouterr().err
    assert processes(place) == []


@pytest.mark.parametrize(("name", "text"), [("PACE", "fast"), ("PACE", "0"), ("PACE", "1e9"), ("KEEP", "yes")])
def test_settings_that_cannot_be_read_are_refused(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"TWIN_LOCAL_{name}", text)
    with pytest.raises(InvalidValue, match=f"TWIN_LOCAL_{name}"):
        target()

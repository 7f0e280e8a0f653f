"""`fleet rollout pause, resume, abort, retry, status`: what they write and say, and what they refuse.

The command runs in this process over the model of the object store; that it reaches a real one is shown elsewhere.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

import fleet.__main__ as program
from fleet.adapters.clock import SystemChance
from fleet.capabilities.bus import Entry, Stored
from fleet.contracts import layout
from fleet.contracts.ids import (
    Architecture,
    AttemptId,
    BootId,
    DeviceId,
    InstanceId,
    ObjectName,
    Release,
    Revision,
    Sha256,
    Version,
)
from fleet.contracts.layout import Bucket
from fleet.contracts.objects import (
    AgentRollout,
    GroupPhase,
    GroupStatus,
    Metadata,
    RolloutGroup,
    RolloutPhase,
    RolloutSpec,
    RolloutStatus,
    RunState,
)
from fleet.contracts.records import (
    Artefact,
    InProgress,
    RolledBack,
    Succeeded,
    UpgradePhase,
    UpgradeState,
    UpgradeStatus,
)
from fleet.contracts.time import Duration
from sim.objects import SimObjects

NAME = ObjectName("move")
NEW = Release(version=Version("1.1.0"), sha256=Sha256("b" * 64))


class Soon:
    """Timers that never wait."""

    def after(self, delay: Duration, callback: Callable[..., None], *args: object) -> object:
        return asyncio.get_running_loop().call_soon(callback, *args)


@dataclass
class Fleet:
    """The command, and what it finds."""

    config: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    objects: SimObjects = field(default_factory=lambda: SimObjects(Soon(), SystemChance()))
    state: list[Entry] = field(default_factory=list)

    async def entries(self, bucket: Bucket) -> list[Entry]:
        return self.state if bucket is Bucket.STATE else []

    def connected(self, config: object, work: Callable[[object], Awaitable[object]]) -> object:
        async def whole() -> object:
            return await work(SimpleNamespace(bus=self, objects=self.objects))

        return asyncio.run(whole())

    def rollout(self, phase: RolloutPhase, run: RunState = RunState.RUNNING, failed: int = 0) -> None:
        """There is a rollout, and the operator has made this of it."""
        artefact = Artefact(release=NEW, architecture=Architecture.AARCH64, size=1, url="http://127.0.0.1/r")
        spec = RolloutSpec(artefacts=(artefact,), groups=(RolloutGroup(name=ObjectName("all")),), run=run)
        group = GroupStatus(name=ObjectName("all"), phase=GroupPhase.OPEN, total=3, upgraded=1, failed=failed)
        status = RolloutStatus(
            observed_generation=1, sequence=1, phase=phase, total=3, upgraded=1, failed=failed, groups=(group,)
        )

        async def store() -> None:
            made = await self.objects.create(AgentRollout(metadata=Metadata(name=NAME), spec=spec))
            assert made.metadata.generation == 1
            await self.objects.replace_status(made.changed(status=status))

        asyncio.run(store())

    def report(self, device: str, status: UpgradeStatus, attempt: str = "move-1-bbbbbbbbbbbb") -> None:
        reporter = InstanceId(device=DeviceId(device), version=Version("1.0.0"), boot=BootId("b"), start=1)
        record = UpgradeState(
            device=DeviceId(device), attempt=AttemptId(attempt), release=NEW, reporter=reporter, status=status
        )
        address = layout.address_of(record)
        self.state.append(Stored(address.bucket, address.key, Revision(1), layout.encode(record)))

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Exit code, output, and what is complained of."""
        self.monkeypatch.setattr("sys.argv", ["fleet", "rollout", *words, "--config", str(self.config)])
        with pytest.raises(SystemExit) as ended:
            program.main()
        told = self.capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    @property
    def spec(self) -> RolloutSpec:
        return asyncio.run(self.objects.get(AgentRollout, NAME)).spec


@pytest.fixture
def fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fleet:
    config = tmp_path / "fleet.json"
    config.write_text(json.dumps({"bus": {"url": "nats://127.0.0.1:1", "login": "login.json"}}), encoding="utf-8")
    made = Fleet(config, capsys, monkeypatch)
    monkeypatch.setattr(program, "with_connection", made.connected)
    monkeypatch.setenv("COLUMNS", "140")
    return made


@pytest.mark.parametrize(
    ("words", "before", "after", "now"),
    [
        ("pause", RunState.RUNNING, RunState.PAUSED, "paused"),
        ("resume", RunState.PAUSED, RunState.RUNNING, "running"),
        ("abort", RunState.RUNNING, RunState.ABORTED, "aborted"),
        ("abort", RunState.PAUSED, RunState.ABORTED, "aborted"),
    ],
)
def test_a_rollout_is_steered_once(fleet: Fleet, words: str, before: RunState, after: RunState, now: str) -> None:
    fleet.rollout(RolloutPhase.PAUSED if before is RunState.PAUSED else RolloutPhase.PROGRESSING, before)
    assert fleet(words, "move") == (0, f"rollout move is {now}\n", "")
    assert fleet.spec.run is after
    assert fleet(words, "move") == (0, f"rollout move is already {now}\n", "")


@pytest.mark.parametrize("words", ["pause", "resume", "abort", "retry", "status"])
def test_an_unknown_rollout(fleet: Fleet, words: str) -> None:
    assert fleet(words, "move") == (1, "", "fleet: AgentRollout move does not exist\n")


@pytest.mark.parametrize("words", ["pause", "resume", "abort", "retry", "status"])
def test_what_cannot_be_a_name(fleet: Fleet, words: str) -> None:
    code, out, err = fleet(words, "Not A Name")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "Not A Name" in err


@pytest.mark.parametrize("words", ["pause", "abort"])
@pytest.mark.parametrize("phase", [RolloutPhase.COMPLETE, RolloutPhase.HALTED])
def test_a_rollout_that_has_ended_is_not_steered(fleet: Fleet, words: str, phase: RolloutPhase) -> None:
    fleet.rollout(phase)
    said = f"fleet: rollout move has ended ({phase}): there is nothing to change about its run\n"
    assert fleet(words, "move") == (2, "", said)
    assert fleet.spec.run is RunState.RUNNING


def test_an_aborted_rollout_is_not_resumed_but_tried_again(fleet: Fleet) -> None:
    fleet.rollout(RolloutPhase.ABORTED, RunState.ABORTED)
    assert fleet("resume", "move") == (2, "", "fleet: rollout move was aborted; a retry begins it again\n")
    assert fleet("retry", "move") == (0, "rollout move tries again (retry 1)\n", "")
    assert (fleet.spec.run, fleet.spec.retry) == (RunState.RUNNING, 1)


def test_each_retry_counts(fleet: Fleet) -> None:
    fleet.rollout(RolloutPhase.HALTED, failed=2)
    for number in (1, 2):
        assert fleet("retry", "move") == (0, f"rollout move tries again (retry {number})\n", "")


def test_where_nobody_failed_there_is_nothing_to_retry(fleet: Fleet) -> None:
    fleet.rollout(RolloutPhase.COMPLETE)
    said = "fleet: rollout move is complete, and no device failed: there is nothing to try again\n"
    assert fleet("retry", "move") == (2, "", said)
    assert fleet.spec.retry == 0


def test_the_status_names_who_failed_and_who_waits_and_nobody_else(fleet: Fleet) -> None:
    fleet.rollout(RolloutPhase.PROGRESSING, failed=1)
    fleet.report("pi-3", InProgress(phase=UpgradePhase.LOCKING))
    fleet.report("pi-1", RolledBack(phase=UpgradePhase.OVERLAPPING, reason="it is [bold]silent"))
    fleet.report("pi-2", Succeeded())
    fleet.report("pi-4", RolledBack(phase=UpgradePhase.TESTING, reason="long ago"), "move-0-bbbbbbbbbbbb")
    fleet.state.append(Stored(Bucket.STATE, "pi-5.upgrade", Revision(9), b"\xff"))
    code, out, err = fleet("status", "move")
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines() if line] == [
        ["rollout", "move:", "Progressing,", "1.1.0@bbbbbbbbbbbb,", "1", "of", "3", "upgraded,", "1", "failed"],
        ["group", "phase", "upgraded", "failed", "offline"],
        ["all", "Open", "1/3", "1", "0"],
        ["device", "status", "phase", "reason"],
        ["pi-1", "rolled-back", "overlapping", "it", "is", "[bold]silent"],
        ["pi-3", "waits", "for", "a", "slot", "locking"],
    ]


def test_the_status_says_what_the_operator_has_yet_to_take_note_of(fleet: Fleet) -> None:
    fleet.rollout(RolloutPhase.PROGRESSING)
    fleet("pause", "move")
    _, out, _ = fleet("status", "move")
    assert "the operator has not taken note of the newest change yet\nasked to be paused\n" in out

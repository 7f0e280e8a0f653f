"""The runbook docs/how-to/roll-out-a-release.md is followed literally: on real parts, with real agents on two devices.

The bus, the operator and the agents are those of the target `local`. Between the commands the test waits for what the
page says is the case, or brings it about: 1.5.0 is a release whose self-test fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fleet.contracts.ids import DeviceId, ObjectName, Version
from fleet.contracts.objects import AgentRollout, GroupPhase, RolloutPhase
from fleet.contracts.time import Duration
from fleet.releases.build import running_architecture
from fleet.releases.defects.catalogue import Misbehaviour
from fleet.releases.defects.catalogue import find as find_defect
from harness.releases import ReleasePlan
from harness.targets.local_pace import fitting, measured
from harness.targets.local_parts import RunFolder
from harness.targets.local_releases import build_all
from harness.targets.local_session import LocalSession
from harness.targets.port import FleetPlan
from tests.fleet.commands.page import HOW_TO, Told, alike, console_blocks, follow
from tests.harness.targets.local_run import LONG, ready

FIRST, BAD = Version("1.3.0"), Version("1.5.0")
PLAN = FleetPlan(
    devices=(DeviceId("pi-1"), DeviceId("pi-2")),
    labels=({"ring": "canary"}, {"ring": "rest"}),
    releases=(ReleasePlan(FIRST), ReleasePlan(BAD, Misbehaviour(find_defect("self-test-fails")))),
    installed=FIRST,
)
Scene = Callable[[LocalSession, Path], Awaitable[None]]


def blocks() -> list[Told]:
    """The page is written for a Raspberry Pi; here it is followed on devices of this machine's architecture."""
    text = (HOW_TO / "roll-out-a-release.md").read_text(encoding="utf-8")
    return console_blocks(text.replace("aarch64", running_architecture()))


async def until(session: LocalSession, name: str, true: Callable[[AgentRollout], bool]) -> None:
    async with session.clock.timeout(LONG):
        while not true(await session.objects.get(AgentRollout, ObjectName(name))):
            await session.clock.sleep(Duration.seconds(2))


def has_taken_note(item: AgentRollout) -> bool:
    return item.status.observed_generation == item.metadata.generation


async def canary_soaks(session: LocalSession, folder: Path) -> None:
    def soaks(item: AgentRollout) -> bool:
        return bool(item.status.groups) and item.status.groups[0].phase is GroupPhase.SOAKING

    await until(session, "to-1-4", soaks)


async def first_halt(session: LocalSession, folder: Path) -> None:
    """A bad release is rolled out, and halted."""
    file = f"releases/fleet-agent-v{BAD}-{running_architecture()}"
    groups = "--group canary:ring=canary@1+30m --group rest:ring=rest@10%"
    await until(session, "to-1-4", lambda item: item.status.phase is RolloutPhase.ABORTED)
    create = f"fleet rollout create to-1-5 --config fleet.json --artefact {file} {groups} --max-failed 5%"
    await follow(folder, create)
    await halted(session, folder)


async def halted(session: LocalSession, folder: Path) -> None:
    await until(session, "to-1-5", lambda item: has_taken_note(item) and item.status.phase is RolloutPhase.HALTED)


async def complete(session: LocalSession, folder: Path) -> None:
    await until(session, "back-to-1-3", lambda item: item.status.phase is RolloutPhase.COMPLETE)


SCENES: dict[str, Scene] = {
    "fleet rollout status to-1-4": canary_soaks,
    "fleet rollout status to-1-5": first_halt,
    "fleet rollout create back-to-1-3": halted,
    "fleet rollout status back-to-1-3": complete,
}
"""What has to be the case before a command."""


async def story(folder: RunFolder) -> list[tuple[Told, str]]:
    """Each command with what it printed."""
    followed = []
    releases = await asyncio.to_thread(build_all, PLAN.releases, folder.releases)
    pace = fitting(await asyncio.to_thread(measured, releases[FIRST].path))
    async with LocalSession(PLAN, releases, folder, pace) as session:
        await session.start()
        (folder.path / "fleet.json").write_bytes(folder.operator_config("operator-0").read_bytes())
        await ready(session)
        for told in blocks():
            for words, scene in SCENES.items():
                if f"{words} " in told.command:
                    await scene(session, folder.path)
            followed.append((told, await follow(folder.path, told.command)))
    return followed


@pytest.mark.real
def test_the_runbook_gives_what_it_says(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    try:
        followed = asyncio.run(story(folder))
    except BaseException as error:
        error.add_note(folder.last_words())
        raise
    assert len(followed) >= 12
    assert all(any(f"{words} " in told.command for told, _ in followed) for words in SCENES)
    for told, printed in followed:
        assert alike(printed) == alike(told.output), told.command

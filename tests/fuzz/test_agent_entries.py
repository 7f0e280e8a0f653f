"""Whatever the server pushes and whatever lies on the disk: the agent goes on, and a valid write heals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TypeVar, cast

from hypothesis import given
from hypothesis import strategies as st

from agent import launcher, paths, statefile
from agent.desired import Desired
from agent.events import AttemptRecord, DesiredSeen, DesiredWithdrawn, StopAsked
from agent.states import Found, Me
from agent.store import Store
from agent.upgrade import Upgrade
from fleet.capabilities.bus import Bus, Deleted, Entry, Stored
from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import Architecture, BootId, Revision, Slot
from fleet.contracts.layout import Bucket
from fleet.contracts.records import DesiredAgent, Record, StopRequest
from fleet.contracts.time import Duration
from sim.disk import DiskImage, SimDisk
from tests.fuzz.hostile import (
    ARTEFACT,
    ATTEMPT,
    DEVICE,
    NEW,
    OLD,
    REQUESTS,
    STORED,
    altered,
    entries,
    fuzzed,
    instance,
    values,
)

R = TypeVar("R", bound=Record)

HEALING = DesiredAgent(device=DEVICE, attempt=ATTEMPT, artefact=ARTEFACT)
ATTEMPT_RECORD = AttemptRecord(attempt=ATTEMPT, release=NEW, previous=OLD, origin=Slot.A, boot=BootId("boot-1"))
STATE_PATHS = (paths.VERIFIED, paths.ATTEMPT, paths.TRIALS, paths.WORKLOADS)
desired = entries(*STORED[:3]).map(lambda entry: (entry[1], entry[2]))


class SilentBus:
    """A bus on which the test itself is the server."""

    def listen(self, bucket: Bucket, prefix: str, callback: Callable[[Entry], None]) -> None:
        pass

    def on_session(self, callback: Callable[[], None]) -> None:
        pass


@dataclass
class Heard:
    """What the agent was told."""

    agents: list[DesiredAgent] = field(default_factory=list)

    def stream_went_back(self) -> None:
        pass

    def desired_agent(self, desired: DesiredAgent, revision: Revision) -> None:
        self.agents.append(desired)

    def withdrawn_agent(self, revision: Revision) -> None:
        pass

    def desired_workloads(self) -> None:
        pass


@fuzzed
@given(st.lists(st.tuples(desired, st.integers(1, 40), st.booleans()), min_size=1, max_size=8))
def test_any_pushed_entry_is_skipped_and_a_valid_write_heals(
    pushed: list[tuple[tuple[str, bytes], int, bool]],
) -> None:
    heard = Heard()
    state = Desired(DEVICE, cast(Bus, SilentBus()), heard, None)
    for (key, value), number, is_deleted in pushed:
        revision = Revision(number)
        state.pushed(
            Deleted(Bucket.DESIRED, key, revision) if is_deleted else Stored(Bucket.DESIRED, key, revision, value)
        )
    key = layout.desired_agent(DEVICE).key
    state.pushed(Stored(Bucket.DESIRED, key, Revision(1000), layout.encode(HEALING)))
    assert heard.agents[-1] == HEALING
    assert key not in state.invalid


def brain() -> Upgrade:
    me = Me(instance(2), OLD, Slot.A, Architecture.AARCH64)
    made = Upgrade(me, Found(verified=OLD), Duration.minutes(5))
    made.begin()
    return made


def readable(kind: type[R], content: bytes) -> R | None:
    try:
        return layout.decode(kind, content)
    except InvalidValue:
        return None


@fuzzed
@given(st.lists(values(STORED[0], REQUESTS[1]), min_size=1, max_size=8))
def test_any_readable_record_is_an_event_the_brain_has_an_answer_to(contents: list[bytes]) -> None:
    upgrade = brain()
    for number, content in enumerate(contents, 1):
        wanted, stop = readable(DesiredAgent, content), readable(StopRequest, content)
        if wanted is not None:
            upgrade.handle(DesiredSeen(Revision(number), wanted))
        if stop is not None:
            upgrade.handle(StopAsked(stop))
    upgrade.handle(DesiredWithdrawn(Revision(len(contents) + 1)))


class Alive:
    alive = True


state_file = altered(statefile.encode(ATTEMPT_RECORD)) | values(STORED[1]) | st.binary(max_size=60)
paths_on_disk = st.sampled_from(STATE_PATHS) | st.sampled_from(
    [paths.RELEASES / "fleet-agent-v1.0.0.manifest.json", paths.QUARANTINE / NEW.sha256, paths.QUARANTINE / "x.tmp"]
)


@fuzzed
@given(st.dictionaries(paths_on_disk, state_file, min_size=1, max_size=4))
def test_any_bytes_in_the_state_files_leave_an_agent_that_starts(files: dict[PurePosixPath, bytes]) -> None:
    async def told() -> None:
        disk = SimDisk(DiskImage(), Alive())
        for path, content in files.items():
            await disk.make_folder(path.parent)
            await disk.write(path, content)
        store = Store(disk)
        await store.verified()
        await store.attempt()
        await store.kept()
        await store.current()
        await store.releases()
        if paths.QUARANTINE / NEW.sha256 in files:
            assert set(await store.quarantined()) == {NEW.sha256}, "a mark that cannot be read still condemns"
        await store.record_attempt(ATTEMPT_RECORD)
        assert await store.attempt() == ATTEMPT_RECORD
        await store.mark_verified(OLD)
        assert await store.verified() == OLD
        assert await store.next_start(Slot.A, "0" * 16) > 0

    asyncio.run(told())


@dataclass
class Files:
    """The disk as the boot guard sees it: one whole release, and whatever else."""

    state: dict[str, bytes]

    def read(self, path: str) -> bytes | None:
        return self.state.get(path)

    def write(self, path: str, data: bytes) -> None:
        self.state[path] = data

    def link(self, path: str) -> str | None:
        return "/usr/bin/fleet-agent-v1.0.0"

    def swap(self, link: str, target: str) -> None:
        pass

    def names(self, folder: str) -> list[str]:
        return [path.rpartition("/")[2] for path in self.state if path.rpartition("/")[0] == folder]

    def sha256(self, path: str) -> str | None:
        return OLD.sha256 if path == "/usr/bin/fleet-agent-v1.0.0" else None


@fuzzed
@given(st.dictionaries(st.sampled_from([str(path) for path in STATE_PATHS]), state_file), st.sampled_from("ab"))
def test_any_bytes_in_the_state_files_leave_a_boot_guard_that_starts_the_whole_release(
    files: dict[str, bytes], slot: str
) -> None:
    manifest = b'{"version": "1.0.0", "sha256": "%s", "size": 5, "unpacked": ""}' % OLD.sha256.encode()
    disk = Files({**files, "/usr/bin/fleet-agent-v1.0.0.manifest.json": manifest})
    choice = launcher.choose(disk, slot, "boot-1")
    if slot == "a":
        assert isinstance(choice, launcher.Start)
        assert choice.sha256 == OLD.sha256
    else:
        assert not isinstance(choice, launcher.Nothing)

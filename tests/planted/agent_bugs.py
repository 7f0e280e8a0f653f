"""Bugs in the agent: its brain, its hands, what it keeps on disk, and the boot guard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

import agent.handover
import agent.paths
import agent.staging
from agent import launcher
from agent.desired import Desired
from agent.events import (
    AttemptRecord,
    Exit,
    Instruction,
    MarkVerified,
    RecordAttempt,
    Report,
    SelfTestPassed,
    Staged,
    Step,
    StopUnit,
    SwapLink,
)
from agent.handover import Hands
from agent.reconcile import Reconciler
from agent.reports import Reports
from agent.store import Store
from agent.upgrade import Upgrade
from fleet.capabilities.bus import Deleted, Entry
from fleet.capabilities.disk import Disk
from fleet.capabilities.host import ProgramEnd
from fleet.contracts.errors import Definite, Unknown
from fleet.contracts.ids import AttemptId, Release, Revision
from fleet.contracts.layout import Bucket
from fleet.contracts.records import (
    Artefact,
    DesiredAgent,
    InProgress,
    Record,
    StopRequest,
    Succeeded,
    UpgradePhase,
    UpgradeState,
)
from fleet.contracts.time import Duration
from sim.nats import SimBus
from tests.planted.plant import CHECK, CRASHED, STUCK, Bug, Patch
from tests.planted.stories import (
    AFTER_A_REFUSAL,
    AGAIN,
    BROWN_OUT,
    CUT_OFF,
    EXPLICIT,
    PLAIN,
    REBOOT,
    RETURN,
    STRAIGHT,
)

Instructions = tuple[Instruction, ...]


# --- the link and the releases -------------------------------------------------------------------------


async def _unlink_first(disk: Disk, link: PurePosixPath, target: PurePosixPath) -> None:
    await disk.unlink(link)
    await disk.symlink(target, link)
    await disk.sync_folder(link.parent)


def link_removed_before_it_is_made(patch: Patch) -> None:
    patch.setattr(agent.handover, "point_link", _unlink_first)


def swapped_before_staged(patch: Patch) -> None:
    async def stage(hands: Hands, work: object) -> Staged:
        return Staged(getattr(work, "attempt"))  # noqa: B009 - the type of the work is the hands' own business

    async def test(hands: Hands, work: object) -> SelfTestPassed:
        return SelfTestPassed(getattr(work, "attempt"))  # noqa: B009 - as above

    async def believe(hands: Hands, release: Release) -> None:
        return

    patch.setattr(Hands, "_stage", stage)
    patch.setattr(Hands, "_self_test", test)
    patch.setattr(Hands, "_make_whole", believe)


def old_releases_deleted_to_make_room(patch: Patch) -> None:
    stage = agent.staging.stage

    async def tidy(disk: Disk, artefact: Artefact, fetching: agent.staging.Fetching) -> None:
        for name in await disk.names(agent.paths.RELEASES):
            if name.startswith("fleet-agent-v1.0.0"):
                await disk.unlink(agent.paths.RELEASES / name)
        await stage(disk, artefact, fetching)

    patch.setattr(agent.staging, "stage", tidy)


def old_releases_deleted_after_the_upgrade(patch: Patch) -> None:
    record = Store.record_attempt

    async def tidy(store: Store, attempt: AttemptRecord) -> None:
        await record(store, attempt)
        if isinstance(attempt.ended, Succeeded):
            await store._disk.unlink(agent.paths.release(attempt.previous.version))

    patch.setattr(Store, "record_attempt", tidy)


def failed_self_test_passed_over(patch: Patch) -> None:
    def always(end: ProgramEnd, release: Release, limit: Duration) -> str:
        return ""

    patch.setattr(agent.handover, "_verdict", always)


# --- the hand-over -------------------------------------------------------------------------------------


def _within_overlap(patch: Patch, change: Callable[[Upgrade, Instructions], Instructions]) -> None:
    overlap = Upgrade._overlap

    def changed(brain: Upgrade, record: object) -> Instructions:
        return change(brain, overlap(brain, record))  # type: ignore[arg-type]  # handed on as it came

    patch.setattr(Upgrade, "_overlap", changed)


def old_instance_ends_itself(patch: Patch) -> None:
    _within_overlap(patch, lambda brain, instructions: (*instructions, Exit(0)))


def overlap_without_an_end(patch: Patch) -> None:
    make = Upgrade.__init__

    def patient(brain: Upgrade, me: object, found: object, overlap: Duration) -> None:
        make(brain, me, found, Duration.minutes(10_000))  # type: ignore[arg-type]  # handed on as they came

    patch.setattr(Upgrade, "__init__", patient)


def stop_heeded_by_whoever_hears_it(patch: Patch) -> None:
    asked = Upgrade._stop_asked

    def heed(brain: Upgrade, request: StopRequest) -> Instructions:
        if request.instance == brain._me.instance:
            return asked(brain, request)
        return (Exit(0),)

    patch.setattr(Upgrade, "_stop_asked", heed)


def condemned_while_cut_off(patch: Patch) -> None:
    async def always(hands: Hands) -> bool:
        await hands._tools.ports.clock.sleep(hands._tools.timings.watch)
        return True

    async def read(hands: Hands) -> bool:
        return True

    async def let_in(bus: SimBus) -> bool:
        return True

    patch.setattr(Hands, "_was_connected", always)
    patch.setattr(Hands, "_read_desired", read)
    patch.setattr(SimBus, "may_log_in", let_in)


def _without_steps(patch: Patch, kind: type[Step]) -> None:
    do = Hands._do

    async def skip(hands: Hands, step: Step) -> None:
        if not isinstance(step, kind):
            await do(hands, step)

    patch.setattr(Hands, "_do", skip)


def bad_instance_left_running(patch: Patch) -> None:
    _without_steps(patch, StopUnit)


def link_left_on_the_bad_release(patch: Patch) -> None:
    do = Hands._do

    async def forward_only(hands: Hands, step: Step) -> None:
        if not (isinstance(step, SwapLink) and step.release == hands._tools.me.release):
            await do(hands, step)

    patch.setattr(Hands, "_do", forward_only)


def attempt_not_recorded(patch: Patch) -> None:
    _without_steps(patch, RecordAttempt)


def success_not_marked(patch: Patch) -> None:
    _without_steps(patch, MarkVerified)


def no_answer_to_a_confirmed_instance(patch: Patch) -> None:
    became = Upgrade._became_managing

    def closed(brain: Upgrade) -> Instructions:
        became(brain)
        return ()

    patch.setattr(Upgrade, "_became_managing", closed)


def terminal_report_never_sent(patch: Patch) -> None:
    report = Hands._report

    def only_progress(hands: Hands, item: Report) -> None:
        if isinstance(item.status, InProgress):
            report(hands, item)

    patch.setattr(Hands, "_report", only_progress)


def progress_reported_after_the_end(patch: Patch) -> None:
    report = Hands._report

    def again(hands: Hands, item: Report) -> None:
        report(hands, item)
        if not isinstance(item.status, InProgress):
            late = replace(item, status=InProgress(phase=UpgradePhase.OVERLAPPING))
            asyncio.get_running_loop().call_later(25, report, hands, late)

    patch.setattr(Hands, "_report", again)


def drain_never_undone(patch: Patch) -> None:
    def forget(reconciler: Reconciler, owner: AttemptId) -> None:
        return

    patch.setattr(Reconciler, "undrain", forget)


# --- what is desired, and quarantine -------------------------------------------------------------------


def releases_ordered_by_version(patch: Patch) -> None:
    seen = Upgrade._desired_seen

    def newer_only(brain: Upgrade, revision: Revision, desired: DesiredAgent) -> Instructions:
        return () if desired.artefact.release.version < brain._me.release.version else seen(brain, revision, desired)

    patch.setattr(Upgrade, "_desired_seen", newer_only)


def old_report_repeated(patch: Patch) -> None:
    want = Reports.want
    kept: list[UpgradeState] = []

    def repeat(reports: Reports, record: Record) -> None:
        want(reports, record)
        if isinstance(record, UpgradeState):
            kept.append(record)
            older = next((item for item in kept if item.device == record.device), record)
            if older.attempt != record.attempt:
                asyncio.get_running_loop().call_later(5, want, reports, older)

    patch.setattr(Reports, "want", repeat)


def quarantine_forgotten_at_reboot(patch: Patch) -> None:
    async def nothing(store: Store) -> dict[object, object]:
        return {}

    patch.setattr(Store, "quarantined", nothing)


def quarantine_by_version(patch: Patch) -> None:
    def by_version(item: Release) -> PurePosixPath:
        return agent.paths.QUARANTINE / item.version

    patch.setattr(agent.paths, "quarantine", by_version)


def quarantine_never_written(patch: Patch) -> None:
    async def forget(store: Store, *arguments: object) -> None:
        return

    patch.setattr(Store, "quarantine", forget)


def quarantine_lifted_unasked(patch: Patch) -> None:
    def always(brain: Upgrade, wanted: DesiredAgent) -> bool:
        return wanted.artefact.release.sha256 in brain._condemned

    patch.setattr(Upgrade, "_lifts", always)


def another_devices_key_read(patch: Patch) -> None:
    read = Desired.read

    async def curious(desired: Desired) -> None:
        await read(desired)
        try:
            await desired._bus.get(Bucket.DESIRED, "device-002.agent")
        except (Definite, Unknown):
            return

    patch.setattr(Desired, "read", curious)


def pushes_with_lower_revisions_believed(patch: Patch) -> None:
    def believe(desired: Desired, entry: Entry) -> None:
        if not isinstance(entry, Deleted):
            desired.invalid.pop(entry.key, None)

    patch.setattr(Desired, "seen", believe)


# --- workloads -----------------------------------------------------------------------------------------


def containers_restarted_by_the_new_instance(patch: Patch) -> None:
    manage = Reconciler.manage

    def clean(reconciler: Reconciler) -> None:
        engine = reconciler._shop.containers

        async def restart() -> None:
            for fact in await engine.present():
                await engine.remove(fact.deployment, fact.name)
            reconciler.kick()

        manage(reconciler)
        clean.tasks.append(asyncio.ensure_future(restart()))  # type: ignore[attr-defined]  # set below

    clean.tasks = []  # type: ignore[attr-defined]  # keeps the tasks from being collected
    patch.setattr(Reconciler, "manage", clean)


def workload_report_taken_back(patch: Patch) -> None:
    want = Reports.want

    def fickle(reports: Reports, record: Record) -> None:
        want(reports, record)
        if isinstance(record, UpgradeState) and not isinstance(record.status, InProgress):
            for place in [place for place in reports._wanted if ".workload." in place[1]]:
                asyncio.get_running_loop().call_later(20, reports._set, place, b"")

    patch.setattr(Reports, "want", fickle)


# --- the boot guard ------------------------------------------------------------------------------------


def starts_not_counted(patch: Patch) -> None:
    patch.setattr(launcher, "TRIAL_STARTS", 10**6)
    patch.setattr(launcher, "STABLE_STARTS", 10**6)


def overlap_not_begun_again(patch: Patch) -> None:
    def never(facts: launcher.Facts, attempt: launcher.Attempt) -> bool:
        return False

    patch.setattr(launcher, "_is_cut_off", never)


def boot_guard_needs_the_attempt_file(patch: Patch) -> None:
    look = launcher.look

    def strict(files: launcher.Files, slot: str, boot: str) -> launcher.Facts:
        facts = look(files, slot, boot)
        if facts.attempt is None:
            raise ValueError("there is no attempt")
        return facts

    patch.setattr(launcher, "look", strict)


LINK: Final = "current-link-complete"
QUARANTINE: Final = "quarantined-not-retried"

BUGS: Final = (
    Bug(
        "link removed before it is made",
        "power loss between rm and ln: no agent to boot into",
        STRAIGHT,
        (LINK,),
        link_removed_before_it_is_made,
    ),
    Bug(
        "link swapped before the release is there",
        "the manager thinks a truncated or missing binary is installed",
        STRAIGHT,
        (LINK,),
        swapped_before_staged,
    ),
    Bug(
        "old releases deleted to make room",
        "the way back is gone when it is needed",
        STRAIGHT,
        ("no-release-erased", LINK),
        old_releases_deleted_to_make_room,
    ),
    Bug(
        "old releases deleted after the upgrade",
        "the release before is gone on the day it is needed",
        STRAIGHT,
        ("no-release-erased",),
        old_releases_deleted_after_the_upgrade,
    ),
    Bug(
        "failed self-test passed over",
        "a release that cannot start is swapped in",
        "rollback/self-test-fails.toml",
        (CHECK,),
        failed_self_test_passed_over,
    ),
    Bug(
        "old instance ends itself",
        "nobody is left to go back from a release that hangs",
        RETURN,
        (STUCK, CHECK),
        old_instance_ends_itself,
    ),
    Bug(
        "overlap without an end",
        "a silent release is waited for, for ever",
        RETURN,
        (STUCK, CHECK),
        overlap_without_an_end,
    ),
    Bug(
        "stop heeded by whoever hears it",
        "a stop meant for one instance ends both",
        STRAIGHT,
        (STUCK, CHECK),
        stop_heeded_by_whoever_hears_it,
    ),
    Bug(
        "release condemned while nobody could be reached",
        "a good version branded broken because the network was not up",
        CUT_OFF,
        (CHECK, STUCK),
        condemned_while_cut_off,
    ),
    Bug(
        "bad instance left running",
        "two agents side by side after a rollback",
        RETURN,
        (STUCK, CHECK),
        bad_instance_left_running,
    ),
    Bug(
        "link left on the bad release",
        "after a rollback link and running release disagree",
        RETURN,
        (STUCK, CHECK),
        link_left_on_the_bad_release,
    ),
    Bug(
        "attempt not recorded",
        "the host dies while replacing, and nobody knows what was under way",
        "power/power-cut-beside-a-hanging-release.toml",
        (STUCK, CHECK, QUARANTINE),
        attempt_not_recorded,
    ),
    Bug(
        "success not marked on the disk",
        "a release that was fine falls back at a later restart",
        BROWN_OUT,
        (CHECK, STUCK, QUARANTINE),
        success_not_marked,
    ),
    Bug(
        "confirmed instance does not close the attempt",
        "success never acknowledged: updating for ever",
        STRAIGHT,
        (STUCK,),
        no_answer_to_a_confirmed_instance,
    ),
    Bug(
        "terminal report never sent",
        "the attempt is under way for ever",
        STRAIGHT,
        (STUCK,),
        terminal_report_never_sent,
    ),
    Bug(
        "progress reported after the end",
        "a refresh replays a state: succeeded becomes in progress",
        STRAIGHT,
        ("every-attempt-terminal",),
        progress_reported_after_the_end,
    ),
    Bug(
        "drain never undone",
        "a failed attempt leaves the device drained",
        AFTER_A_REFUSAL,
        (STUCK, CHECK),
        drain_never_undone,
    ),
    Bug(
        "releases ordered by version",
        "a rollback has a lower version and is passed over",
        EXPLICIT,
        (STUCK, CHECK),
        releases_ordered_by_version,
    ),
    Bug(
        "old report repeated",
        "a device answers to an attempt that a newer one has replaced",
        EXPLICIT,
        ("no-lower-revision",),
        old_report_repeated,
    ),
    Bug(
        "quarantine forgotten at reboot",
        "a rolled-back version is tried again because the memory of it was in memory",
        AGAIN,
        (QUARANTINE, CHECK),
        quarantine_forgotten_at_reboot,
    ),
    Bug(
        "quarantine by version",
        "the same contents under another name are tried again",
        AGAIN,
        (QUARANTINE, CHECK),
        quarantine_by_version,
    ),
    Bug(
        "quarantine never written",
        "a power cut brings the bad release back",
        AGAIN,
        (QUARANTINE, CHECK),
        quarantine_never_written,
    ),
    Bug(
        "quarantine lifted unasked",
        "every new rollout tries a bad release again",
        AGAIN,
        (QUARANTINE,),
        quarantine_lifted_unasked,
    ),
    Bug(
        "another device's key read",
        "permissions hide a device that asks for what is not its own",
        STRAIGHT,
        ("no-foreign-keys",),
        another_devices_key_read,
    ),
    Bug(
        "desired records not taken in",
        "a watch that is silently dead",
        STRAIGHT,
        (STUCK,),
        pushes_with_lower_revisions_believed,
    ),
    Bug(
        "containers restarted by the new instance",
        "an agent upgrade interrupts every workload of the fleet",
        PLAIN,
        ("unaffected-containers-not-restarted",),
        containers_restarted_by_the_new_instance,
    ),
    Bug(
        "workload report taken back",
        "what was reached comes undone, and the end looked just before",
        PLAIN,
        ("desired-equals-observed",),
        workload_report_taken_back,
    ),
    Bug(
        "starts not counted",
        "a verified release that crashes after a reboot is started for ever",
        REBOOT,
        (STUCK, CHECK),
        starts_not_counted,
    ),
    Bug(
        "overlap not begun again",
        "after a power cut the hanging release is alone on the device",
        "power/power-cut-beside-a-hanging-release.toml",
        (STUCK, CHECK),
        overlap_not_begun_again,
    ),
    Bug(
        "boot guard needs the attempt file",
        "a missing marker file blocks every start",
        STRAIGHT,
        (CRASHED, STUCK),
        boot_guard_needs_the_attempt_file,
    ),
)

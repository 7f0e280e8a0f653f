"""Bugs in what an agent and its boot guard keep on a disk: releases, marks, counts, and room for more."""

from __future__ import annotations

from typing import Final

import agent.paths
import agent.staging
from agent import launcher, statefile
from agent.events import Condemned
from agent.store import QuarantineMark, Store, write_atomic
from agent.upgrade import Upgrade
from fleet.capabilities.disk import Disk
from fleet.contracts.errors import InvalidValue, NoSpace
from fleet.contracts.ids import AttemptId, Release, Sha256, Slot
from fleet.contracts.records import Artefact, DesiredAgent
from tests.planted.plant import CHECK, STUCK, Bug, Patch
from tests.planted.stories import AGENT_AGAIN, BROKEN_TRIAL, FULL, LIFTED, REBOOT, UNREADABLE_MARK

LINK: Final = "current-link-complete"
ERASED: Final = "no-release-erased"
QUARANTINE: Final = "quarantined-not-retried"


# --- releases ------------------------------------------------------------------------------------------


def room_made_on_refusal(patch: Patch) -> None:
    check = agent.staging._check_space

    async def make_room(disk: Disk, artefact: Artefact, there: int) -> None:
        try:
            await check(disk, artefact, there)
        except NoSpace:
            for name in await disk.names(agent.paths.RELEASES):
                if not name.startswith(f"fleet-agent-v{artefact.release.version}"):
                    await disk.unlink(agent.paths.RELEASES / name)

    patch.setattr(agent.staging, "_check_space", make_room)


def damaged_release_believed(patch: Patch) -> None:
    async def there(disk: Disk, release: Release) -> bool:
        return await disk.exists(agent.paths.release(release.version))

    patch.setattr(agent.staging, "is_complete", there)
    patch.setattr(agent.staging, "is_whole", there)


# --- marks ---------------------------------------------------------------------------------------------


def quarantine_lifted_twice(patch: Patch) -> None:
    def again(brain: Upgrade, wanted: DesiredAgent) -> bool:
        return wanted.lift_quarantine and wanted.artefact.release.sha256 in brain._condemned

    patch.setattr(Upgrade, "_lifts", again)


def mark_without_attempt(patch: Patch) -> None:
    async def nameless(store: Store, release: Release, reason: str, attempt: AttemptId) -> None:
        mark = QuarantineMark(version=release.version, reason=reason)
        await write_atomic(store._disk, agent.paths.quarantine(release), statefile.encode(mark))

    patch.setattr(Store, "quarantine", nameless)


def unreadable_mark_thrown_away(patch: Patch) -> None:
    async def tidy(store: Store) -> dict[Sha256, Condemned]:
        found = {}
        for name in await store._disk.names(agent.paths.QUARANTINE):
            path = agent.paths.QUARANTINE / name
            try:
                mark = statefile.decode(QuarantineMark, await store._disk.read(path))
            except InvalidValue:
                await store._disk.unlink(path)
                continue
            found[Sha256(name)] = Condemned(mark.reason, mark.attempt)
        return found

    patch.setattr(Store, "quarantined", tidy)


def mark_of_a_newer_form_destroyed(patch: Patch) -> None:
    """A newer release has set the mark."""

    async def newer(store: Store, release: Release, reason: str, attempt: AttemptId) -> None:
        mark = QuarantineMark(version=release.version, reason=reason, attempt=attempt)
        data = statefile.encode(mark).replace(statefile.FORM.encode(), b"2.0", 1)
        await write_atomic(store._disk, agent.paths.quarantine(release), data)

    unreadable_mark_thrown_away(patch)
    patch.setattr(Store, "quarantine", newer)


# --- counts --------------------------------------------------------------------------------------------


def starts_counted_over_all_boots(patch: Patch) -> None:
    def all_of_them(facts: launcher.Facts, release: launcher.Named) -> tuple[int, int]:
        trial = facts.trial
        return (0, 0) if trial is None or trial.sha256 != release.sha256 else (trial.starts, trial.starts)

    patch.setattr(launcher, "_starts", all_of_them)


def starts_not_told_apart(patch: Patch) -> None:
    async def one(store: Store, slot: Slot, unlikely: str) -> int:
        return 2 + (slot is Slot.B)

    patch.setattr(Store, "next_start", one)


def boot_guard_condemns_nobody(patch: Patch) -> None:
    put = launcher._put

    def without_marks(files: launcher.Files, path: str, value: dict[str, object]) -> None:
        if not path.startswith(launcher.QUARANTINE):
            put(files, path, value)

    patch.setattr(launcher, "_put", without_marks)


BUGS: Final = (
    Bug(
        "room made by deleting releases",
        "a full disk costs the device the release that it runs",
        FULL,
        (LINK, ERASED),
        room_made_on_refusal,
    ),
    Bug(
        "damaged release believed",
        "the way back leads to a file that is no longer what it was",
        "rollback/back-to-a-damaged-release.toml",
        (CHECK, LINK),
        damaged_release_believed,
    ),
    Bug(
        "quarantine lifted twice by one retry",
        "a release that failed again is tried again and again",
        LIFTED,
        (QUARANTINE,),
        quarantine_lifted_twice,
    ),
    Bug(
        "mark without its attempt",
        "nobody can tell whether a retry came before the failure or after it",
        LIFTED,
        (QUARANTINE,),
        mark_without_attempt,
    ),
    Bug(
        "unreadable mark thrown away",
        "a card that loses bits makes a bad release good",
        UNREADABLE_MARK,
        (QUARANTINE, CHECK),
        unreadable_mark_thrown_away,
    ),
    Bug(
        "mark of a newer form destroyed",
        "going back to an older agent forgets what the newer one condemned",
        AGENT_AGAIN,
        (QUARANTINE,),
        mark_of_a_newer_form_destroyed,
    ),
    Bug(
        "starts counted over all boots",
        "a good release is quarantined for a bad supply",
        "power/brown-outs-after-an-upgrade.toml",
        (CHECK,),
        starts_counted_over_all_boots,
    ),
    Bug(
        "starts of a slot not told apart",
        "heartbeats of an instance that crashed count for the next one",
        BROKEN_TRIAL,
        ("stop-only-after-verified",),
        starts_not_told_apart,
    ),
    Bug(
        "boot guard condemns nobody",
        "after a fallback the bad release is asked for again, and runs again",
        REBOOT,
        (STUCK, CHECK),
        boot_guard_condemns_nobody,
    ),
)

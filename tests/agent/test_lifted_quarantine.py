"""A person asks for a condemned release to be tried again: once for an attempt, wherever the power fails."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Coroutine
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pytest

from agent import launcher, paths, statefile
from agent.events import (
    BecameManaging,
    Condemned,
    DesiredSeen,
    Drained,
    Insist,
    LiftQuarantine,
    MarkVerified,
    OverlapWatched,
    Quarantine,
    RecordAttempt,
    Report,
    SelfTestFailed,
    SelfTestPassed,
    SlotGranted,
    Staged,
    StartUnit,
    StopUnit,
    SwapDone,
    SwapLink,
    TrySwap,
)
from agent.states import Locking
from agent.store import Store, TrialCount, VerifiedMark, write_atomic
from agent.upgrade import Upgrade
from fleet.capabilities.host import Failing
from fleet.contracts.ids import AttemptId, Revision
from fleet.contracts.records import DesiredAgent, RefusedUpgrade
from fleet.contracts.time import ZERO
from sim.disk import DiskImage, SimDisk

T = TypeVar("T")
Make = Callable[..., Upgrade]
Values = Any  # The conftest's class: test files cannot import it.
A1, A2 = AttemptId("a-1"), AttemptId("a-2")


def lifting(values: Values, attempt: AttemptId = A2) -> DesiredAgent:
    """Release 2, again."""
    desired = values.desired(values.release(2), attempt)
    assert isinstance(desired, DesiredAgent)
    return desired.model_copy(update={"lift_quarantine": True})


def begun(brain: Make, values: Values, mark: Condemned, **found: object) -> Upgrade:
    """The managing instance of release 1, on whose disk release 2 is condemned."""
    made = brain(values.release(1), condemned={values.release(2).sha256: mark}, **found)
    made.begin()
    made.handle(BecameManaging())
    return made


def status(instructions: tuple[object, ...]) -> object:
    """What is reported."""
    return next(item.status for item in instructions if isinstance(item, Report))


def to_the_swap(made: Upgrade, attempt: AttemptId) -> TrySwap:
    """On to the swap."""
    for event in (SlotGranted(attempt), Drained(attempt), Staged(attempt)):
        made.handle(event)
    return next(item for item in made.handle(SelfTestPassed(attempt)) if isinstance(item, TrySwap))


def test_nobody_asked_and_the_release_is_refused(brain: Make, values: Values) -> None:
    made = begun(brain, values, Condemned("it crashed", A1))
    assert isinstance(
        status(made.handle(DesiredSeen(Revision(5), values.desired(values.release(2), "a-2")))), RefusedUpgrade
    )


def test_the_mark_is_lifted_before_anything_of_the_attempt_is_written(brain: Make, values: Values) -> None:
    made, release = begun(brain, values, Condemned("it crashed", A1)), values.release(2)
    made.handle(DesiredSeen(Revision(5), lifting(values)))
    assert isinstance(made.state, Locking)
    steps = to_the_swap(made, A2).steps
    kinds = [type(step) for step in steps]
    assert kinds == [LiftQuarantine, StopUnit, RecordAttempt, SwapLink, StartUnit]
    assert steps[0] == LiftQuarantine(release)


@pytest.mark.parametrize("mark", [Condemned("again", A2), Condemned("who knows", None)], ids=["own", "unnamed"])
def test_an_attempt_that_has_begun_lifts_nothing_after_a_restart(brain: Make, values: Values, mark: Condemned) -> None:
    """An unnamed mark may be an older boot guard's, set during this very attempt."""
    record = values.record(values.release(2), values.release(1), "a-2", boot=values.later_boot)
    made = brain(values.release(1), condemned={values.release(2).sha256: mark}, attempt=record)
    insist = next(item for item in made.begin() if isinstance(item, Insist))
    assert Quarantine(values.release(2), mark.reason, A2) in insist.steps
    made.handle(BecameManaging())
    made.handle(DesiredSeen(Revision(5), lifting(values)))
    answer = made.handle(insist.done)
    assert type(status(answer)).__name__ == "RolledBack"
    assert made.attempt is None


def test_an_unnamed_mark_of_earlier_is_lifted(brain: Make, values: Values) -> None:
    made = begun(brain, values, Condemned("who knows", None))
    made.handle(DesiredSeen(Revision(5), lifting(values)))
    assert isinstance(made.state, Locking)


def test_a_release_that_fails_again_is_condemned_again_and_stays_so(brain: Make, values: Values) -> None:
    made = begun(brain, values, Condemned("it crashed", A1))
    made.handle(DesiredSeen(Revision(5), lifting(values)))
    to_the_swap(made, A2)
    made.handle(SwapDone(A2))
    answer = made.handle(OverlapWatched(A2, Failing(3, gave_up=True), ZERO))
    insist = next(item for item in answer if isinstance(item, Insist))
    assert insist.steps[0] == Quarantine(values.release(2), "the new instance ended badly 3 times", A2)
    made.handle(insist.done)
    assert type(status(made.handle(DesiredSeen(Revision(6), lifting(values))))).__name__ == "RolledBack"
    again = made.handle(DesiredSeen(Revision(7), values.desired(values.release(2), "a-3")))
    assert isinstance(status(again), RefusedUpgrade)
    made.handle(DesiredSeen(Revision(8), lifting(values, AttemptId("a-4"))))
    assert isinstance(made.state, Locking)


def test_a_self_test_that_fails_again_names_the_newer_attempt(brain: Make, values: Values) -> None:
    made = begun(brain, values, Condemned("it crashed", A1))
    made.handle(DesiredSeen(Revision(5), lifting(values)))
    for event in (SlotGranted(A2), Drained(A2), Staged(A2)):
        made.handle(event)
    insist = next(item for item in made.handle(SelfTestFailed(A2, "exit code 1")) if isinstance(item, Insist))
    assert insist.steps[0] == Quarantine(values.release(2), "exit code 1", A2)


def test_the_only_release_of_a_device_is_lifted_when_it_is_confirmed(brain: Make, values: Values) -> None:
    """The boot guard condemned it, and started it nevertheless: there was no other one."""
    ours = values.release(2)
    made = brain(ours, verified=None, condemned={ours.sha256: Condemned("started 4 times", A1)})
    made.begin()
    made.handle(BecameManaging())
    confirmed = lifting(values).model_copy(update={"confirmed": values.instance(ours, 2)})
    insist = next(item for item in made.handle(DesiredSeen(Revision(5), confirmed)) if isinstance(item, Insist))
    assert insist.steps == (LiftQuarantine(ours), MarkVerified(ours))


# --- on the disk -----------------------------------------------------------------------------------------


class Alive:
    """A process that lives."""

    alive = True


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def condemned_disk(values: Values) -> DiskImage:
    """Release 2 crash-looped in attempt 1."""
    image = DiskImage()
    disk = SimDisk(image, Alive())
    run(Store(disk).quarantine(values.release(2), "it crashed", A1))
    starts = TrialCount(sha256=values.release(2).sha256, starts=4)
    run(write_atomic(disk, paths.TRIALS, statefile.encode(starts)))
    return image


def test_a_lifted_release_gets_fresh_starts(values: Values) -> None:
    image = condemned_disk(values)
    store = Store(SimDisk(image, Alive()))
    for _ in range(2):
        run(store.lift_quarantine(values.release(2)))
        assert run(store.condemned(values.release(2))) is None
        assert json.loads(image.read(paths.TRIALS))["starts"] == 0
    run(store.quarantine(values.release(2), "again", A2))
    assert run(store.condemned(values.release(2))) == Condemned("again", A2)


def lifted_until(image: DiskImage, values: Values, cut: int) -> bool:
    """Lift, with the power gone instead of that operation; whether it was needed at all."""
    left = iter(range(cut))

    async def both() -> bool:
        lost = asyncio.Event()

        def change(operation: str, path: PurePosixPath) -> bool:
            if next(left, None) is None:
                lost.set()
            return not lost.is_set()

        image.before_change = change
        work = asyncio.ensure_future(Store(SimDisk(image, Alive())).lift_quarantine(values.release(2)))
        dark = asyncio.ensure_future(lost.wait())
        await asyncio.wait((work, dark), return_when=asyncio.FIRST_COMPLETED)
        for task in (work, dark):
            task.cancel()
        return lost.is_set()

    return run(both())


@pytest.mark.parametrize("seed", range(5))
def test_a_power_cut_at_any_operation_leaves_the_mark_or_fresh_starts(values: Values, seed: int) -> None:
    for cut in range(40):
        image = condemned_disk(values)
        image.sync_all()
        if not lifted_until(image, values, cut):
            assert cut > 3
            return
        image.before_change = None
        image.power_cut(random.Random(seed))
        after = Store(SimDisk(image, Alive()))
        if run(after.condemned(values.release(2))) is None:
            assert json.loads(image.read(paths.TRIALS))["starts"] == 0
        run(after.lift_quarantine(values.release(2)))
        assert run(after.condemned(values.release(2))) is None
    raise AssertionError("the whole of it was never done")


def test_the_boot_guard_says_which_attempt_it_condemned(values: Values, tmp_path: Path) -> None:
    files = launcher.RealFiles(str(tmp_path))
    good, bad = b"good", b"bad"
    named = {}
    for version, data in (("1.1.0", good), ("1.2.0", bad)):
        files.write(f"{launcher.RELEASES}/fleet-agent-v{version}", data)
        digest = files.sha256(f"{launcher.RELEASES}/fleet-agent-v{version}")
        named[version] = {"version": version, "sha256": digest}
        files.write(f"{launcher.RELEASES}/fleet-agent-v{version}.manifest.json", json.dumps(named[version]).encode())
    files.swap(launcher.CURRENT, f"{launcher.RELEASES}/fleet-agent-v1.2.0")
    newer = {"v": "1.7", **named["1.2.0"], "before": named["1.1.0"], "colour": "blue"}
    files.write(launcher.VERIFIED, json.dumps(newer).encode())
    starts = {"sha256": named["1.2.0"]["sha256"], "starts": 4, "boot": "y", "here": launcher.STABLE_STARTS}
    files.write(launcher.TRIALS, json.dumps(starts).encode())
    record = {"attempt": "a-2", "release": named["1.2.0"], "previous": named["1.1.0"], "origin": "b", "boot": "x"}
    files.write(launcher.ATTEMPT, json.dumps({**record, "ended": {"status": "succeeded"}}).encode())
    started = launcher.choose(files, "a", "y")
    assert isinstance(started, launcher.Start)
    assert started.version == "1.1.0"
    mark = files.read(f"{launcher.QUARANTINE}/{named['1.2.0']['sha256']}")
    assert mark is not None
    assert json.loads(mark)["attempt"] == "a-2"
    kept = files.read(launcher.VERIFIED)
    assert kept is not None
    assert json.loads(kept)["colour"] == "blue"
    assert statefile.decode(VerifiedMark, kept).version == "1.1.0"

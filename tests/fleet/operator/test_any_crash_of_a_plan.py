"""Halts, soaks, pauses and ways back hold through any crash of the operator, and every plan comes to its end.

The operator is killed between any two of its writes, by itself or while people change the plan. Judged after each step:
what is stored, as it is all that the next operator will know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.contracts.ids import AttemptId, DeviceId
from fleet.contracts.objects import (
    ENDED,
    AgentRollout,
    GroupPhase,
    GroupStatus,
    HaltOnly,
    MaxFailed,
    MaxUnavailable,
    OnHalt,
    RollBackGroup,
    RolloutPhase,
    RolloutSpec,
    RunState,
)
from fleet.contracts.time import Duration
from fleet.operator import rollout_status
from fleet.operator.events import Ticked
from fleet.operator.fleet_state import READ_BUCKETS
from fleet.operator.rollout import Plan
from tests.fleet.operator.rollout_world import BEAT, NEW, OLD, World, artefact, group

STOPPED = (RolloutPhase.PAUSED, RolloutPhase.HALTED, RolloutPhase.ABORTED, RolloutPhase.REFUSED)
HALTED = (RolloutPhase.HALTED, RolloutPhase.ROLLING_BACK, RolloutPhase.ROLLED_BACK)
STEPS = (
    *(
        "stride",
        "stride",
        "stride",
        "stride",
        "stride",
        "minute",
        "minute",
        "minute",
        "minute",
        "beat",
        "write",
        "tick",
    ),
    *("fail", "fail", "fail", "defer", "reboot", "silence", "crash", "crash", "crash"),
    *("pause", "resume", "resume", "retry", "swap", "abort"),
)
RINGS = ("a", "a", "b", "b", "b")


@dataclass
class Watch:
    """What has been stored so far, and whether it may be."""

    world: World
    granted: dict[DeviceId, AttemptId] = field(default_factory=dict)
    halted: dict[int, None] = field(default_factory=dict)
    """The beginnings of the rollout that were halted."""
    passed: dict[int, None] = field(default_factory=dict)

    def look(self) -> None:
        item = self.world.status("r")
        now = item.status
        if now.sequence in self.halted:
            assert now.phase in (*HALTED, RolloutPhase.ABORTED, RolloutPhase.PAUSED), "a halt was forgotten"
        if now.phase in HALTED:
            self.halted[now.sequence] = None
        for device in self.world.agents:
            self._look_at(device, item)
        for ring in ("a", "b"):
            held = [a for a, r in zip(self.world.agents.values(), RINGS, strict=True) if a.held and r == ring]
            assert len(held) <= 1, "more devices than the group allows"

    def _look_at(self, device: DeviceId, item: AgentRollout) -> None:
        desired = self.world.desired(device)
        if desired is None or desired.granted is None or self.granted.get(device) == desired.attempt:
            return
        self.granted[device] = desired.attempt
        if not desired.attempt.startswith(f"r-{item.status.sequence}-"):
            return
        assert item.status.phase not in STOPPED, f"a slot while {item.status.phase}"
        phases = {stands.name: stands.phase for stands in item.status.groups}
        ring = RINGS[list(self.world.agents).index(device)]
        if item.status.phase in HALTED:
            assert (desired.artefact.release, phases[ring]) == (OLD, GroupPhase.HALTED)  # type: ignore[index]  # by name
            return
        for before in list(phases)[: [str(name) for name in phases].index(ring)]:
            assert phases[before] is GroupPhase.PASSED, "before its turn"


def step(world: World, name: str, device: DeviceId, flag: bool) -> None:
    match name:
        case "stride":
            for _ in range(5):
                world.act(device)
                world.carry_out()
        case "minute":
            world.pass_time(BEAT * 2)
        case "beat":
            world.beat(device)
        case "write":
            if world.pending:
                world.carry_out_one()
        case "tick":
            world.now = world.now + BEAT
            world.tell(Ticked(world.now, world.wall, True))
        case "fail":
            world.fail(device)
        case "defer":
            world.defer(device)
        case "reboot":
            world.reboot(device)
        case "silence":
            world.silent.pop(device, None)
            if flag:
                world.silent[device] = None
        case "crash":
            late = world.pending[:1] if flag else []
            world.start()
            world.pending[:0] = late
            if late:
                world.carry_out_one()
        case _:
            change(world, name)


def change(world: World, name: str) -> None:
    """A person changes the plan, as the commands do."""
    spec = world.status("r").spec
    match name:
        case "pause" if spec.run is RunState.RUNNING:
            world.edit("r", run=RunState.PAUSED)
        case "resume" if spec.run is RunState.PAUSED:
            world.edit("r", run=RunState.RUNNING)
        case "abort":
            world.edit("r", run=RunState.ABORTED)
        case "retry":
            world.edit("r", run=RunState.RUNNING, retry=spec.retry + 1)
        case "swap":
            world.edit("r", groups=spec.groups[::-1])


Step = tuple[str, int, bool]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 4), st.booleans()), min_size=20, max_size=70),
    st.sampled_from([HaltOnly(), RollBackGroup(artefacts=(artefact(OLD),))]),
    st.integers(0, 1),
)
def test_what_is_stored_is_allowed_through_any_crash_and_every_plan_ends(
    steps: list[Step], on_halt: OnHalt, may_fail: int
) -> None:
    world, watch = carried_out(steps, on_halt, may_fail)
    finish(world, watch)


def carried_out(steps: list[Step], on_halt: OnHalt, may_fail: int) -> tuple[World, Watch]:
    """A plan of two groups, and what happens to it, each step watched."""
    world = World(len(RINGS))
    for device, ring in zip(world.agents, RINGS, strict=True):
        world.label(device, ring=ring)
    world.start()
    world.pass_time(BEAT * 2)
    one, soak = MaxUnavailable(count=1), Duration.minutes(2)
    groups = tuple(group(ring, one, ring=ring).model_copy(update={"soak": soak}) for ring in ("a", "b"))
    world.plan(
        "r",
        RolloutSpec(artefacts=(artefact(NEW),), groups=groups, max_failed=MaxFailed(count=may_fail), on_halt=on_halt),
    )
    watch = Watch(world)
    for name, index, flag in steps:
        step(world, name, DeviceId(f"pi-{index}"), flag)
        watch.look()
    return world, watch


# --- that it can fail ---------------------------------------------------------------------------------

FAILURE: list[Step] = [*[("stride", 0, False)] * 3, ("fail", 0, False), ("minute", 0, False)]
RESTART: list[Step] = [("crash", 0, False), *[("minute", 0, False)] * 2, *[("stride", 2, False)] * 3]
CHANGE: list[Step] = [("swap", 0, False), *[("write", 0, False)] * 3]


def opened(groups: tuple[GroupStatus, ...]) -> tuple[GroupStatus, ...]:
    return tuple(stands.model_copy(update={"phase": GroupPhase.OPEN}) for stands in groups)


def halt_forgotten_by_a_change(patch: pytest.MonkeyPatch) -> None:
    def forget(item: AgentRollout) -> tuple[GroupStatus, ...]:
        return opened(carried_over(item))

    carried_over = rollout_status._carried_over
    patch.setattr(rollout_status, "_carried_over", forget)


def phases_ignored_at_a_restart(patch: pytest.MonkeyPatch) -> None:
    def believe(plan: Plan, item: AgentRollout) -> bool:
        if plan not in started:
            started.append(plan)
            item = item.changed(status=item.status.model_copy(update={"groups": opened(item.status.groups)}))
        return put(plan, item)

    put, started = Plan.put, list[Plan]()
    patch.setattr(Plan, "put", believe)


@pytest.mark.parametrize(
    ("plant", "steps", "words"),
    [
        (halt_forgotten_by_a_change, [*FAILURE, *CHANGE], "a halt was forgotten"),
        (phases_ignored_at_a_restart, RESTART, "before its turn"),
    ],
)
def test_an_operator_that_forgets_is_seen(
    plant: Callable[[pytest.MonkeyPatch], None], steps: list[Step], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried_out(steps, HaltOnly(), 0)
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=words):
        carried_out(steps, HaltOnly(), 0)


def finish(world: World, watch: Watch) -> None:
    """Everything heals, and whoever paused it resumes it."""
    for bucket in READ_BUCKETS:
        world.read(bucket)
    world.silent.clear()
    change(world, "resume")
    for _ in range(60):
        world.hurry(3)
        watch.look()
    item = world.status("r")
    assert world.holding == 0
    assert item.status.observed_generation == item.metadata.generation
    assert item.status.phase in ENDED, item.status
    if item.status.phase is RolloutPhase.COMPLETE:
        assert all(agent.release == NEW for agent in world.agents.values())
    if item.status.phase is RolloutPhase.ROLLED_BACK:
        back = [stands.name for stands in item.status.groups if stands.phase is GroupPhase.HALTED]
        for agent, ring in zip(world.agents.values(), RINGS, strict=True):
            assert agent.release == OLD or ring not in [str(name) for name in back]

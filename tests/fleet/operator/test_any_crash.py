"""Limits, the order of confirmation and stop, and an end of every attempt: through any crash, loss and power cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.contracts.ids import (
    DeviceId,
)
from fleet.contracts.objects import (
    MaxUnavailable,
    RolloutPhase,
)
from fleet.operator.events import (
    Ticked,
)
from fleet.operator.fleet_state import READ_BUCKETS
from tests.fleet.operator.rollout_world import (
    BEAT,
    NEW,
    OLD,
    PI,
    Agent,
    World,
    started,
)

STEPS = (
    *("act", "stride", "stride", "stride", "stride", "minute", "minute", "minute", "beat", "write", "time"),
    *("fail", "defer", "reboot", "silence", "crash", "crash", "lose"),
)


def test_a_slot_that_was_given_just_before_a_crash_is_not_given_again() -> None:
    world = started(2)
    world.rollout("r", NEW)
    world.carry_out()
    for _ in range(3):
        world.act(PI)
        world.carry_out()
    assert world.agents[PI].unreported
    world.start()
    for _ in range(4):
        world.act(DeviceId("pi-1"))
        world.carry_out()
    assert world.holding == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3), st.booleans()), min_size=20, max_size=60))
def test_limits_and_order_hold_through_any_crash_and_everything_ends(steps: list[tuple[str, int, bool]]) -> None:
    world = started(4, MaxUnavailable(count=2))
    world.rollout("r", NEW)
    for step, index, flag in steps:
        device = DeviceId(f"pi-{index}")
        match step:
            case "act":
                world.act(device)
            case "stride":
                for _ in range(4):
                    world.act(device)
                    world.carry_out()
            case "beat":
                world.beat(device)
            case "minute":
                world.pass_time(BEAT * 2)
            case "write":
                if world.pending:
                    world.carry_out_one()
            case "time":
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
            case "lose":
                world.lossy = flag
            case "crash":
                if flag and world.pending:
                    late = world.pending[0]
                    world.start()
                    world.pending.insert(0, late)
                    world.carry_out_one()
                else:
                    world.start()
        assert world.holding <= 2
    world.lossy = False
    for bucket in READ_BUCKETS:
        world.read(bucket)
    world.settle()
    world.hurry(60)
    assert world.holding == 0
    status = world.status("r").status
    assert status.upgraded + status.failed == status.total == 4, status
    assert status.phase in (RolloutPhase.COMPLETE, RolloutPhase.FAILED)
    for agent in world.agents.values():
        assert (agent.release == NEW) != (NEW.sha256 in agent.quarantined or _deferred_out(world, agent))


def _deferred_out(world: World, agent: Agent) -> bool:
    desired = world.desired(agent.device)
    return desired is not None and desired.attempt.endswith("-r3") and agent.release == OLD

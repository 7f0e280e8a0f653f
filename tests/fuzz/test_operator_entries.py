"""Whatever stands in the buckets and whatever devices ask for: the operator goes on, and serves everybody else.

A rollout upgrades two devices while hostile entries of a third, and unreadable ones under the keys of all, arrive
between any two steps.
"""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from fleet.capabilities.bus import Deleted, Stored
from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId, ObjectName, Revision
from fleet.contracts.layout import Bucket, Valid
from fleet.contracts.objects import Device, MaxUnavailable, Metadata, RolloutPhase
from fleet.contracts.records import LockRequest, StopRequest
from fleet.operator.events import EntrySeen
from tests.fleet.operator.rollout_world import NEW, World, group
from tests.fuzz.hostile import DEVICE, REQUESTS, STORED, entries, fuzzed, values

stored = entries(*STORED).filter(lambda entry: entry[0] is not Bucket.OBJECTS)
requests = values(*REQUESTS)


class Hostile(World):
    """The world, and one more device that no agent stands for."""

    def stopped(self, request: StopRequest) -> None:
        if request.device != DEVICE:
            super().stopped(request)

    def disturb(self, bucket: Bucket, key: str, value: bytes) -> None:
        """Write it, unless it is a readable record of one of the healthy devices: those only they may write."""
        if isinstance(layout.read(bucket, key, value, Revision(1)), Valid) and not key.startswith(DEVICE):
            return
        self.put(bucket, key, value)

    def ask_for_lock(self, payload: bytes) -> None:
        """A request as the operator's hands take it in."""
        try:
            asked = layout.decode(LockRequest, payload)
        except InvalidValue:
            return
        if asked.device == DEVICE:
            _, instructions = self.brain.lock(asked, self.now)
            self.take(instructions)


def labelled(name: str, ring: str) -> Device:
    return Device(metadata=Metadata(name=ObjectName(name), labels={"ring": ring}))


@fuzzed
@example([(Bucket.INFO, "pi-0", b"")], [], True)  # a new operator cannot read what the device is, but what it got
@given(st.lists(stored, min_size=1, max_size=6), st.lists(requests, max_size=3), st.booleans())
def test_no_entry_and_no_request_stops_the_operator(
    hostile: list[tuple[Bucket, str, bytes]], asked: list[bytes], restarts: bool
) -> None:
    world = Hostile(2)
    for device in world.agents:
        world.store_object(labelled(device, "good"))
    world.store_object(labelled(DEVICE, "hostile"))
    world.start()
    world.hurry(1)
    everyone = MaxUnavailable(count=2)
    world.rollout("good", NEW, group("good", everyone, ring="good"))
    world.rollout("hostile", NEW, group("hostile", everyone, ring="hostile"))
    for number, entry in enumerate(hostile):
        world.disturb(*entry)
        for payload in asked[number : number + 1]:
            world.ask_for_lock(payload)
        world.hurry(1)
        if restarts and number == 0:
            world.start()
    world.hurry(12)
    assert world.status("good").status.phase is RolloutPhase.COMPLETE
    assert {agent.release for agent in world.agents.values()} == {NEW}
    assert len(world.reports) <= 2 * len(hostile) + 1, "each is told once, and once more by a new operator"


@fuzzed
@given(stored, st.booleans(), st.integers(1, 2**40))
def test_the_brain_takes_any_single_entry(hostile: tuple[Bucket, str, bytes], delivered: bool, revision: int) -> None:
    bucket, key, value = hostile
    world = World(1)
    world.start()
    number = Revision(revision)
    for entry in (Stored(bucket, key, number, value), Deleted(bucket, key, Revision(revision + 1))):
        world.take(world.brain.entry(EntrySeen(entry, delivered, world.now)))
    assert DeviceId("pi-0") in world.agents

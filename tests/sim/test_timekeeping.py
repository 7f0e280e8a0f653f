"""A machine without a battery: its time of day after boots, without a network, and under faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fleet.contracts.time import ZERO, Duration
from sim.clock import EPOCH, SimClock
from sim.timekeeping import IMAGE_AGE, SYNCHRONISES_AFTER, TRIES_AGAIN_AFTER, Timekeeper
from sim.world import World

SOON = SYNCHRONISES_AFTER[1]
HOUR = Duration.minutes(60)


class Lab:
    """One clock in an empty world."""

    def __init__(self) -> None:
        self.world = World(1)
        self.clock = SimClock(self.world.loop)
        self.online = True
        self.keeper = Timekeeper(
            self.world.kernel, self.world.streams, "dev-1", self.clock, reachable=lambda: self.online
        )

    def wait(self, length: Duration) -> None:
        async def wait() -> None:
            await self.clock.sleep(length)

        self.world.run(wait())

    @property
    def wrong(self) -> Duration:
        """How wrong the time of day is."""
        return Duration(int(self.clock.wall()) - int(EPOCH) - self.world.kernel.now)


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    with lab.world:
        yield lab


def test_the_first_boot_shows_the_time_of_the_image_until_it_is_synchronised(lab: Lab) -> None:
    lab.wait(Duration.seconds(7))
    lab.keeper.power_on()
    assert lab.wrong == IMAGE_AGE * -1
    lab.wait(SOON)
    assert lab.wrong == ZERO


def test_after_a_power_cut_the_time_is_the_one_saved_last(lab: Lab) -> None:
    lab.keeper.power_on()
    lab.wait(HOUR + HOUR + Duration.minutes(20))
    lab.keeper.power_lost()
    lab.wait(Duration.minutes(5))
    lab.keeper.power_on()
    assert lab.wrong == Duration.minutes(-25)
    assert lab.clock.monotonic() == 0
    lab.wait(SOON)
    assert lab.wrong == ZERO


def test_without_a_network_the_time_stays_wrong(lab: Lab) -> None:
    lab.online = False
    lab.keeper.power_on()
    lab.wait(HOUR)
    assert lab.wrong == IMAGE_AGE * -1
    lab.online = True
    lab.wait(TRIES_AGAIN_AFTER)
    assert lab.wrong == ZERO


def test_a_jump_lasts_until_synchronisation_is_let_go_on(lab: Lab) -> None:
    lab.keeper.power_on()
    lab.wait(SOON)
    lab.keeper.hold()
    lab.keeper.jump(Duration.minutes(-90))
    lab.wait(HOUR)
    assert lab.wrong == Duration.minutes(-90)
    lab.keeper.release()
    assert lab.wrong == ZERO


def test_drift_adds_up_and_survives_a_boot(lab: Lab) -> None:
    lab.keeper.power_on()
    lab.wait(SOON)
    lab.keeper.hold()
    lab.keeper.drift(-1000)
    lab.wait(Duration.seconds(1000))
    assert lab.wrong == Duration.seconds(-1)
    lab.keeper.power_lost()
    lab.keeper.power_on()
    began = lab.wrong
    lab.wait(Duration.seconds(1000))
    assert lab.wrong - began == Duration.seconds(-1)
    lab.keeper.drift(0)
    lab.keeper.release()
    assert lab.wrong == ZERO

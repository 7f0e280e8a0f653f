"""The benchmark measures a living fleet, and its floor does what it says."""

from __future__ import annotations

from fleet.contracts.time import Duration
from harness.bench import measure
from sim.kernel import bare_timeouts


def test_a_small_fleet_is_measured() -> None:
    result = measure(10, slices=2, length=Duration.minutes(10))
    assert result.devices == 10
    assert 2 * 10 * 18 <= result.heartbeats <= 2 * 10 * 22, "one heartbeat per device and 30 s"
    assert result.microseconds_per_heartbeat > result.floor_microseconds > 0
    assert result.simulated_s_per_cpu_s > 0


def test_the_floor_waits_for_every_timeout() -> None:
    assert bare_timeouts(1003, 10) == 1003

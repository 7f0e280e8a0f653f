"""One suite for logins by token: the model of the server with the callout in it, and the real server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fleet.capabilities.bus import Bus
from fleet.contracts.errors import NotPermitted
from fleet.contracts.layout import Bucket
from fleet.contracts.records import Admitted, Revoked
from fleet.contracts.time import Duration, Instant
from tests.conformance.callout_labs import CalloutLab, Main, on_model, on_server
from tests.fleet.identity.callout.provider import token

MOMENT = Duration.millis(5)
LIMIT = Duration.seconds(20)
SECOND = 10**9
IN = Admitted(tokens_from=Instant(0))

OnLab = Callable[[Main], None]


@pytest.fixture(params=["sim", pytest.param("real", marks=pytest.mark.real)])
def on_callout_lab(request: pytest.FixtureRequest, tmp_path: Path) -> OnLab:
    """Runs a story on the model, and on the real server."""
    run = on_model if request.param == "sim" else on_server
    return lambda main: run(main, tmp_path)


def story(tell: Callable[[CalloutLab], Awaitable[None]]) -> Callable[[OnLab], None]:
    def test(on_callout_lab: OnLab) -> None:
        on_callout_lab(tell)

    test.__doc__ = tell.__doc__
    return test


async def until(lab: CalloutLab, holds: Callable[[], bool], limit: Duration = LIMIT) -> None:
    async with lab.clock.timeout(limit):
        while not holds():
            await lab.clock.sleep(MOMENT)


def good(lab: CalloutLab, device: str = "dev-1", lasts: Duration | None = None) -> str:
    now = lab.clock.wall()
    if lasts is None:
        return token(f"user-of-{device}", now)
    return token(f"user-of-{device}", now, exp=(now + lasts) // SECOND)


async def let_in(lab: CalloutLab, device: str = "dev-1") -> Bus:
    await lab.enrol(device, IN)
    await lab.start_callout()
    bus = lab.device(device, lambda: good(lab, device))
    await until(lab, bus.is_connected)
    return bus


async def stays_out(lab: CalloutLab, bus: Bus) -> None:
    await lab.clock.sleep(Duration.seconds(4))
    assert not bus.is_connected()


@story
async def test_a_good_token_opens_what_is_the_devices_own(lab: CalloutLab) -> None:
    bus = await let_in(lab)
    assert await bus.put(Bucket.STATE, "dev-1.upgrade", b"x") == 1
    with pytest.raises(NotPermitted):
        await bus.put(Bucket.STATE, "dev-2.upgrade", b"x")
    with pytest.raises(NotPermitted):
        await bus.entries(Bucket.IDENTITY)
    heard: list[object] = []
    bus.listen(Bucket.DESIRED, "dev-1", heard.append)
    await bus.get(Bucket.STATE, "dev-1.upgrade")
    await lab.operator.put(Bucket.DESIRED, "dev-1.agent", b"new")
    await until(lab, lambda: len(heard) == 1)


@story
async def test_a_client_is_the_device_of_its_token_whatever_it_calls_itself(lab: CalloutLab) -> None:
    await lab.enrol("dev-1", IN)
    await lab.start_callout()
    bus = lab.device("dev-2", lambda: good(lab, "dev-1"))
    await until(lab, bus.is_connected)
    bus.post(Bucket.STATE, "dev-1.upgrade", b"x")
    bus.post(Bucket.STATE, "dev-2.upgrade", b"x")
    await lab.clock.sleep(Duration.seconds(1))
    assert [entry.key for entry in await lab.operator.entries(Bucket.STATE)] == ["dev-1.upgrade"]


@story
async def test_expired_revoked_and_unknown_stay_out(lab: CalloutLab) -> None:
    await let_in(lab, "dev-2")
    await lab.enrol("dev-1", IN)
    expired = lab.device("dev-1", lambda: good(lab, lasts=Duration.seconds(-5)))
    garbage = lab.device("dev-1", lambda: "garbage")
    unknown = lab.device("dev-1", lambda: good(lab, "dev-9"))
    await stays_out(lab, expired)
    assert not garbage.is_connected()
    assert not unknown.is_connected()
    await lab.enrol("dev-1", Revoked(at=lab.clock.wall()))
    await stays_out(lab, lab.device("dev-1", lambda: good(lab)))


@story
async def test_who_is_in_can_tell_whether_it_would_be_let_in_again(lab: CalloutLab) -> None:
    inside = await let_in(lab)
    assert await inside.may_log_in()
    await lab.stop_callout()
    assert not await inside.may_log_in()
    assert inside.is_connected()


@story
async def test_without_a_callout_nobody_comes_in_and_who_is_in_stays(lab: CalloutLab) -> None:
    inside = await let_in(lab)
    await lab.stop_callout()
    late = lab.device("dev-1", lambda: good(lab))
    await stays_out(lab, late)
    assert inside.is_connected()
    await lab.start_callout()
    await until(lab, late.is_connected)


@story
async def test_a_callout_with_keys_that_the_server_does_not_know_lets_nobody_in(lab: CalloutLab) -> None:
    await lab.enrol("dev-1", IN)
    await lab.start_callout(others_keys=True)
    bus = lab.device("dev-1", lambda: good(lab))
    await stays_out(lab, bus)
    await lab.stop_callout()
    await lab.start_callout()
    await until(lab, bus.is_connected)


@story
async def test_a_revoked_device_is_cut_and_stays_out(lab: CalloutLab) -> None:
    bus = await let_in(lab)
    await lab.enrol("dev-1", Revoked(at=lab.clock.wall()))
    await until(lab, lambda: not bus.is_connected(), Duration.seconds(5))
    await stays_out(lab, bus)
    await lab.enrol("dev-1", IN)
    await until(lab, bus.is_connected)


@story
async def test_a_connection_ends_with_its_token(lab: CalloutLab) -> None:
    await lab.enrol("dev-1", IN)
    await lab.start_callout()
    text = good(lab, lasts=Duration.seconds(6))
    end = (lab.clock.wall() + Duration.seconds(6)) // SECOND * SECOND
    bus = lab.device("dev-1", lambda: text)
    await until(lab, bus.is_connected)
    await until(lab, lambda: not bus.is_connected())
    assert Duration.millis(-200) < lab.clock.wall() - Instant(end) < Duration.seconds(2)
    await stays_out(lab, bus)


@story
async def test_a_session_is_replaced_before_its_token_ends(lab: CalloutLab) -> None:
    await lab.enrol("dev-1", IN)
    await lab.start_callout()
    life = Duration.seconds(8)
    bus = lab.device("dev-1", lambda: good(lab, lasts=life), life)
    await until(lab, bus.is_connected)
    sessions: list[int] = []
    bus.on_session(lambda: sessions.append(1))
    began = lab.clock.monotonic()
    while lab.clock.monotonic() - began < Duration.seconds(20):
        await bus.put(Bucket.STATE, "dev-1.upgrade", b"x")
        await lab.clock.sleep(Duration.millis(100))
    assert len(sessions) >= 3


@story
async def test_after_a_crash_of_the_server_everybody_is_asked_about_again(lab: CalloutLab) -> None:
    bus = await let_in(lab)
    await lab.crash()
    await until(lab, lambda: not bus.is_connected())
    await lab.restart()
    await until(lab, bus.is_connected)
    await lab.enrol("dev-1", Revoked(at=lab.clock.wall()))
    await until(lab, lambda: not bus.is_connected(), Duration.seconds(10))

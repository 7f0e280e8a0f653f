"""The callout and a real nats-server: who comes in, for how long, and how it ends."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from fleet.adapters.nats import NatsBus
from fleet.contracts.errors import NotPermitted
from fleet.contracts.layout import Bucket
from fleet.contracts.time import Duration, Instant
from tests.fleet.identity.callout.provider import claims, jwks, key, sign
from tests.fleet.identity.callout.stage import CLOCK, CalloutStage, Shows, shown, story, until

REVOCATION_BOUND = Duration.seconds(5)
"""What docs/explanation/identity.md promises, while a callout runs and hears the push."""
SECOND = 10**9


async def stays_out(bus: NatsBus, length: Duration = Duration.millis(2500)) -> None:
    await CLOCK.sleep(length)
    assert not bus.is_connected()


@story
async def test_a_device_with_a_good_token_reads_and_writes_its_own(stage: CalloutStage) -> None:
    await stage.admit("dev-1")
    stage.callout()
    device = await stage.connected("dev-1", Shows(shown("dev-1")))
    assert await device.put(Bucket.STATE, "dev-1.upgrade", b"mine") == 1
    with pytest.raises(NotPermitted):
        await device.put(Bucket.STATE, "dev-2.upgrade", b"not mine")
    heard: list[object] = []
    device.listen(Bucket.DESIRED, "dev-1", heard.append)
    device.serve("fleet.stop.dev-1", lambda request: b"stops " + request.payload)
    stage.operator.serve("fleet.lock.*", lambda request: b"granted to " + request.subject.encode())
    await device.get(Bucket.STATE, "dev-1.upgrade")
    await stage.operator.put(Bucket.DESIRED, "dev-1.agent", b"new")
    await until(lambda: len(heard) == 1)
    assert await stage.operator.request("fleet.stop.dev-1", b"a", Duration.seconds(2)) == b"stops a"
    assert await device.request("fleet.lock.dev-1", b"", Duration.seconds(2)) == b"granted to fleet.lock.dev-1"


@story
async def test_everybody_else_stays_out(stage: CalloutStage) -> None:
    await stage.admit("dev-1")
    await stage.admit("dev-2")
    await stage.revoke("dev-2")
    callout = await stage.answering_callout()
    allowed = callout.counts.allowed
    now = CLOCK.wall() // SECOND
    strangers = [
        stage.bus("dev-1", Shows(text))
        for text in (
            "garbage",
            shown("dev-9"),
            shown("dev-2"),
            shown("dev-1", iat=now - 20, exp=now - 10),
            shown("dev-1", aud="other"),
            sign(claims("user-of-dev-1", CLOCK.wall()), key("k9")),
        )
    ]
    await until(lambda: callout.counts.refused >= 2 * len(strangers))
    assert not any(bus.is_connected() for bus in strangers)
    assert callout.counts.allowed == allowed


@story
async def test_without_a_callout_nobody_comes_in_and_who_is_in_stays(stage: CalloutStage) -> None:
    await stage.admit("dev-1")
    callout = stage.callout()
    inside = await stage.connected("dev-1", Shows(shown("dev-1")))
    stage.callouts.remove(callout)
    await callout.stop()
    late = stage.bus("dev-1", Shows(shown("dev-1")))
    await stays_out(late)
    assert inside.is_connected()
    stage.callout()
    await until(late.is_connected)


@story
async def test_a_revoked_device_is_cut_and_stays_out_within_the_bound(stage: CalloutStage) -> None:
    await stage.admit("dev-1")
    await stage.admit("dev-2")
    callout = stage.callout()
    device, clone, other = [await stage.connected(name, Shows(shown(name))) for name in ("dev-1", "dev-1", "dev-2")]
    sessions: list[str] = []
    other.on_session(lambda: sessions.append("dev-2"))
    await stage.revoke("dev-1")
    began = CLOCK.monotonic()
    await until(lambda: not device.is_connected() and not clone.is_connected(), REVOCATION_BOUND)
    print(f"cut after {CLOCK.monotonic() - began}")
    await stays_out(device)
    assert not clone.is_connected()
    assert other.is_connected()
    assert sessions == ["dev-2"]
    assert callout.counts.cut == 2


@story
async def test_a_revocation_that_nobody_heard_takes_effect_when_a_callout_starts(stage: CalloutStage) -> None:
    await stage.admit("dev-1")
    first = stage.callout()
    device = await stage.connected("dev-1", Shows(shown("dev-1")))
    stage.callouts.remove(first)
    await first.stop()
    await stage.revoke("dev-1")
    await CLOCK.sleep(Duration.millis(500))
    assert device.is_connected()
    stage.callout()
    await until(lambda: not device.is_connected(), REVOCATION_BOUND)


@story
async def test_after_a_new_enrolment_only_newer_tokens_are_good(stage: CalloutStage) -> None:
    await stage.admit("dev-1")
    stage.callout()
    now = CLOCK.wall() // SECOND
    login = Shows(shown("dev-1", iat=now - 60))
    device = await stage.connected("dev-1", login)
    await stage.admit("dev-1", Instant((now - 5) * SECOND))
    await until(lambda: not device.is_connected(), REVOCATION_BOUND)
    login.text = shown("dev-1", iat=now - 1)
    await until(device.is_connected)
    await stays_connected(device)


async def stays_connected(bus: NatsBus) -> None:
    await CLOCK.sleep(Duration.seconds(3))
    assert bus.is_connected()


@story
async def test_the_connection_ends_with_its_token(stage: CalloutStage) -> None:
    await stage.admit("dev-1")
    await stage.answering_callout()
    until_then = CLOCK.wall() // SECOND + 3
    device = await stage.connected("dev-1", Shows(shown("dev-1", exp=until_then)))
    await until(lambda: not device.is_connected(), Duration.seconds(5))
    left = CLOCK.wall() - Instant(until_then * SECOND)
    assert Duration.millis(-200) < left < Duration.seconds(1.5)
    await stays_out(device)


@story
async def test_two_callouts_share_the_questions(stage: CalloutStage) -> None:
    names = [f"dev-{number}" for number in range(1, 41)]
    for name in names:
        await stage.admit(name)
    one, other = stage.callout(), stage.callout()
    await stage.connected("dev-1", Shows(shown("dev-1")))
    await CLOCK.sleep(Duration.millis(500))
    for name in names:
        await stage.connected(name, Shows(shown(name)))
    assert one.counts.allowed > 5
    assert other.counts.allowed > 5
    assert one.counts.allowed + other.counts.allowed == len(names) + 1
    stage.callouts.remove(one)
    await one.stop()
    await stage.connected("dev-1", Shows(shown("dev-1")))


@story
async def test_a_new_signing_key_is_fetched_once_and_old_keys_last_while_the_provider_is_down(
    stage: CalloutStage,
) -> None:
    await stage.admit("dev-1")
    stage.callout()
    await stage.connected("dev-1", Shows(shown("dev-1")))
    stage.provider.up = False
    await stage.connected("dev-1", Shows(shown("dev-1")))
    asked = stage.provider.asked
    stage.provider.up = True
    stage.provider.document = jwks(key(), key("k2"))
    await CLOCK.sleep(Duration.seconds(10))
    rotated = [Shows(sign(claims("user-of-dev-1", CLOCK.wall()), key("k2"))) for _ in range(20)]
    await asyncio.gather(*(stage.connected("dev-1", login) for login in rotated))
    assert stage.provider.asked == asked + 1


@story
async def test_an_unreadable_enrolment_concerns_its_own_device_alone(stage: CalloutStage) -> None:
    await stage.admit("dev-1")
    await stage.admit("dev-2")
    stage.callout()
    healthy, other = [await stage.connected(name, Shows(shown(name))) for name in ("dev-1", "dev-2")]
    for sample in (b"", b"\xff\xfe", b"[" * 3000, json.dumps({"device": "dev-2"}).encode()):
        await stage.enrolment.put(Bucket.IDENTITY, "dev-1", sample)
    await stage.server.store_raw("operator", Bucket.IDENTITY, b"\xff.*.>", b"x")
    late = stage.bus("dev-1", Shows(shown("dev-1")))
    await stays_out(late)
    assert healthy.is_connected()
    assert other.is_connected()
    await stage.admit("dev-1")
    await until(late.is_connected)


@pytest.mark.real
def test_no_token_and_no_key_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokens: list[str] = []

    async def tell(stage: CalloutStage) -> None:
        await stage.admit("dev-1")
        tokens.extend((shown("dev-1"), shown("dev-2"), "hunter2.hunter2.hunter2"))
        stage.callout()
        stage.bus("dev-2", Shows(tokens[1]))
        stage.bus("dev-3", Shows(tokens[2]))
        await stage.connected("dev-1", Shows(tokens[0]))
        await CLOCK.sleep(Duration.seconds(1))
        await stage.revoke("dev-1")
        await CLOCK.sleep(Duration.seconds(1))

    with caplog.at_level(logging.DEBUG):
        story(tell)(tmp_path)
    said = caplog.text + (tmp_path / "nats.log").read_text()
    assert "is no device of this fleet" in said
    assert "cut a connection of dev-1" in said
    for text in tokens:
        assert not any(part in said for part in text.split("."))

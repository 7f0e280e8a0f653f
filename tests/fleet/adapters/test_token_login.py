"""A device's login by token: kept while it is good for long, renewed in time, and never at the cost of a good one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path, PurePosixPath

import pytest

from fleet.adapters.token_login import AGAIN, REFUSED_FOR, TokenFile, TokenLoginSource, auth_in_file
from fleet.capabilities.identity import Token
from fleet.contracts.auth import FleetDeviceAuth, render
from fleet.contracts.errors import (
    Disconnected,
    FleetError,
    InvalidValue,
    NotPermitted,
    TimedOut,
    Unavailable,
)
from fleet.contracts.time import Duration, Instant
from tests.fleet.adapters.hand_clock import HandClock

AUTH = FleetDeviceAuth(
    issuer="http://idp.test", scopes=("openid",), user="1", key="2", private_key=PurePosixPath("/etc/key.pem")
)
LIFE = Duration.minutes(60)


class Mint:
    """Hands out numbered tokens, or fails as it is told."""

    def __init__(self, clock: HandClock) -> None:
        self.asked: list[FleetDeviceAuth] = []
        self.fails: FleetError | None = None
        self._clock = clock

    async def mint(self, auth: FleetDeviceAuth) -> Token:
        self.asked.append(auth)
        if self.fails is not None:
            raise self.fails
        now = self._clock.monotonic()
        return Token(f"token-{len(self.asked)}", now + LIFE, now + LIFE.scaled(0.8))


class Lab:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "auth.json"
        self.path.write_bytes(render(AUTH))
        self.clock = HandClock()
        self.boot = self.clock
        self.mint = Mint(self.clock)
        self.left = folder / "run" / "fleet-agent" / "token.json"
        self.source = self.started()

    def started(self) -> TokenLoginSource:
        """Another instance on the same device, whose `/run` was empty when it booted."""
        shared = TokenFile(self.left, self.boot.monotonic)
        return TokenLoginSource(auth_in_file(self.path), self.mint, self.clock, shared)


def on(tell: Callable[[Lab], Coroutine[object, object, None]]) -> Callable[[Path], None]:
    def test(tmp_path: Path) -> None:
        asyncio.run(tell(Lab(tmp_path)))

    test.__doc__ = tell.__doc__
    return test


@on
async def test_a_token_is_kept_until_most_of_its_life_is_over(lab: Lab) -> None:
    first = await lab.source.read()
    assert (first.text, first.expires) == ("token-1", Instant(LIFE))
    lab.clock.pass_by(Duration.minutes(47))
    assert await lab.source.read() == first
    lab.clock.pass_by(Duration.minutes(2))
    assert (await lab.source.read()).text == "token-2"


@on
async def test_a_provider_that_is_away_does_not_cost_a_good_token(lab: Lab) -> None:
    first = await lab.source.read()
    lab.clock.pass_by(Duration.minutes(55))
    for error in (Unavailable("x"), TimedOut("x"), Disconnected("x")):
        lab.mint.fails = error
        assert await lab.source.read() == first
    lab.clock.pass_by(Duration.minutes(6))
    with pytest.raises(Disconnected):
        await lab.source.read()
    lab.mint.fails = None
    assert (await lab.source.read()).text.startswith("token-")


@on
async def test_a_refusal_is_not_hidden_by_a_token_that_is_still_good(lab: Lab) -> None:
    await lab.source.read()
    lab.clock.pass_by(Duration.minutes(55))
    lab.mint.fails = NotPermitted("x")
    with pytest.raises(NotPermitted):
        await lab.source.read()


@on
async def test_another_key_is_used_at_once(lab: Lab) -> None:
    await lab.source.read()
    rotated = AUTH.model_copy(update={"key": "3"})
    lab.path.write_bytes(render(rotated))
    assert (await lab.source.read()).text == "token-2"
    assert lab.mint.asked == [AUTH, rotated]
    lab.mint.fails = Unavailable("x")
    lab.path.write_bytes(render(AUTH))
    with pytest.raises(Unavailable):
        await lab.source.read()


@on
async def test_what_is_no_identity_is_said(lab: Lab) -> None:
    lab.path.write_bytes(b'{"issuer": "a-secret"}')
    with pytest.raises(InvalidValue) as caught:
        await lab.source.read()
    assert "a-secret" not in str(caught.value)
    lab.path.unlink()
    with pytest.raises(Unavailable):
        await lab.source.read()


@on
async def test_a_token_that_was_turned_away_is_replaced_but_not_at_every_try(lab: Lab) -> None:
    first = await lab.source.read()
    lab.source.turned_away()
    assert (await lab.source.read()).text == first.text
    lab.clock.pass_by(AGAIN)
    second = await lab.source.read()
    assert second.text != first.text
    lab.source.turned_away()
    lab.clock.pass_by(Duration(AGAIN - 1))
    assert (await lab.source.read()).text == second.text
    lab.clock.pass_by(Duration(1))
    assert (await lab.source.read()).text != second.text
    assert len(lab.mint.asked) == 3


@on
async def test_a_token_that_was_turned_away_is_shown_again_while_the_provider_is_away(lab: Lab) -> None:
    first = await lab.source.read()
    lab.source.turned_away()
    lab.clock.pass_by(AGAIN)
    lab.mint.fails = Unavailable("away")
    assert (await lab.source.read()).text == first.text
    lab.mint.fails = None
    assert (await lab.source.read()).text != first.text


@on
async def test_the_instances_of_a_device_share_a_token(lab: Lab) -> None:
    first = await lab.source.read()
    lab.clock.pass_by(Duration.minutes(10))
    lab.mint.fails = Unavailable("away")
    again = await lab.started().read()
    assert (again.text, again.expires) == (first.text, first.expires)
    assert len(lab.mint.asked) == 1
    assert lab.left.stat().st_mode & 0o777 == 0o600


@on
async def test_a_shared_token_that_is_turned_away_is_replaced_at_once(lab: Lab) -> None:
    first = await lab.source.read()
    other = lab.started()
    assert (await other.read()).text == first.text
    other.turned_away()
    assert (await other.read()).text != first.text


@on
async def test_what_others_left_is_used_only_when_it_is_of_this_identity_and_of_now(lab: Lab) -> None:
    first = await lab.source.read()
    shared = lab.left
    content = shared.read_bytes()
    for name, spoil in (
        ("another key", lambda: lab.path.write_bytes(render(AUTH.model_copy(update={"key": "3"})))),
        ("garbage", lambda: shared.write_bytes(b"{")),
        ("nothing", lambda: shared.unlink()),
        ("over", lambda: lab.clock.pass_by(LIFE)),
    ):
        lab.path.write_bytes(render(AUTH))
        shared.write_bytes(content)
        spoil()
        assert (await lab.started().read()).text != first.text, name


@on
async def test_a_token_that_cannot_be_left_to_others_is_used_all_the_same(lab: Lab) -> None:
    lab.left.mkdir(parents=True)
    assert (await lab.source.read()).text == "token-1"
    assert (await lab.source.read()).text == "token-1"


@on
async def test_who_was_refused_is_not_at_the_provider_at_every_connection(lab: Lab) -> None:
    lab.mint.fails = NotPermitted("unknown key")
    for _ in range(20):
        with pytest.raises(NotPermitted):
            await lab.source.read()
    assert len(lab.mint.asked) == 1
    lab.clock.pass_by(REFUSED_FOR)
    lab.mint.fails = None
    assert (await lab.source.read()).text == "token-2"


@on
async def test_a_new_identity_is_tried_at_once(lab: Lab) -> None:
    lab.mint.fails = NotPermitted("unknown key")
    with pytest.raises(NotPermitted):
        await lab.source.read()
    lab.mint.fails = None
    lab.path.write_bytes(render(AUTH.model_copy(update={"key": "3"})))
    assert (await lab.source.read()).text == "token-2"

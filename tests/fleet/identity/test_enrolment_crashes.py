"""Enrolment, rotation, revocation and re-enrolment are stopped before every operation, and then simply run again.

At no moment may a device that worked stop working (but for one that was revoked), and in the end everything is as if
nothing had happened: one key at the provider, one on the device, the same one, and the record that belongs to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from fleet.contracts.errors import NotPermitted
from fleet.contracts.records import Admitted, Revoked
from fleet.identity.device_keys import AUTH, LOCK, FileDeviceKeys
from fleet.identity.enrolment import Places, enroll, re_enroll, revoke, rotate_key
from sim.world import World
from tests.fleet.identity.enrolment_world import DEVICE, Budget, Stopped, Workshop

Work = Callable[[Workshop, Places, FileDeviceKeys], Awaitable[object]]
Check = Callable[[Workshop], Awaitable[None]]


async def enrolling(shop: Workshop, places: Places, keys: FileDeviceKeys) -> None:
    await enroll(shop.intent, keys, places)


async def rotating(shop: Workshop, places: Places, keys: FileDeviceKeys) -> None:
    await rotate_key(shop.intent, keys, places)


async def revoking(shop: Workshop, places: Places, keys: FileDeviceKeys) -> None:
    await revoke(DEVICE, "lost", places)


async def enrolling_again(shop: Workshop, places: Places, keys: FileDeviceKeys) -> None:
    await re_enroll(shop.intent, keys, places)


async def is_whole(shop: Workshop) -> None:
    """One key, everywhere the same, and it works."""
    auth, record, user = await shop.auth(), await shop.record(), shop.user()
    assert auth is not None
    assert record is not None
    assert isinstance(record.standing, Admitted)
    assert (record.user, auth.user) == (user.id, user.id)
    assert [*user.keys] == [auth.key]
    assert user.is_active
    assert user.has_jwt_tokens
    assert {*shop.folder.names} - {LOCK} == {AUTH, auth.private_key.name}
    assert record.standing.tokens_from <= shop.clock.wall()
    assert await shop.works()


async def is_out(shop: Workshop) -> None:
    """Nothing of it is good any more."""
    record = await shop.record()
    assert record is not None
    assert isinstance(record.standing, Revoked)
    assert not shop.user().is_active
    assert not shop.user().keys
    with pytest.raises(NotPermitted):
        await shop.works()


async def keeps_working(shop: Workshop) -> None:
    assert await shop.works()


async def is_out_already_if_the_record_says_so(shop: Workshop) -> None:
    """The record comes first: before it nothing is taken away, and from then on the callout refuses."""
    record = await shop.record()
    assert record is not None
    if isinstance(record.standing, Admitted):
        assert shop.user().is_active
        assert await shop.works()


async def is_admitted_only_with_its_new_key(shop: Workshop) -> None:
    """While the record lets it in, no key is good but those made since."""
    record = await shop.record()
    assert record is not None
    if isinstance(record.standing, Admitted):
        assert len(shop.user().keys) == 1


async def nothing(shop: Workshop) -> None:
    pass


CASES: dict[str, tuple[tuple[Work, ...], Work, Check, Check]] = {
    "enroll": ((), enrolling, nothing, is_whole),
    "rotate": ((enrolling,), rotating, keeps_working, is_whole),
    "revoke": ((enrolling,), revoking, is_out_already_if_the_record_says_so, is_out),
    "re-enroll": ((enrolling, revoking), enrolling_again, is_admitted_only_with_its_new_key, is_whole),
}


def in_a_workshop(tell: Callable[[Workshop], Coroutine[Any, Any, int]]) -> int:
    with World(1) as world:

        async def told() -> int:
            shop = Workshop(world)
            await shop.ready()
            return await tell(shop)

        return world.run(told())


async def stopped_and_run_again(shop: Workshop, case: str, until: int) -> int:
    before, work, meanwhile, after = CASES[case]
    for earlier in before:
        await earlier(shop, *shop.program())
    budget = Budget(until)
    with suppress(Stopped):
        await work(shop, *shop.program(budget))
    await meanwhile(shop)
    await work(shop, *shop.program())
    await after(shop)
    return len(budget.done)


@pytest.mark.parametrize("case", CASES)
def test_stopped_anywhere_it_is_run_again(case: str) -> None:
    for until in range(400):
        done = in_a_workshop(lambda shop, until=until: stopped_and_run_again(shop, case, until))  # type: ignore[misc]  # a lambda with a default, to bind the loop's variable
        if done < until:
            assert done > (10 if case == "revoke" else 40)
            return
    raise AssertionError(f"{case} has no end")


def test_twice_is_as_once() -> None:
    async def tell(shop: Workshop) -> int:
        first = await enroll(shop.intent, shop.program()[1], shop.program()[0])
        record = await shop.record()
        again = await enroll(shop.intent, shop.program()[1], shop.program()[0])
        assert (first.is_new, again.is_new) == (True, False)
        assert (again.auth, await shop.record()) == (first.auth, record)
        await is_whole(shop)
        return 0

    in_a_workshop(tell)

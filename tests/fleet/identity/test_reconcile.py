"""After the bus was restored from an older store the provider brings the enrolments back, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import cast

import pytest

from fleet.capabilities.identity import AccountState, IdentityProvider, MachineUser
from fleet.contracts import layout
from fleet.contracts.errors import Conflict, Refused
from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import Bucket
from fleet.contracts.records import Admitted, Enrolment, Revoked
from fleet.contracts.time import Duration, Instant
from fleet.identity.enrolment import enroll, re_enroll, revoke
from fleet.identity.reconcile import Admit, Finding, Reconciled, Refuse, Unclear, compare, reconcile
from sim.world import World
from tests.fleet.identity.enrolment_world import DEVICE, Budget, Stopped, Workshop
from tests.fleet.identity.test_enrolment import enrolled, in_a_workshop

ACTIVE = MachineUser("7", DEVICE, AccountState.ACTIVE, True)
INACTIVE = MachineUser("7", DEVICE, AccountState.INACTIVE, True)
IN = Enrolment(device=DEVICE, user="7", standing=Admitted(tokens_from=Instant(0)))
OUT = Enrolment(device=DEVICE, user="7", standing=Revoked(at=Instant(0)))
ROLE = "fleet-device"


@pytest.mark.parametrize(
    ("record", "user", "has_keys", "expected"),
    [
        (IN, ACTIVE, True, type(None)),
        (OUT, INACTIVE, True, type(None)),
        (None, ACTIVE, True, Admit),
        (None, ACTIVE, False, type(None)),
        (None, INACTIVE, True, Refuse),
        (None, INACTIVE, False, Refuse),
        (IN, INACTIVE, True, Refuse),
        (IN.model_copy(update={"user": "8"}), ACTIVE, True, Unclear),
        (IN.model_copy(update={"user": "8"}), INACTIVE, True, Unclear),
        (OUT, ACTIVE, True, Unclear),
        (IN, None, False, Unclear),
        (OUT, None, False, type(None)),
    ],
)
def test_what_has_one_right_answer(
    record: Enrolment | None, user: MachineUser | None, has_keys: bool, expected: type[Finding] | type[None]
) -> None:
    assert type(compare(DEVICE, record, user, has_keys)) is expected


async def restored(shop: Workshop, *, device: DeviceId = DEVICE) -> None:
    """The store that came back is from before the device's record."""
    found = await shop.program()[0].enrolments.read(device)
    await shop.bus.delete(Bucket.IDENTITY, device, found.revision)


async def reconciled(shop: Workshop, only_look: bool = False) -> Reconciled:
    places, _ = shop.program()
    return await reconcile(places.idp, places.enrolments, ROLE, only_look)


@in_a_workshop
async def test_a_lost_enrolment_comes_back_without_a_visit(shop: Workshop) -> None:
    await enrolled(shop)
    await restored(shop)
    looked = await reconciled(shop, only_look=True)
    assert [type(finding) for finding in looked.findings] == [Admit]
    assert (await shop.program()[0].enrolments.read(DEVICE)).record is None, "it only looked"
    assert (await reconciled(shop)).findings == looked.findings
    record = (await shop.program()[0].enrolments.read(DEVICE)).record
    assert record is not None
    assert record.user == shop.user().id
    assert isinstance(record.standing, Admitted)
    now = await shop.program()[0].idp.now()
    assert Instant(now - Duration.seconds(5)) <= record.standing.tokens_from <= now, "tokens from before are not good"
    assert await shop.works()
    assert await reconciled(shop) == Reconciled((), (), 1)


@in_a_workshop
async def test_a_lost_revocation_comes_back(shop: Workshop) -> None:
    await enrolled(shop)
    places, _ = shop.program()
    before = (await places.enrolments.read(DEVICE)).record
    assert before is not None
    await revoke(DEVICE, "stolen", places)
    await shop.bus.put(Bucket.IDENTITY, DEVICE, layout.encode(before))
    assert [type(finding) for finding in (await reconciled(shop)).findings] == [Refuse]
    record = (await places.enrolments.read(DEVICE)).record
    assert record is not None
    assert isinstance(record.standing, Revoked)
    assert await reconciled(shop) == Reconciled((), (), 1)


@in_a_workshop
async def test_a_device_whose_revocation_was_lost_with_its_record_may_be_enrolled_again(shop: Workshop) -> None:
    await enrolled(shop)
    places, keys = shop.program()
    await revoke(DEVICE, "lent", places)
    await restored(shop)
    with pytest.raises(Refused):
        await enroll(shop.intent, keys, places)
    await re_enroll(shop.intent, keys, places)
    assert await shop.works()


@in_a_workshop
async def test_what_two_histories_may_have_led_to_is_left_to_a_person(shop: Workshop) -> None:
    """A store from between a revocation and the new enrolment looks like a revocation that was not finished."""
    await enrolled(shop)
    places, keys = shop.program()
    await revoke(DEVICE, "lent", places)
    revoked = (await places.enrolments.read(DEVICE)).record
    assert revoked is not None
    await re_enroll(shop.intent, keys, places)
    await shop.bus.put(Bucket.IDENTITY, DEVICE, layout.encode(revoked))
    (finding,) = (await reconciled(shop)).findings
    assert isinstance(finding, Unclear)
    assert f"fleet device revoke {DEVICE}" in finding.advice
    assert f"fleet device re-enroll {DEVICE}" in finding.advice
    assert (await places.enrolments.read(DEVICE)).record == revoked


@in_a_workshop
async def test_an_unreadable_record_is_told_and_left(shop: Workshop) -> None:
    await enrolled(shop)
    await shop.bus.put(Bucket.IDENTITY, DEVICE, b"garbage")
    found = await reconciled(shop)
    assert found.findings == ()
    assert [key for key, _ in found.unreadable] == [DEVICE]
    entry = await shop.bus.get(Bucket.IDENTITY, DEVICE)
    assert getattr(entry, "value", None) == b"garbage"


@in_a_workshop
async def test_others_with_a_name_like_a_device_are_no_devices(shop: Workshop) -> None:
    """The administrator is a machine user, too, and has no role of a device."""
    assert await reconciled(shop) == Reconciled((), (), 0)


class Overtaken:
    """The provider, and somebody who revokes the device just before its clock is read for the new record."""

    def __init__(self, shop: Workshop) -> None:
        self._places, _ = shop.program()

    def __getattr__(self, name: str) -> object:
        return getattr(self._places.idp, name)

    async def now(self) -> Instant:
        await revoke(DEVICE, "stolen", self._places)
        return await self._places.idp.now()


@in_a_workshop
async def test_who_writes_meanwhile_is_not_overwritten(shop: Workshop) -> None:
    await enrolled(shop)
    await restored(shop)
    places, _ = shop.program()
    with pytest.raises(Conflict):
        await reconcile(cast(IdentityProvider, Overtaken(shop)), places.enrolments, ROLE)
    record = (await places.enrolments.read(DEVICE)).record
    assert record is not None
    assert isinstance(record.standing, Revoked)
    assert record.standing.reason == "stolen"


Command = Callable[[Workshop, Budget], Awaitable[object]]


async def enrolling(shop: Workshop, budget: Budget) -> object:
    places, keys = shop.program(budget)
    return await enroll(shop.intent, keys, places)


async def revoking(shop: Workshop, budget: Budget) -> object:
    return await revoke(DEVICE, "stolen", shop.program(budget)[0])


async def enrolling_again(shop: Workshop, budget: Budget) -> object:
    places, keys = shop.program(budget)
    return await re_enroll(shop.intent, keys, places)


async def is_admitted(shop: Workshop) -> bool:
    record = (await shop.program()[0].enrolments.read(DEVICE)).record
    return record is not None and isinstance(record.standing, Admitted)


@pytest.mark.parametrize(
    ("before", "command", "admitted"),
    [((), enrolling, True), ((enrolling,), revoking, False), ((enrolling, revoking), enrolling_again, True)],
    ids=["enroll", "revoke", "re-enroll"],
)
def test_between_any_two_steps_of_a_command_it_may_run_and_the_command_ends_as_it_should(
    before: tuple[Command, ...], command: Command, admitted: bool
) -> None:
    def stopped_after(operations: int) -> bool:
        with World(1) as world:

            async def told() -> bool:
                shop = Workshop(world)
                await shop.ready()
                for earlier in before:
                    await earlier(shop, Budget())
                with suppress(Stopped):
                    await command(shop, Budget(until=operations))
                    return False
                was_revoked = before and not await is_admitted(shop)
                await reconciled(shop)
                assert not (was_revoked and await is_admitted(shop)), "nobody but a person ends a revocation"
                await command(shop, Budget())
                assert await is_admitted(shop) is admitted
                assert (await reconciled(shop)).findings == ()
                return True

            return world.run(told())

    points = next(operations for operations in count() if not stopped_after(operations))
    assert points > 10

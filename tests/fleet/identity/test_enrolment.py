"""Enrolment against a provider that is slow, away, or of another opinion; and what a re-enrolment ends for good."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fleet.capabilities.http import HttpRequest, HttpResponse
from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue, NotFound, NotPermitted, Refused, TimedOut, Unavailable
from fleet.contracts.ids import Revision
from fleet.contracts.layout import Bucket
from fleet.contracts.records import Admitted, Revoked
from fleet.contracts.time import Duration, Instant
from fleet.identity.enrolment import SHOWS_WITHIN, enroll, re_enroll, revoke, rotate_key
from fleet.identity.enrolments import Enrolments
from sim.world import World
from tests.fleet.identity.enrolment_world import DEVICE, Workshop


def in_a_workshop(tell: Callable[[Workshop], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        with World(1) as world:

            async def told() -> None:
                shop = Workshop(world)
                await shop.ready()
                await tell(shop)

            world.run(told())

    test.__doc__ = tell.__doc__
    return test


async def enrolled(shop: Workshop) -> None:
    places, keys = shop.program()
    await enroll(shop.intent, keys, places)


def shows_keys_late(shop: Workshop, after: Duration) -> None:
    """The provider takes keys at once, and knows them for tokens only later."""
    added: list[Instant] = []
    handle = shop.server.handle

    def late(request: HttpRequest) -> HttpResponse:
        if request.url.endswith("/AddKey"):
            added.append(shop.clock.monotonic())
        asks_for_token = request.url.endswith("/token") and b"zitadel%3Aaud" not in request.body
        if asks_for_token and added and shop.clock.monotonic() - added[-1] < after:
            return HttpResponse(400, (), b'{"error": "invalid_grant"}')
        return handle(request)

    shop.server.handle = late


@in_a_workshop
async def test_a_key_may_show_late(shop: Workshop) -> None:
    shows_keys_late(shop, Duration.seconds(50))
    await enrolled(shop)
    assert await shop.works()


@in_a_workshop
async def test_a_key_that_never_shows_is_never_used(shop: Workshop) -> None:
    await enrolled(shop)
    before = await shop.auth()
    shows_keys_late(shop, Duration.minutes(10))
    begin = shop.clock.monotonic()
    places, keys = shop.program()
    with pytest.raises(NotPermitted):
        await rotate_key(shop.intent, keys, places)
    assert SHOWS_WITHIN <= shop.clock.monotonic() - begin < SHOWS_WITHIN + Duration.seconds(10)
    assert await shop.auth() == before
    await shop.clock.sleep(Duration.minutes(10))
    assert await shop.works()


@in_a_workshop
async def test_a_device_is_out_although_the_provider_is_away(shop: Workshop) -> None:
    await enrolled(shop)
    shop.server.up = False
    with pytest.raises(Unavailable):
        await revoke(DEVICE, "lost", shop.program()[0])
    record = await shop.record()
    assert record is not None
    assert isinstance(record.standing, Revoked)
    assert record.standing.reason == "lost"
    shop.server.up = True
    assert await revoke(DEVICE, "another reason", shop.program()[0]) == record
    with pytest.raises(NotPermitted):
        await shop.works()


@in_a_workshop
async def test_only_a_re_enrolment_admits_a_revoked_device(shop: Workshop) -> None:
    await enrolled(shop)
    await revoke(DEVICE, "", shop.program()[0])
    places, keys = shop.program()
    for work in (enroll, rotate_key):
        with pytest.raises(Refused, match="re-enroll"):
            await work(shop.intent, keys, places)
    await re_enroll(shop.intent, keys, places)
    assert await shop.works()


@in_a_workshop
async def test_a_user_that_somebody_deactivated_is_not_enrolled(shop: Workshop) -> None:
    await enrolled(shop)
    shop.user().is_active = False
    places, keys = shop.program()
    with pytest.raises(Refused, match="deactivated"):
        await enroll(shop.intent, keys, places)
    await re_enroll(shop.intent, keys, places)
    assert await shop.works()


@in_a_workshop
async def test_no_token_from_before_a_re_enrolment_is_young_enough(shop: Workshop) -> None:
    await enrolled(shop)
    last = shop.clock.wall()
    await revoke(DEVICE, "", shop.program()[0])
    places, keys = shop.program()
    await re_enroll(shop.intent, keys, places)
    record = await shop.record()
    assert record is not None
    assert isinstance(record.standing, Admitted)
    issued_at = Instant(last // 10**9 * 10**9)
    assert issued_at < record.standing.tokens_from <= shop.clock.wall()


@in_a_workshop
async def test_what_was_never_enrolled_is_said(shop: Workshop) -> None:
    places, keys = shop.program()
    for work in (rotate_key, re_enroll):
        with pytest.raises(NotFound, match="enroll"):
            await work(shop.intent, keys, places)
    with pytest.raises(NotFound):
        await revoke(DEVICE, "", places)


@in_a_workshop
async def test_a_user_without_a_record_is_revoked_all_the_same(shop: Workshop) -> None:
    """Enrolment was stopped before it wrote the record, and nobody will run it again."""
    await shop.program()[0].idp.create_device_user(DEVICE)
    record = await revoke(DEVICE, "", shop.program()[0])
    assert record.user == shop.user().id
    assert not shop.user().is_active


@in_a_workshop
async def test_another_user_of_that_name_gets_a_record_of_its_own(shop: Workshop) -> None:
    """Somebody deleted the user at the provider: the device needs another key and another record."""
    await enrolled(shop)
    before = await shop.auth()
    del shop.idp.accounts.users[shop.user().id]
    await enrolled(shop)
    after, record = await shop.auth(), await shop.record()
    assert before is not None
    assert after is not None
    assert record is not None
    assert after.user == record.user == shop.user().id != before.user
    assert await shop.works()


@in_a_workshop
async def test_an_unreadable_record_is_for_a_person_to_decide(shop: Workshop) -> None:
    await shop.bus.put(Bucket.IDENTITY, DEVICE, b"{}")
    places, keys = shop.program()
    with pytest.raises(InvalidValue, match="unreadable"):
        await enroll(shop.intent, keys, places)
    assert not shop.folder.names
    records, unreadable = await Enrolments(shop.bus).all()
    assert records == ()
    assert [key for key, _ in unreadable] == [DEVICE]


class TimesOut:
    """A bus whose writes time out, whether they land or not."""

    def __init__(self, shop: Workshop, lands: bool) -> None:
        self._bus = shop.bus
        self._lands = lands
        self.get = shop.bus.get
        self.entries = shop.bus.entries

    async def update(self, bucket: Bucket, key: str, value: bytes, last: Revision) -> Revision:
        if self._lands:
            await self._bus.update(bucket, key, value, last)
        raise TimedOut("no answer")


@in_a_workshop
async def test_a_write_that_timed_out_is_looked_up(shop: Workshop) -> None:
    await enrolled(shop)
    record = await shop.record()
    assert record is not None
    other = record.model_copy(update={"standing": Revoked(at=Instant(1))})
    found = await Enrolments(shop.bus).read(DEVICE)
    lost: Any = TimesOut(shop, False)
    with pytest.raises(TimedOut):
        await Enrolments(lost).write(other, found.revision)
    landed: Any = TimesOut(shop, True)
    await Enrolments(landed).write(other, found.revision)
    assert await shop.record() == other
    assert layout.address_of(other).bucket is Bucket.IDENTITY


@in_a_workshop
async def test_no_key_ends_within_the_life_of_a_device(shop: Workshop) -> None:
    """Who is enrolled and never looked at again is let in after ten years: nobody is there to give it another key."""
    await enrolled(shop)
    await shop.clock.sleep(Duration.minutes(60 * 24 * 365 * 10))
    assert await shop.works()

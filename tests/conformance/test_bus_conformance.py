"""One suite for the `Bus` port: the model of a NATS server, and the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Protocol

import pytest

from fleet.capabilities.bus import Bus, Deleted, Entry, Request, Stored
from fleet.capabilities.clock import Clock
from fleet.contracts.errors import Conflict, NotPermitted, Refused, TimedOut, TooLarge, Unavailable, Unknown
from fleet.contracts.ids import Revision
from fleet.contracts.layout import MAX_KEY_BYTES, MAX_VALUE_BYTES, Bucket
from fleet.contracts.time import Duration

DESIRED, STATE, HEARTBEAT, INFO = Bucket.DESIRED, Bucket.STATE, Bucket.HEARTBEAT, Bucket.INFO
MOMENT = Duration.millis(5)
LIMIT = Duration.seconds(10)
HOSTILE_KEYS = (
    b"dev-1.\xff\xfe",
    "dev-1.\u00e9".encode(),
    b"dev-1.\x00",
    b"dev-1.a\x0bb",
    b"dev-1.a\x0cb",
    b"dev-1.a\rb",
    b"dev-1.:#%",
    b"dev-1.*",
    b"dev-1.>",
    b"*",
    b">",
    b"x" * 3900,
    b".".join([b"t"] * 100),
)
HOSTILE_VALUES = (b"", b"\xff\xfe\x00", b"{", b"[" * 50_000)


class Lab(Protocol):
    @property
    def clock(self) -> Clock: ...
    def bus(self, name: str) -> Bus: ...
    def bus_that(self, name: str, knows: Callable[[], bool]) -> Bus: ...
    async def store_raw(self, bucket: Bucket, key: bytes, value: bytes) -> Revision: ...
    async def crash(self) -> None: ...
    async def restart(self) -> None: ...


OnLab = Callable[[Callable[[Lab], Awaitable[None]]], None]


def story(tell: Callable[[Lab], Awaitable[None]]) -> Callable[[OnLab], None]:
    def test(on_lab: OnLab) -> None:
        on_lab(tell)

    test.__doc__ = tell.__doc__
    return test


async def until(lab: Lab, holds: Callable[[], bool], limit: Duration = LIMIT) -> None:
    async with lab.clock.timeout(limit):
        while not holds():
            await lab.clock.sleep(MOMENT)


async def connected(lab: Lab, name: str) -> Bus:
    bus = lab.bus(name)
    await until(lab, bus.is_connected)
    return bus


def text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


@story
async def test_a_second_connection_is_let_in_while_the_server_runs_and_costs_the_first_one_nothing(lab: Lab) -> None:
    bus = await connected(lab, "operator")
    sessions: list[None] = []
    heard: list[Entry] = []
    bus.on_session(lambda: sessions.append(None))
    bus.listen(STATE, "", heard.append)
    assert await bus.may_log_in()
    await bus.put(STATE, "dev-1.a", b"1")
    await until(lab, lambda: len(heard) == 1)
    await lab.clock.sleep(MOMENT)
    assert (len(sessions), len(heard)) == (1, 1)
    await lab.crash()
    assert not await bus.may_log_in()
    await lab.restart()


@story
async def test_revisions_are_one_sequence_per_bucket(lab: Lab) -> None:
    bus = await connected(lab, "operator")
    assert await bus.put(STATE, "dev-1.a", b"1") == 1
    assert await bus.put(STATE, "dev-2.a", b"2") == 2
    assert await bus.put(DESIRED, "dev-1.a", b"3") == 1
    assert await bus.put(STATE, "dev-1.a", b"4") == 3
    assert await bus.get(STATE, "dev-1.a") == Stored(STATE, "dev-1.a", Revision(3), b"4")
    assert await bus.get(STATE, "dev-2.a") == Stored(STATE, "dev-2.a", Revision(2), b"2")
    assert await bus.get(STATE, "dev-3.a") is None


@story
async def test_update_wants_the_newest_revision(lab: Lab) -> None:
    bus = await connected(lab, "operator")
    first = await bus.update(STATE, "dev-1.a", b"1", Revision(0))
    with pytest.raises(Conflict):
        await bus.update(STATE, "dev-1.a", b"x", Revision(0))
    second = await bus.update(STATE, "dev-1.a", b"2", first)
    with pytest.raises(Conflict):
        await bus.update(STATE, "dev-1.a", b"x", first)
    with pytest.raises(Conflict):
        await bus.delete(STATE, "dev-1.a", first)
    assert await bus.get(STATE, "dev-1.a") == Stored(STATE, "dev-1.a", second, b"2")
    assert (first, second) == (1, 2)


@story
async def test_a_deleted_key_can_be_created_again(lab: Lab) -> None:
    bus = await connected(lab, "operator")
    first = await bus.put(DESIRED, "dev-1.a", b"1")
    await bus.delete(DESIRED, "dev-1.a", first)
    assert await bus.get(DESIRED, "dev-1.a") == Deleted(DESIRED, "dev-1.a", Revision(2))
    assert await bus.update(DESIRED, "dev-1.a", b"2", Revision(0)) == 3
    await bus.delete(DESIRED, "dev-1.a")
    assert await bus.update(DESIRED, "dev-1.a", b"3", Revision(4)) == 5
    await bus.delete(DESIRED, "never.was")
    assert await bus.get(DESIRED, "never.was") == Deleted(DESIRED, "never.was", Revision(6))


@story
async def test_entries_are_the_newest_of_each_key_in_revision_order(lab: Lab) -> None:
    bus = await connected(lab, "operator")
    assert await bus.entries(DESIRED) == ()
    for number in range(3):
        for key in ("dev-1.a", "dev-10.a", "dev-1", "dev-2.a.b"):
            await bus.put(DESIRED, key, b"%d" % number)
    await bus.delete(DESIRED, "dev-10.a")
    assert [(entry.key, entry.revision) for entry in await bus.entries(DESIRED)] == [
        ("dev-1.a", 9),
        ("dev-1", 11),
        ("dev-2.a.b", 12),
        ("dev-10.a", 13),
    ]
    assert [entry.key for entry in await bus.entries(DESIRED, "dev-1")] == ["dev-1.a", "dev-1"]
    assert [entry.key for entry in await bus.entries(DESIRED, "dev-2.a")] == ["dev-2.a.b"]
    assert await bus.entries(DESIRED, "dev-3") == ()
    assert isinstance((await bus.entries(DESIRED, "dev-10"))[0], Deleted)


@story
async def test_a_listing_of_thousands_of_keys_is_whole(lab: Lab) -> None:
    bus = await connected(lab, "operator")
    keys = [f"dev-{number}.{part}" for number in range(1000) for part in ("a", "b", "c", "d", "workload.w")]
    await lab.store_raw(DESIRED, HOSTILE_KEYS[0], b"x")
    for start in range(0, len(keys), 100):
        await asyncio.gather(*(bus.put(DESIRED, key, key.encode()) for key in keys[start : start + 100]))
    await lab.store_raw(DESIRED, b">", b"x")
    await bus.put(DESIRED, keys[0], b"newer")
    entries = await bus.entries(DESIRED)
    assert [entry.key for entry in entries] == [text(HOSTILE_KEYS[0]), *keys[1:], ">", keys[0]]
    assert [entry.revision for entry in entries] == sorted(entry.revision for entry in entries)
    assert len(await bus.entries(DESIRED, "dev-77")) == 5


@story
async def test_accepted_writes_are_republished_in_order_and_no_others(lab: Lab) -> None:
    writer, reader = await connected(lab, "operator"), await connected(lab, "harness")
    everything: list[Entry] = []
    of_one: list[Entry] = []
    reader.listen(STATE, "", everything.append)
    reader.listen(STATE, "dev-1", of_one.append)
    await reader.get(STATE, "dev-1")
    for number in range(20):
        await writer.put(STATE, ("dev-1", "dev-1.a", "dev-10.a")[number % 3], b"%d" % number)
    with pytest.raises(Conflict):
        await writer.update(STATE, "dev-1.a", b"refused", Revision(1))
    await writer.put(DESIRED, "dev-1.a", b"another bucket")
    await writer.delete(STATE, "dev-1.a")
    await until(lab, lambda: len(everything) == 21)
    assert [entry.revision for entry in everything] == list(range(1, 22))
    assert everything[-1] == Deleted(STATE, "dev-1.a", Revision(21))
    assert everything[0] == Stored(STATE, "dev-1", Revision(1), b"0")
    assert [entry for entry in everything if entry.key != "dev-10.a"] == of_one


@story
async def test_what_is_posted_is_stored_and_republished_if_it_may_be(lab: Lab) -> None:
    operator, device = await connected(lab, "operator"), await connected(lab, "dev-1")
    heard: list[Entry] = []
    operator.listen(HEARTBEAT, "", heard.append)
    await operator.get(HEARTBEAT, "dev-1.a")
    device.post(HEARTBEAT, "dev-2.a", b"forbidden")
    for number in range(3):
        device.post(HEARTBEAT, "dev-1.a", b"%d" % number)
    await until(lab, lambda: len(heard) == 3)
    assert heard == [Stored(HEARTBEAT, "dev-1.a", Revision(n + 1), b"%d" % n) for n in range(3)]
    assert await operator.entries(HEARTBEAT) == (heard[-1],)
    assert device.is_connected()
    with pytest.raises(TooLarge):
        device.post(HEARTBEAT, "dev-1.a", b"x" * (MAX_VALUE_BYTES + 1))
    with pytest.raises(Refused):
        device.post(HEARTBEAT, "*", b"x")
    await device.close()
    with pytest.raises(Unavailable):
        device.post(HEARTBEAT, "dev-1.a", b"x")


@story
async def test_a_closed_subscription_hears_nothing_more(lab: Lab) -> None:
    bus = await connected(lab, "operator")
    first: list[Entry] = []
    second: list[Entry] = []
    subscription = bus.listen(STATE, "", first.append)
    bus.listen(STATE, "", second.append)
    await bus.put(STATE, "dev-1.a", b"1")
    await until(lab, lambda: len(first) == 1 and len(second) == 1)
    subscription.close()
    subscription.close()
    await bus.put(STATE, "dev-1.a", b"2")
    await until(lab, lambda: len(second) == 2)
    assert len(first) == 1


@story
async def test_any_key_and_any_value_can_stand_there(lab: Lab) -> None:
    bus = await connected(lab, "operator")
    heard: list[Entry] = []
    bus.listen(STATE, "", heard.append)
    await bus.get(STATE, "dev-1")
    for key in HOSTILE_KEYS:
        await lab.store_raw(STATE, key, b"raw")
    for number, value in enumerate(HOSTILE_VALUES):
        await lab.store_raw(STATE, b"value.%d" % number, value)
    await bus.put(STATE, "dev-2.a", b"still served")
    entries = await bus.entries(STATE)
    assert [entry.key for entry in entries[: len(HOSTILE_KEYS)]] == [text(key) for key in HOSTILE_KEYS]
    values = [entry.value for entry in entries[len(HOSTILE_KEYS) : -1] if isinstance(entry, Stored)]
    assert values == list(HOSTILE_VALUES)
    await until(lab, lambda: bool(heard) and heard[-1].key == "dev-2.a")
    unheard = {text(key) for key in (b"dev-1.a\x0cb", b"dev-1.a\rb", b"dev-1.*", b"dev-1.>", b"*", b">")}
    assert [entry for entry in entries if entry.key not in unheard] == heard
    assert bus.is_connected()


@story
async def test_a_key_no_subject_can_carry_is_refused(lab: Lab) -> None:
    for key in (b"a..b", b"a.", b".a"):
        with pytest.raises(Refused):
            await lab.store_raw(STATE, key, b"x")


@story
async def test_what_is_too_large_is_refused_before_it_is_sent(lab: Lab) -> None:
    bus = await connected(lab, "operator")
    assert await bus.put(STATE, "k" * MAX_KEY_BYTES, b"x" * MAX_VALUE_BYTES) == 1
    assert await bus.update(STATE, "k" * MAX_KEY_BYTES, b"y" * MAX_VALUE_BYTES, Revision(1)) == 2
    with pytest.raises(TooLarge):
        await bus.put(STATE, "k" * (MAX_KEY_BYTES + 1), b"x")
    with pytest.raises(TooLarge):
        await bus.put(STATE, "k", b"x" * (MAX_VALUE_BYTES + 1))
    with pytest.raises(TooLarge):
        await lab.store_raw(STATE, b"k", b"x" * (MAX_VALUE_BYTES + 2000))
    assert len(await bus.entries(STATE)) == 1


@story
async def test_a_program_names_only_plain_keys(lab: Lab) -> None:
    bus = await connected(lab, "operator")
    await lab.store_raw(STATE, b"dev-1.>", b"hostile")
    for key in ("dev-1.>", "*", "", "a..b", "a b", "\udcff", "a\r\nPUB x 0"):
        with pytest.raises(Refused):
            await bus.put(STATE, key, b"x")
        with pytest.raises(Refused):
            await bus.delete(STATE, key)
        with pytest.raises(Refused):
            await bus.get(STATE, key)
    assert [entry.key for entry in await bus.entries(STATE)] == ["dev-1.>"]


@story
async def test_the_right_password_alone_opens_and_is_asked_for_at_each_connection(lab: Lab) -> None:
    known = [False]
    bus = lab.bus_that("dev-1", lambda: known[0])
    await lab.clock.sleep(Duration.seconds(5))
    assert not bus.is_connected()
    known[0] = True
    await until(lab, bus.is_connected)
    known[0] = False
    assert await bus.put(STATE, "dev-1.a", b"who is in stays in") == 1
    await lab.crash()
    await lab.restart()
    await lab.clock.sleep(Duration.seconds(6))
    assert not bus.is_connected()
    known[0] = True
    await until(lab, bus.is_connected)


@story
async def test_a_forbidden_write_or_read_is_refused_at_once(lab: Lab) -> None:
    operator, device = await connected(lab, "operator"), await connected(lab, "dev-1")
    before = lab.clock.monotonic()
    for bucket, key in ((STATE, "dev-2.a"), (DESIRED, "dev-1.agent"), (HEARTBEAT, "dev-10.a")):
        with pytest.raises(NotPermitted):
            await device.put(bucket, key, b"x")
        assert await operator.entries(bucket) == ()
    await operator.put(DESIRED, "dev-2.agent", b"for another")
    with pytest.raises(NotPermitted):
        await device.get(DESIRED, "dev-2.agent")
    with pytest.raises(NotPermitted):
        await device.entries(DESIRED)
    with pytest.raises(NotPermitted):
        await device.request("fleet.stop.dev-2", b"", Duration.seconds(30))
    assert await device.put(STATE, "dev-1.a", b"own") == 1
    assert device.is_connected()
    assert lab.clock.monotonic() - before < Duration.seconds(10)


@story
async def test_a_forbidden_subscription_is_told_of(lab: Lab) -> None:
    operator, device = await connected(lab, "operator"), await connected(lab, "dev-1")
    heard: list[Entry] = []
    foreign = [
        device.listen(DESIRED, "", heard.append),
        device.listen(DESIRED, "dev-2", heard.append),
        device.listen(STATE, "dev-1", heard.append),
        device.serve("fleet.lock.*", lambda request: b"mine"),
    ]
    own = [device.listen(DESIRED, "dev-1", lambda entry: None), device.serve("fleet.stop.dev-1", lambda request: b"")]
    await device.get(STATE, "dev-1.a")
    assert [type(subscription.refused) for subscription in foreign] == [NotPermitted] * 4
    assert [subscription.refused for subscription in own] == [None, None]
    await operator.put(DESIRED, "dev-2.agent", b"for another")
    await operator.put(STATE, "dev-1.a", b"its own report")
    with pytest.raises(Unavailable):
        await operator.request("fleet.lock.dev-2", b"", Duration.seconds(1))
    assert heard == []


@story
async def test_a_subject_that_is_none_is_refused_before_it_is_sent(lab: Lab) -> None:
    bus = await connected(lab, "operator")
    for subject in ("", "fleet.stop.>", "fleet.*.x", "a b", "a\r\nPUB x 0", "fleet..stop", "\udcff"):
        with pytest.raises(Refused):
            await bus.request(subject, b"", Duration.seconds(30))
        with pytest.raises(Refused):
            bus.serve(subject, lambda request: b"")
    for long in ("s" * 5000, "s" * (MAX_KEY_BYTES + 1)):
        with pytest.raises(TooLarge):
            await bus.request(long, b"", Duration.seconds(30))
        with pytest.raises(TooLarge):
            bus.serve(long, lambda request: b"")
        with pytest.raises(TooLarge):
            bus.listen(STATE, long, lambda entry: None)
    with pytest.raises(TooLarge):
        await bus.request("fleet.stop.dev-1", b"x" * (MAX_VALUE_BYTES + 1), Duration.seconds(30))
    assert await bus.put(STATE, "dev-1.a", b"still connected") == 1


@story
async def test_a_device_does_what_it_needs_to(lab: Lab) -> None:
    operator, device = await connected(lab, "operator"), await connected(lab, "dev-1")
    heard: list[Entry] = []
    device.listen(DESIRED, "dev-1", heard.append)
    device.serve("fleet.stop.dev-1", lambda request: b"stopping " + request.payload)
    operator.serve("fleet.lock.*", lambda request: request.subject.encode())
    assert await device.get(DESIRED, "dev-1.agent") is None
    await operator.put(DESIRED, "dev-2.agent", b"not for it")
    await operator.put(DESIRED, "dev-1.agent", b"for it")
    await until(lab, lambda: bool(heard))
    assert heard == [Stored(DESIRED, "dev-1.agent", Revision(2), b"for it")]
    assert await device.get(DESIRED, "dev-1.agent") == heard[0]
    assert await device.put(INFO, "dev-1", b"i") == 1
    assert await device.put(HEARTBEAT, "dev-1.a", b"h") == 1
    assert await device.put(STATE, "dev-1.workload.w", b"s") == 1
    assert await device.get(STATE, "dev-1.workload.w") is not None
    assert await operator.request("fleet.stop.dev-1", b"now", Duration.seconds(2)) == b"stopping now"
    assert await device.request("fleet.lock.dev-1", b"?", Duration.seconds(2)) == b"fleet.lock.dev-1"


@story
async def test_a_request_nobody_serves_is_unavailable_long_before_its_time_is_over(lab: Lab) -> None:
    bus = await connected(lab, "operator")
    before = lab.clock.monotonic()
    with pytest.raises(Unavailable):
        await bus.request("fleet.stop.dev-9", b"", Duration.seconds(30))
    assert lab.clock.monotonic() - before < Duration.seconds(10)
    subscription = bus.serve("fleet.stop.dev-9", lambda request: b"here")
    assert await bus.request("fleet.stop.dev-9", b"", Duration.seconds(2)) == b"here"
    subscription.close()
    with pytest.raises(Unavailable):
        await bus.request("fleet.stop.dev-9", b"", Duration.seconds(2))


@story
async def test_of_several_who_serve_the_silent_ones_do_not_count(lab: Lab) -> None:
    asker, one, other = await connected(lab, "operator"), await connected(lab, "dev-1"), await connected(lab, "dev-1")
    heard: list[Request] = []

    def silent(request: Request) -> bytes | None:
        heard.append(request)
        return None

    one.serve("fleet.stop.dev-1", silent)
    other.serve("fleet.stop.dev-1", lambda request: b"me")
    await one.get(STATE, "dev-1.a")
    await other.get(STATE, "dev-1.a")
    assert await asker.request("fleet.stop.dev-1", b"who", Duration.seconds(2)) == b"me"
    await until(lab, lambda: bool(heard))
    assert heard == [Request("fleet.stop.dev-1", b"who")]


@story
async def test_a_request_without_an_answer_times_out(lab: Lab) -> None:
    bus = await connected(lab, "operator")
    bus.serve("fleet.stop.dev-1", lambda request: None)
    with pytest.raises(TimedOut):
        await bus.request("fleet.stop.dev-1", b"", Duration.millis(300))


@story
async def test_a_session_is_announced_to_whoever_asks_late(lab: Lab) -> None:
    bus = lab.bus("operator")
    early: list[bool] = []
    late: list[bool] = []
    bus.on_session(lambda: early.append(bus.is_connected()))
    await until(lab, lambda: early == [True])
    subscription = bus.on_session(lambda: late.append(bus.is_connected()))
    await until(lab, lambda: late == [True])
    subscription.close()
    assert early == [True]


@story
async def test_a_crash_of_the_server_loses_sessions_and_nothing_else(lab: Lab) -> None:
    bus, writer = await connected(lab, "harness"), await connected(lab, "operator")
    sessions: list[Revision] = []
    heard: list[Entry] = []
    bus.on_session(lambda: sessions.append(Revision(len(sessions))))
    bus.listen(STATE, "", heard.append)
    await until(lab, lambda: len(sessions) == 1)
    await writer.put(STATE, "dev-1.a", b"before")
    await until(lab, lambda: len(heard) == 1)
    await lab.crash()
    await until(lab, lambda: not bus.is_connected() and not writer.is_connected())
    with pytest.raises(Unavailable):
        await bus.put(STATE, "dev-1.a", b"unsent")
    await lab.restart()
    written = await lab.store_raw(STATE, b"dev-2.a", b"missed")
    await until(lab, lambda: bus.is_connected() and writer.is_connected())
    assert written == 2
    assert [entry.key for entry in await bus.entries(STATE)] == ["dev-1.a", "dev-2.a"]
    await until(lab, lambda: len(sessions) == 2)
    assert await writer.put(STATE, "dev-1.a", b"after") == 3
    await until(lab, lambda: bool(heard) and heard[-1].revision == 3)


@story
async def test_a_write_under_way_at_a_crash_is_unknown(lab: Lab) -> None:
    bus = await connected(lab, "operator")
    bus.serve("fleet.stop.dev-1", lambda request: None)
    outcome: list[BaseException | None] = []

    async def ask() -> None:
        try:
            await bus.request("fleet.stop.dev-1", b"", Duration.seconds(30))
        except Unknown as error:
            outcome.append(error)

    asking = asyncio.get_running_loop().create_task(ask())
    await lab.clock.sleep(Duration.millis(100))
    await lab.crash()
    await asking
    assert len(outcome) == 1
    assert lab.clock.monotonic() < Duration.seconds(20)


@story
async def test_after_close_there_is_nothing(lab: Lab) -> None:
    bus, other = await connected(lab, "operator"), await connected(lab, "harness")
    heard: list[Entry] = []
    bus.listen(STATE, "", heard.append)
    bus.serve("fleet.stop.dev-1", lambda request: b"here")
    await bus.put(STATE, "dev-1.a", b"1")
    await until(lab, lambda: len(heard) == 1)
    await bus.close()
    await bus.close()
    assert not bus.is_connected()
    await other.put(STATE, "dev-1.a", b"2")
    with pytest.raises(Unavailable):
        await bus.put(STATE, "dev-1.a", b"3")
    with pytest.raises(Unavailable):
        await other.request("fleet.stop.dev-1", b"", Duration.seconds(1))
    assert len(heard) == 1


@story
async def test_any_course_of_writes_ends_as_the_rules_say(lab: Lab) -> None:
    """The rules are few enough to be written down here a second time, as a dictionary."""
    bus, reader = await connected(lab, "operator"), await connected(lab, "harness")
    heard: list[Entry] = []
    reader.listen(DESIRED, "", heard.append)
    await reader.get(DESIRED, "dev-1.a")
    chance = Random(20)
    rules: dict[str, Entry] = {}
    accepted: list[Entry] = []
    for step in range(300):
        key = chance.choice(("dev-1.a", "dev-1.b", "dev-2.a"))
        newest = rules.get(key)
        stands = newest.revision if isinstance(newest, Stored) else Revision(0)
        expected = chance.choice((None, stands, Revision(0), Revision(step)))
        value = b"%d" % step if chance.random() < 0.8 else None
        known = newest.revision if newest is not None else Revision(0)
        fits = expected is None or expected == known or (expected == 0 and value is not None and stands == 0)
        try:
            if value is None:
                await bus.delete(DESIRED, key, expected)
            elif expected is None:
                await bus.put(DESIRED, key, value)
            else:
                await bus.update(DESIRED, key, value, expected)
        except Conflict:
            assert not fits, (step, key, expected, newest)
            continue
        assert fits, (step, key, expected, newest)
        revision = Revision(len(accepted) + 1)
        rules[key] = Deleted(DESIRED, key, revision) if value is None else Stored(DESIRED, key, revision, value)
        accepted.append(rules[key])
    assert len(accepted) > 100
    assert list(await bus.entries(DESIRED)) == sorted(rules.values(), key=lambda entry: entry.revision)
    await until(lab, lambda: len(heard) == len(accepted))
    assert heard == accepted

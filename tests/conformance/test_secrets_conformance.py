"""One suite for the places that keep secrets: folder, Kubernetes Secret (stand-in), OpenBao (stub, real if named)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fleet.capabilities.secrets import LARGEST_VALUE, Make, SecretSeen, SecretUnreadable
from fleet.contracts.errors import Conflict, InvalidValue, NotFound, Refused, TooLarge
from fleet.contracts.ids import ObjectName
from fleet.contracts.time import Duration
from fleet.secrets.registry import GENERATED, SecretMade, ensure_all, install
from fleet.secrets.store import Secrets
from tests.conformance.secret_labs import ADDRESS, LABS, Lab, is_real_openbao_named

A, B, C = ObjectName("a"), ObjectName("b-password"), ObjectName("c")
Story = Callable[[Lab], Awaitable[None]]


def on_every_place() -> list[object]:
    not_run = pytest.mark.skipif(not is_real_openbao_named(), reason=f"not run: {ADDRESS} names no OpenBao server")
    marks = {"openbao-stub-on-loopback": [pytest.mark.real], "openbao-real": [pytest.mark.real, not_run]}
    return [pytest.param(name, marks=marks.get(name, [])) for name in LABS]


@pytest.fixture(params=on_every_place())
def on_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Story], None]:
    """Runs a story on each place."""

    def run(tell: Story) -> None:
        async def told() -> None:
            async with LABS[request.param](tmp_path) as lab:
                await tell(lab)

        asyncio.run(told())

    return run


def story(tell: Story) -> Callable[[Callable[[Story], None]], None]:
    def test(on_place: Callable[[Story], None]) -> None:
        on_place(tell)

    test.__doc__ = tell.__doc__
    return test


def store(lab: Lab) -> Secrets:
    return Secrets(lab.documents(), lab.clock)


def gives(value: bytes) -> Make:
    return lambda: value


def never() -> bytes:
    raise AssertionError("a value was made although there is one")


@story
async def test_a_secret_is_made_once_and_read_ever_after(lab: Lab) -> None:
    before = lab.clock.wall()
    made = await store(lab).ensure(A, gives(b"first-value"))
    assert (made.name, made.version, made.value) == (A, 1, b"first-value")
    assert before <= made.made <= lab.clock.wall()
    for again in range(3):
        assert await store(lab).ensure(A, never) == made, again
    assert await store(lab).read(A) == made


@story
async def test_what_is_not_there_is_not_found(lab: Lab) -> None:
    secrets = store(lab)
    for act in (secrets.read(A), secrets.previous(A), secrets.rotate(A, never, 1)):
        with pytest.raises(NotFound):
            await act
    assert await secrets.names() == ()
    assert await secrets.seen() == ()


@story
async def test_values_are_arbitrary_bytes(lab: Lab) -> None:
    values = {"zeros": bytes(32), "all-bytes": bytes(range(256)), "newline": b"\n", "largest": bytes(LARGEST_VALUE)}
    for name, value in values.items():
        await store(lab).ensure(ObjectName(name), gives(value))
    for name, value in values.items():
        assert (await store(lab).read(ObjectName(name))).value == value


@story
async def test_an_empty_or_oversized_value_is_refused_and_nothing_kept(lab: Lab) -> None:
    with pytest.raises(Refused, match="empty"):
        await store(lab).ensure(A, bytes)
    with pytest.raises(TooLarge):
        await store(lab).ensure(A, gives(bytes(LARGEST_VALUE + 1)))
    assert await store(lab).names() == ()


@story
async def test_racing_first_runs_make_one_value(lab: Lab) -> None:
    made = await asyncio.gather(*(store(lab).ensure(A, gives(b"value-%d" % i)) for i in range(12)))
    assert len(set(made)) == 1
    assert await store(lab).read(A) == made[0]


@story
async def test_rotation_makes_the_next_version_and_keeps_the_last(lab: Lab) -> None:
    first = await store(lab).ensure(A, gives(b"first-value"))
    with pytest.raises(NotFound):
        await store(lab).previous(A)
    second = await store(lab).rotate(A, gives(b"second-value"), 1)
    assert (second.version, second.value) == (2, b"second-value")
    assert await store(lab).read(A) == second
    assert await store(lab).previous(A) == first
    assert await store(lab).ensure(A, never) == second
    third = await store(lab).rotate(A, gives(b"third-value"), 2)
    assert (await store(lab).previous(A), await store(lab).read(A)) == (second, third)


@story
async def test_rotation_after_another_version_is_a_conflict_and_makes_nothing(lab: Lab) -> None:
    first = await store(lab).ensure(A, gives(b"first-value"))
    for last in (0, 2, 7):
        with pytest.raises(Conflict):
            await store(lab).rotate(A, never, last)
    assert await store(lab).read(A) == first
    with pytest.raises(Refused):
        await store(lab).rotate(A, bytes, 1)
    assert await store(lab).read(A) == first


@story
async def test_of_racing_rotations_one_wins(lab: Lab) -> None:
    await store(lab).ensure(A, gives(b"first-value"))
    results = await asyncio.gather(
        *(store(lab).rotate(A, gives(b"value-%d" % i), 1) for i in range(8)),
        return_exceptions=True,
    )
    won = [result for result in results if not isinstance(result, BaseException)]
    assert [type(result) for result in results if isinstance(result, BaseException)] == [Conflict] * 7
    assert [await store(lab).read(A)] == won


@story
async def test_names_are_sorted_and_ages_shown_without_values(lab: Lab) -> None:
    made = {name: await store(lab).ensure(name, gives(b"value-of-it")) for name in (C, A, B)}
    made[A] = await store(lab).rotate(A, gives(b"another-one"), 1)
    assert await store(lab).names() == (A, B, C)
    assert await store(lab).seen() == tuple(SecretSeen(name, made[name].version, made[name].made) for name in (A, B, C))


@story
async def test_a_damaged_secret_is_an_error_and_never_another_secret(lab: Lab) -> None:
    await store(lab).ensure(A, gives(b"first-value"))
    whole = await store(lab).ensure(B, gives(b"whole-value"))
    for hurt in (lab.damage, lab.empty):
        await hurt(A)
        for act in (
            store(lab).ensure(A, never),
            store(lab).read(A),
            store(lab).previous(A),
            store(lab).rotate(A, never, 1),
        ):
            with pytest.raises(InvalidValue, match=r"a\b.*(restore|remove)") as caught:
                await act
            assert "first-value" not in str(caught.value)
        unreadable, seen = await store(lab).seen()
        assert isinstance(unreadable, SecretUnreadable)
        assert unreadable.name == A
        assert seen == SecretSeen(B, 1, whole.made)
    assert await store(lab).ensure(B, never) == whole


@story
async def test_a_value_never_shows(lab: Lab) -> None:
    secret = await store(lab).ensure(A, gives(b"never-shown-value"))
    held = await lab.documents().get(A)
    for shown in (repr(secret), str(secret), f"{secret}", repr(held), repr([held.kept])):
        assert "never-shown" not in shown


@story
async def test_an_installation_that_runs_again_changes_nothing(lab: Lab) -> None:
    first = await ensure_all(store(lab))
    tokens = [(await lab.documents().get(item.name)).token for item in GENERATED]
    for _ in range(2):
        assert await ensure_all(store(lab)) == first
    assert [(await lab.documents().get(item.name)).token for item in GENERATED] == tokens
    assert [secret.name for secret in first] == list(await store(lab).names())


@story
async def test_stores_that_race_to_install_agree(lab: Lab) -> None:
    async with lab.clock.timeout(Duration.seconds(30)):
        installed = await asyncio.gather(*(ensure_all(store(lab)) for _ in range(4)))
    assert len(set(installed)) == 1


@story
async def test_of_installations_that_race_one_says_that_it_made_a_secret(lab: Lab) -> None:
    async with lab.clock.timeout(Duration.seconds(30)):
        installed = await asyncio.gather(*(install(store(lab)) for _ in range(4)))
    made = [item.secret.name for each in installed for item in each if isinstance(item, SecretMade)]
    assert sorted(made) == [item.name for item in GENERATED]
    assert not any(isinstance(item, SecretMade) for item in await install(store(lab)))


@story
async def test_an_installation_makes_nothing_beside_a_damaged_secret(lab: Lab) -> None:
    last = GENERATED[-1]
    await store(lab).ensure(last.name, lambda: b"the only one so far")
    await lab.damage(last.name)
    with pytest.raises(InvalidValue, match=last.name):
        await install(store(lab))
    assert await store(lab).names() == (last.name,)

"""A device's keys as files: whole at every instant, never taken for another, refused when others can read them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import pytest

from fleet.capabilities.identity import NextKey, PrivateKey
from fleet.contracts.auth import FleetDeviceAuth
from fleet.contracts.errors import InvalidValue, Unavailable
from fleet.identity.device_keys import AUTH, FOLDER, LOCK, FileDeviceKeys, name_of
from fleet.identity.keys import RsaKeyMaker
from fleet.secrets.steps import opened_folder
from sim.keys import SimKeyMaker
from sim.random import Random
from tests.fleet.secrets.modelled_folder import ModelledFolder, Stopped


def auth_with(key: NextKey, number: str = "1") -> FleetDeviceAuth:
    return FleetDeviceAuth(issuer="http://idp.test", scopes=("openid",), user="u", key=number, private_key=key.path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc" / "fleet-agent").mkdir(parents=True)
    return tmp_path


def keys_at(root: Path) -> FileDeviceKeys:
    return FileDeviceKeys(root, SimKeyMaker(Random(1)))


def test_a_key_waits_until_it_is_used(root: Path) -> None:
    async def tell() -> None:
        keys = keys_at(root)
        assert await keys.auth() is None
        first = await keys.next_key()
        assert await keys_at(root).next_key() == first
        await keys.commit(auth_with(first))
        assert await keys.auth() == auth_with(first)
        second = await keys.next_key()
        assert second != first
        assert await keys.auth() == auth_with(first)
        await keys.commit(auth_with(second, "2"))
        folder = root / "etc/fleet-agent/identity"
        assert {path.name for path in folder.iterdir()} == {AUTH, LOCK, second.path.name}
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}

    asyncio.run(tell())


def test_a_key_that_is_not_there_is_not_committed(root: Path) -> None:
    async def tell() -> None:
        keys = keys_at(root)
        first = await keys.next_key()
        for path in (FOLDER / "key-other.pem", PurePosixPath("/tmp") / first.path.name):
            with pytest.raises(InvalidValue, match="nothing was changed"):
                await keys.commit(auth_with(NextKey(first.public, path)))
        assert await keys.auth() is None

    asyncio.run(tell())


def test_what_is_not_as_it_should_be_is_refused(root: Path) -> None:
    async def tell() -> None:
        keys = keys_at(root)
        await keys.commit(auth_with(await keys.next_key()))
        folder = root / "etc/fleet-agent/identity"
        folder.chmod(0o755)
        with pytest.raises(InvalidValue, match="chmod"):
            await keys.auth()
        folder.chmod(0o700)
        (folder / AUTH).write_bytes(b"a-secret")
        with pytest.raises(InvalidValue, match="enrol the device again") as caught:
            await keys.auth()
        assert "a-secret" not in str(caught.value)
        with pytest.raises(InvalidValue, match="--root"):
            await keys_at(root / "elsewhere").next_key()

    asyncio.run(tell())


def test_two_do_not_work_at_once(root: Path) -> None:
    async def tell() -> None:
        keys = keys_at(root)
        await keys.next_key()
        with opened_folder(root / "etc/fleet-agent/identity", False) as (_, steps):
            assert steps.try_lock(LOCK)
            with pytest.raises(Unavailable):
                await keys.next_key()

    asyncio.run(tell())


async def life(keys: FileDeviceKeys, committed: list[FleetDeviceAuth]) -> None:
    for number in ("1", "2"):
        key = await keys.next_key()
        committed.append(auth_with(key, number))
        await keys.commit(committed[-1])


def stops() -> Iterator[tuple[ModelledFolder, list[FleetDeviceAuth]]]:
    for until in range(200):
        folder, committed = ModelledFolder(until=until), list[FleetDeviceAuth]()
        with suppress(Stopped):
            asyncio.run(life(FileDeviceKeys(Path("/"), SimKeyMaker(Random(1)), folder.opened), committed))
            return
        folder.until = None
        yield folder, committed
    raise AssertionError("the life of a device's keys has no end")


async def check(folder: ModelledFolder, committed: list[FleetDeviceAuth]) -> None:
    """The identity is one of the last two, its key is there and is its own; and life goes on."""
    keys = FileDeviceKeys(Path("/"), SimKeyMaker(Random(1 << 60)), folder.opened)
    auth = await keys.auth()
    assert auth is None or auth in committed[-2:]
    assert auth is not None or len(committed) < 2
    if auth is not None:
        content = folder.names[auth.private_key.name].content
        assert name_of(SimKeyMaker(Random(1)).public(PrivateKey(content))) == auth.private_key.name
    following = await keys.next_key()
    assert auth is None or following.path != auth.private_key
    await keys.commit(auth_with(following, "3"))
    assert {*folder.names} - {LOCK} == {AUTH, following.path.name}


def test_stopped_anywhere_the_device_has_an_identity_or_none_yet() -> None:
    seen = 0
    for folder, committed in stops():
        asyncio.run(check(folder, committed))
        seen += 1
    assert seen > 40


def test_a_power_cut_anywhere_leaves_a_whole_identity() -> None:
    seen = 0
    for folder, committed in stops():
        for left in folder.after_power_cuts():
            asyncio.run(check(left, committed))
            seen += 1
    assert seen > 60


def test_real_keys_are_random_and_never_show() -> None:
    maker = RsaKeyMaker()
    one, other = maker.make(), maker.make()
    assert one != other
    assert maker.public(one).startswith(b"-----BEGIN PUBLIC KEY-----")
    assert one.pem[30:60].decode() not in repr(one)
    with pytest.raises(InvalidValue) as caught:
        maker.public(PrivateKey(b"a-secret"))
    assert "a-secret" not in repr(caught.value)

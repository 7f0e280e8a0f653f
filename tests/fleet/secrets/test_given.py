"""A secret that was given is kept once, and never takes the place of another."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fleet.adapters.clock import WallClock
from fleet.contracts.errors import Conflict, InvalidValue, NotFound
from fleet.contracts.ids import ObjectName
from fleet.secrets.file import FileDocuments
from fleet.secrets.given import content_of, keep
from fleet.secrets.store import Secrets

NAME = ObjectName("idp-admin-key")


def test_what_is_given_is_kept_once(tmp_path: Path) -> None:
    async def tell() -> None:
        store = Secrets(FileDocuments(tmp_path / "secrets", WallClock()), WallClock())
        first = await keep(store, NAME, b"a key file of somebody")
        assert await keep(store, NAME, b"a key file of somebody") == first
        with pytest.raises(Conflict) as caught:
            await keep(store, NAME, b"a key file of another")
        assert "key file" not in str(caught.value)
        assert await store.read(NAME) == first
        with pytest.raises(InvalidValue, match="prepare"):
            await keep(store, ObjectName("nats-admin-password"), b"12345678")
        with pytest.raises(NotFound):
            await store.read(ObjectName("nats-admin-password"))

    asyncio.run(tell())


def test_a_file_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for path in (empty, tmp_path / "missing", tmp_path):
        with pytest.raises(InvalidValue):
            content_of(path)

"""The login file, and that no password shows anywhere."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fleet.adapters.nats_login import PasswordFile, PasswordLogin
from fleet.contracts.errors import InvalidValue, Unavailable


def test_a_login_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "login.json"
    source = PasswordFile(path)
    path.write_text('{"user": "dev-1", "password": "first"}')
    assert asyncio.run(source.read()) == PasswordLogin("dev-1", "first")
    path.write_text('{"user": "dev-1", "password": "second"}')
    assert asyncio.run(source.read()) == PasswordLogin("dev-1", "second")


def test_a_password_never_shows(tmp_path: Path) -> None:
    path = tmp_path / "login.json"
    path.write_text('{"user": "dev-1", "password": "hunter2"}')
    source = PasswordFile(path)
    assert "hunter2" not in repr(asyncio.run(source.read()))
    assert "hunter2" not in repr(source)


@pytest.mark.parametrize(
    "content", ["", "hunter2", '["hunter2"]', '{"user": "dev-1"}', '{"user": 1, "password": "hunter2"}']
)
def test_a_file_that_is_no_login_is_told_without_quoting_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "login.json"
    path.write_text(content)
    with pytest.raises(InvalidValue) as caught:
        asyncio.run(PasswordFile(path).read())
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_is_missing_may_come_yet(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        asyncio.run(PasswordFile(tmp_path / "none").read())

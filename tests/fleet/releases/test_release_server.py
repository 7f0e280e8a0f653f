"""Releases are served by content, whole or by ranges."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fleet.contracts.errors import InvalidValue
from fleet.releases.server import app

CONTENT = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Answer:
    """What an HTTP client would have got."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def get(folder: Path, path: str, method: str = "GET", **headers: str) -> Answer:
    """One request straight to the application, no socket in between."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }
    answer = Answer()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("the client stays to the end")

    async def send(message: Any) -> None:  # noqa: ANN401 - as ASGI has it
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    asyncio.run(app(folder)(scope, receive, send))
    return answer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fleet-agent-v1.0.0-x86_64").write_bytes(CONTENT)
    (tmp_path / "another").write_bytes(b"other")
    return tmp_path


def test_a_release_is_served_whole(folder: Path) -> None:
    answer = get(folder, f"/releases/{SHA256}")
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"] == f'"{SHA256}"'


@pytest.mark.parametrize(("start", "end"), [(0, 0), (1_000_000, 2_000_000), (len(CONTENT) - 1, len(CONTENT) + 500)])
def test_a_release_is_served_by_ranges(folder: Path, start: int, end: int) -> None:
    answer = get(folder, f"/releases/{SHA256}", range=f"bytes={start}-{end}")
    assert (answer.status, answer.body) == (206, CONTENT[start : end + 1])
    assert answer.headers["content-range"].startswith(f"bytes {start}-")


def test_a_range_beyond_the_end_is_told_as_such(folder: Path) -> None:
    answer = get(folder, f"/releases/{SHA256}", range=f"bytes={len(CONTENT)}-")
    assert answer.status == 416


def test_only_the_head_is_sent_when_only_the_head_is_asked_for(folder: Path) -> None:
    answer = get(folder, f"/releases/{SHA256}", method="HEAD")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", str(len(CONTENT)))


@pytest.mark.parametrize("path", [f"/releases/{'0' * 64}", "/releases/fleet-agent-v1.0.0-x86_64", "/releases/..", "/x"])
def test_nothing_else_is_served(folder: Path, path: str) -> None:
    assert get(folder, path).status == 404


def test_a_file_that_came_or_changed_later_is_found(folder: Path) -> None:
    new = hashlib.sha256(b"new").hexdigest()
    assert get(folder, f"/releases/{new}").status == 404
    (folder / "later").write_bytes(b"new")
    assert get(folder, f"/releases/{new}").body == b"new"
    (folder / ".hidden").write_bytes(b"half")
    assert get(folder, f"/releases/{hashlib.sha256(b'half').hexdigest()}").status == 404


def test_a_missing_folder_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="is not a folder"):
        app(tmp_path / "missing")


def test_it_says_that_it_is_well(folder: Path) -> None:
    assert get(folder, "/healthz").body == b"ok\n"

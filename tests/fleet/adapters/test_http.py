"""Releases over HTTP: ranges, and what each failure is called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest

from fleet.adapters.clock import WallClock
from fleet.adapters.http import HttpArtefacts
from fleet.contracts.errors import (
    Disconnected,
    FleetError,
    NotFound,
    NotPermitted,
    Refused,
    TimedOut,
    Unavailable,
)
from fleet.contracts.time import Duration

CONTENT = bytes(range(256)) * 10
URL = "http://releases.invalid/fleet-agent-v1.0.0"


class Body(httpx2.AsyncByteStream):
    """A body that comes in pieces."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._content), 100):
            yield self._content[start : start + 100]


def ranged(request: httpx2.Request) -> httpx2.Response:
    first, last = request.headers["Range"].removeprefix("bytes=").split("-")
    part = CONTENT[int(first) : int(last) + 1]
    if not part:
        return httpx2.Response(416)
    return httpx2.Response(206, stream=Body(part), headers={"Content-Range": f"bytes {first}-{last}/{len(CONTENT)}"})


def read(
    handler: Callable[[httpx2.Request], httpx2.Response], offset: int, length: int, limit: Duration | None = None
) -> bytes:
    async def told() -> bytes:
        artefacts = HttpArtefacts(WallClock(), limit, httpx2.MockTransport(handler))
        try:
            return await artefacts.read(URL, offset, length)
        finally:
            await artefacts.close()

    return asyncio.run(told())


def test_a_range_is_read() -> None:
    assert read(ranged, 0, 100) == CONTENT[:100]
    assert read(ranged, 300, 70) == CONTENT[300:370]
    assert read(ranged, 2500, 1000) == CONTENT[2500:]


def test_past_the_end_there_is_nothing() -> None:
    assert read(ranged, len(CONTENT), 10) == b""
    assert read(ranged, 0, 0) == b""


def test_a_server_without_ranges_costs_time_and_gives_the_same() -> None:
    def whole(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, stream=Body(CONTENT))

    assert read(whole, 300, 70) == CONTENT[300:370]
    assert read(whole, len(CONTENT), 10) == b""


def test_another_range_than_asked_for_is_refused() -> None:
    def other(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(206, stream=Body(b"x"), headers={"Content-Range": "bytes 0-0/10"})

    with pytest.raises(Refused):
        read(other, 5, 1)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (304, Refused),
        (400, Refused),
        (401, NotPermitted),
        (403, NotPermitted),
        (404, NotFound),
        (408, Unavailable),
        (410, NotFound),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
def test_a_status_is_an_error_of_ours(status: int, expected: type[FleetError]) -> None:
    with pytest.raises(FleetError) as caught:
        read(lambda request: httpx2.Response(status), 0, 1)
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx2.ConnectError("refused"), Unavailable),
        (httpx2.ReadError("broke"), Disconnected),
        (httpx2.RemoteProtocolError("cut short"), Disconnected),
        (httpx2.UnsupportedProtocol("gopher"), Refused),
        (httpx2.InvalidURL("no"), Refused),
    ],
)
def test_a_failure_of_the_connection_is_an_error_of_ours(error: Exception, expected: type[FleetError]) -> None:
    def failing(request: httpx2.Request) -> httpx2.Response:
        raise error

    with pytest.raises(FleetError) as caught:
        read(failing, 0, 1)
    assert type(caught.value) is expected
    assert caught.value.__cause__ is error


class Silent(httpx2.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"a little"
        await asyncio.Event().wait()


def test_a_server_that_falls_silent_times_out() -> None:
    with pytest.raises(TimedOut):
        read(lambda request: httpx2.Response(200, stream=Silent()), 0, 100, Duration.millis(50))


@pytest.mark.real
@pytest.mark.parametrize("promised", [1000, 5])
def test_a_download_cut_short_is_a_lost_connection(promised: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\nContent-Length: {promised}\r\n\r\n"
        writer.write(head.encode() + b"short")
        await writer.drain()
        writer.close()

    async def told() -> bytes:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        artefacts = HttpArtefacts(WallClock())
        try:
            return await artefacts.read(f"http://127.0.0.1:{port}/x", 0, 10)
        finally:
            await artefacts.close()
            server.close()

    if promised == 5:
        assert asyncio.run(told()) == b"short"
    else:
        with pytest.raises(Disconnected):
            asyncio.run(told())

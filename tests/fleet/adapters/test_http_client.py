"""One HTTP exchange: what is sent, what comes back, and what each failure is called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest

from fleet.adapters.clock import WallClock
from fleet.adapters.http_client import LARGEST_ANSWER, HttpClient
from fleet.capabilities.http import HttpRequest, HttpResponse
from fleet.contracts.errors import Disconnected, FleetError, Refused, TimedOut, Unavailable
from fleet.contracts.time import Duration

SECRET = "a-secret-value"
ASKED = HttpRequest("POST", "http://idp.invalid/token", (("Authorization", f"Bearer {SECRET}"),), SECRET.encode())


def send(
    handler: Callable[[httpx2.Request], httpx2.Response],
    request: HttpRequest = ASKED,
    limit: Duration = Duration.seconds(10),
) -> HttpResponse:
    async def told() -> HttpResponse:
        client = HttpClient(WallClock(), limit, httpx2.MockTransport(handler))
        try:
            return await client.send(request)
        finally:
            await client.close()

    return asyncio.run(told())


def test_an_exchange_carries_everything_both_ways() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert (request.method, str(request.url)) == ("POST", ASKED.url)
        assert request.headers["Authorization"] == f"Bearer {SECRET}"
        return httpx2.Response(409, content=request.content + b"!", headers={"Date": "today"})

    response = send(answer)
    assert (response.status, response.body) == (409, SECRET.encode() + b"!")
    assert (response.header("date"), response.header("Date"), response.header("none")) == ("today", "today", None)


def test_a_redirect_is_an_answer() -> None:
    assert send(lambda request: httpx2.Response(302, headers={"Location": "http://elsewhere.invalid"})).status == 302


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx2.ConnectError(SECRET), Unavailable),
        (httpx2.ReadError(SECRET), Disconnected),
        (httpx2.RemoteProtocolError(SECRET), Disconnected),
        (httpx2.UnsupportedProtocol(SECRET), Refused),
        (httpx2.InvalidURL(SECRET), Refused),
    ],
)
def test_a_failure_is_an_error_of_ours_that_quotes_nothing(error: Exception, expected: type[FleetError]) -> None:
    def failing(request: httpx2.Request) -> httpx2.Response:
        raise error

    with pytest.raises(FleetError) as caught:
        send(failing)
    assert type(caught.value) is expected
    assert caught.value.__cause__ is None
    assert SECRET not in repr(caught.value)


class Endless(httpx2.AsyncByteStream):
    """A body that goes on, or falls silent after its first piece."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield bytes(LARGEST_ANSWER // 4)
            if self._silent:
                await asyncio.Event().wait()


def test_a_server_that_falls_silent_times_out() -> None:
    with pytest.raises(TimedOut):
        send(lambda request: httpx2.Response(200, stream=Endless(True)), limit=Duration.millis(50))


def test_an_answer_without_an_end_is_refused() -> None:
    with pytest.raises(Refused, match="larger"):
        send(lambda request: httpx2.Response(200, stream=Endless(False)))


def test_secrets_do_not_show() -> None:
    answer = HttpResponse(200, (("Set-Cookie", SECRET),), SECRET.encode())
    assert SECRET not in f"{ASKED!r}{answer!r}"


@pytest.mark.real
def test_what_is_on_this_machine_needs_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    async def told() -> int:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = HttpClient(WallClock())
        try:
            port = server.sockets[0].getsockname()[1]
            return (await client.send(HttpRequest("GET", f"http://127.0.0.1:{port}/x"))).status
        finally:
            await client.close()
            server.close()

    assert asyncio.run(told()) == 204

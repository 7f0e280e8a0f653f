"""The Http port on a real network: one client, whose connections are kept for reuse."""

from __future__ import annotations

from typing import Final

import httpx2

from fleet.capabilities.clock import Clock
from fleet.capabilities.http import HttpRequest, HttpResponse
from fleet.contracts.errors import Disconnected, Refused, TimedOut, Unavailable
from fleet.contracts.time import Duration

HERE: Final = ("all://127.0.0.1", "all://localhost")
"""Reached directly, also where the environment names a proxy for everything else."""
LARGEST_ANSWER: Final = 4 * 1024 * 1024


class HttpClient:
    """The Http port.

    Args:
        clock: its pace limits how long one exchange may take, in place of the library's own time limits.
        limit: the longest that one exchange may take.
        transport: stands in for the network in tests.
    """

    def __init__(
        self,
        clock: Clock,
        limit: Duration = Duration.seconds(10),
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._clock = clock
        self._limit = limit
        mounts = None if transport is not None else {place: httpx2.AsyncHTTPTransport() for place in HERE}
        self._client = httpx2.AsyncClient(timeout=None, follow_redirects=False, transport=transport, mounts=mounts)

    async def send(self, request: HttpRequest) -> HttpResponse:
        """As the port says. No error carries the library's own as its cause: that one holds the request."""
        try:
            async with self._clock.timeout(self._limit):
                return await self._send(request)
        except TimeoutError:
            raise TimedOut(f"{request.url} did not answer in {self._limit}") from None
        except httpx2.ConnectError:
            raise Unavailable(f"{request.url} cannot be reached") from None
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
            raise Refused(f"{request.url!r} cannot be asked") from None
        except httpx2.RequestError as error:
            raise Disconnected(f"{request.url}: {type(error).__name__}") from None

    async def close(self) -> None:
        """Close the connections that are kept for reuse."""
        await self._client.aclose()

    async def _send(self, request: HttpRequest) -> HttpResponse:
        headers = [*request.headers]
        async with self._client.stream(
            request.method, request.url, headers=headers, content=request.body or None
        ) as answer:
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    raise Refused(f"{request.url}: the answer is larger than {LARGEST_ANSWER} bytes")
            return HttpResponse(answer.status_code, tuple(answer.headers.items()), bytes(body))

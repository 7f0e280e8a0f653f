"""Releases over HTTP, a range at a time, so that a download goes on where it broke off."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

from fleet.capabilities.clock import Clock
from fleet.contracts.errors import Disconnected, NotFound, NotPermitted, Refused, TimedOut, Unavailable
from fleet.contracts.time import Duration


class HttpArtefacts:
    """The Artefacts port.

    Args:
        clock: its pace limits how long one read may take, in place of the library's own time limits.
        limit: the longest that one `read` may take.
        transport: stands in for the network in tests.
    """

    def __init__(
        self,
        clock: Clock,
        limit: Duration | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._clock = clock
        self._limit = limit or Duration.seconds(60)
        self._client = httpx2.AsyncClient(timeout=None, follow_redirects=True, transport=transport)

    async def read(self, url: str, offset: int, length: int) -> bytes:
        """As the port says."""
        if length <= 0:
            return b""
        try:
            async with self._clock.timeout(self._limit):
                return await self._read(url, offset, length)
        except TimeoutError:
            raise TimedOut(f"{url} was not read in {self._limit}") from None
        except httpx2.ConnectError as error:
            raise Unavailable(f"{url} cannot be reached") from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise Refused(f"{url!r} cannot be fetched") from error
        except httpx2.RequestError as error:
            raise Disconnected(f"{url}: {type(error).__name__}") from error

    async def close(self) -> None:
        """Close the connections that are kept for reuse."""
        await self._client.aclose()

    async def _read(self, url: str, offset: int, length: int) -> bytes:
        headers = {"Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "identity"}
        async with self._client.stream("GET", url, headers=headers) as response:
            match response.status_code:
                case 206:
                    _check_range(url, response.headers.get("Content-Range", ""), offset)
                    return await _cut(response.aiter_raw(), 0, length)
                case 200:
                    return await _cut(response.aiter_raw(), offset, length)
                case 416:
                    return b""
                case status:
                    raise _refusal(url, status)


async def _cut(chunks: AsyncIterator[bytes], skip: int, length: int) -> bytes:
    """`length` bytes after the first `skip`, whatever more there is."""
    kept = bytearray()
    async for chunk in chunks:
        kept += chunk[skip:]
        skip = max(0, skip - len(chunk))
        if len(kept) >= length:
            break
    return bytes(kept[:length])


def _check_range(url: str, content_range: str, offset: int) -> None:
    if not content_range.startswith(f"bytes {offset}-"):
        raise Refused(f"{url} was answered with another range than was asked for")


def _refusal(url: str, status: int) -> NotFound | Refused | Unavailable:
    match status:
        case 404 | 410:
            return NotFound(f"there is no {url}")
        case 401 | 403:
            return NotPermitted(f"{url} may not be fetched: status {status}")
        case 408 | 429:
            return Unavailable(f"{url} is not served now: status {status}")
        case _ if status >= 500:
            return Unavailable(f"{url} is not served now: status {status}")
        case _:
            return Refused(f"{url} was answered with status {status}")

"""The KV v2 engine of OpenBao (and of Vault, whose API it is) over HTTP.

The answers are told apart by what they say about the request. 400 on a compare-and-swap, 403, 404 and a sealed 503 came
from a server that looked at it and did nothing. Any other 5xx, a broken connection and silence say nothing: a write may
have happened, so they are `Unknown` and whoever wrote looks it up. No error quotes a body or a token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx2

from fleet.capabilities.clock import Clock
from fleet.capabilities.secrets import KvEntry
from fleet.contracts.errors import (
    Conflict,
    Disconnected,
    FleetError,
    InvalidValue,
    NotFound,
    NotPermitted,
    Refused,
    TimedOut,
    TooLarge,
    Unavailable,
)
from fleet.contracts.time import Duration

CAS_MISMATCH: Final = "check-and-set parameter did not match"
Json = Mapping[str, object]


class OpenBaoKv:
    """The KvEngine port.

    Args:
        url: of the server, without a slash at its end.
        mount: where the engine is mounted.
        token_file: holds the token; read for each request, so that whoever renews it needs to tell nobody.
        clock: its pace limits how long one request may take, in place of the library's own time limits.
        limit: the longest that one request may take.
        transport: stands in for the network in tests.
    """

    def __init__(
        self,
        url: str,
        mount: str,
        token_file: Path,
        clock: Clock,
        limit: Duration = Duration.seconds(10),
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._base = f"{url}/v1/{quote(mount)}"
        self._token_file = token_file
        self._clock = clock
        self._limit = limit
        self._client = httpx2.AsyncClient(timeout=None, follow_redirects=False, trust_env=False, transport=transport)

    async def get(self, path: str) -> KvEntry:
        """As the port says."""
        url = f"{self._base}/data/{quote(path)}"
        response = await self._ask("GET", url)
        if response.status_code not in (200, 404):
            raise _refusal(url, response)
        body = _body(url, response)
        match body.get("data"):
            case {"data": dict(data), "metadata": {"version": int(version)}} if _are_texts(data):
                return KvEntry(version, data)
            case {"data": dict(), "metadata": {"version": int(version)}}:
                raise InvalidValue(f"{url}, version {version}: its fields are not all texts")
            case {"data": None, "metadata": {"version": int(version), "destroyed": bool(destroyed)}}:
                return KvEntry(version, None, destroyed)
            case _ if response.status_code == 404 and body.get("errors") == []:
                raise NotFound(f"there is nothing at {url}")
            case _ if response.status_code == 404:
                raise Refused(f"{url}: no KV v2 engine answers there; look at the mount")
            case _:
                raise InvalidValue(f"{url}: the answer is not that of a KV v2 engine")

    async def put(self, path: str, data: Mapping[str, str], last: int) -> int:
        """As the port says."""
        url = f"{self._base}/data/{quote(path)}"
        response = await self._ask("POST", url, {"options": {"cas": last}, "data": dict(data)})
        if response.status_code == 400 and any(CAS_MISMATCH in text for text in _errors(response)):
            raise Conflict(f"the newest version at {url} is not {last}")
        if response.status_code != 200:
            raise _refusal(url, response)
        match _body(url, response).get("data"):
            case {"version": int(version)}:
                return version
            case _:
                raise Disconnected(f"{url}: the answer to a write does not name its version")

    async def names(self, folder: str) -> tuple[str, ...]:
        """As the port says."""
        url = f"{self._base}/metadata/{quote(folder)}"
        response = await self._ask("GET", f"{url}?list=true")
        if response.status_code == 404 and _body(url, response).get("errors") == []:
            return ()
        if response.status_code != 200:
            raise _refusal(url, response)
        match _body(url, response).get("data"):
            case {"keys": list(keys)}:
                return tuple(sorted(key for key in keys if isinstance(key, str) and not key.endswith("/")))
            case _:
                raise InvalidValue(f"{url}: the answer is not a list of names")

    async def close(self) -> None:
        """Close the connections that are kept for reuse."""
        await self._client.aclose()

    async def _ask(self, method: str, url: str, body: Json | None = None) -> httpx2.Response:
        headers = {"X-Vault-Token": self._token(), "X-Vault-Request": "true"}
        try:
            async with self._clock.timeout(self._limit):
                return await self._client.request(method, url, headers=headers, json=body)
        except TimeoutError:
            raise TimedOut(f"{url} did not answer in {self._limit}") from None
        except httpx2.ConnectError as error:
            raise Unavailable(f"{url} cannot be reached") from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise Refused(f"{url!r} cannot be asked") from error
        except httpx2.RequestError as error:
            raise Disconnected(f"{url}: {type(error).__name__}") from None

    def _token(self) -> str:
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise Unavailable(f"the OpenBao token in {self._token_file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            raise InvalidValue(f"{self._token_file} does not hold an OpenBao token") from None
        if not token or not token.isprintable() or " " in token:
            raise InvalidValue(f"{self._token_file} does not hold an OpenBao token")
        return token


def _are_texts(data: Mapping[object, object]) -> bool:
    return all(isinstance(key, str) and isinstance(field, str) for key, field in data.items())


def _body(url: str, response: httpx2.Response) -> Json:
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict):
        return body
    raise Disconnected(f"{url}: the answer {response.status_code} is not JSON")


def _errors(response: httpx2.Response) -> tuple[str, ...]:
    try:
        match json.loads(response.content):
            case {"errors": list(errors)}:
                return tuple(str(error) for error in errors)
            case _:
                return ()
    except (ValueError, RecursionError):
        return ()


def _refusal(url: str, response: httpx2.Response) -> FleetError:
    match response.status_code:
        case 403:
            return NotPermitted(f"{url}: the token may not do this, or has expired")
        case 404:
            return Refused(f"{url}: no KV v2 engine answers there; look at the mount")
        case 413:
            return TooLarge(f"{url}: the server takes no request of this size")
        case 429 | 412 | 472 | 473:
            return Unavailable(f"{url}: the server takes no requests now ({response.status_code})")
        case 503 if any("sealed" in text for text in _errors(response)):
            return Unavailable(f"{url}: the server is sealed; unseal it, then try again")
        case status if status >= 500:
            return Disconnected(f"{url}: the server answered {status}, and may have acted before")
        case 307 | 308 as status:
            return Unavailable(f"{url}: the server sends elsewhere ({status}): name the active one")
        case 400 if any("check-and-set parameter required" in text for text in _errors(response)):
            return Refused(f"{url}: the server does not see the compare-and-swap that was sent")
        case status:
            return Refused(f"{url}: the server answered {status}")

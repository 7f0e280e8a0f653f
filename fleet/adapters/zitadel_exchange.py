"""Talking to one identity provider: discovery, its clock, and what each of its answers means.

The clock of a device is often wrong and the provider takes no assertion from the future, so the time in assertions is
the provider's own: read from the `Date` header of each of its answers, and carried on by the monotonic clock, which
neither is wrong nor jumps. The time of day of the machine is used only where an answer had no such header.

An error names the URL, the status, and the provider's own code for it. It quotes nothing else: descriptions repeat what
was sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from fleet.adapters import zitadel_shapes as shapes
from fleet.adapters.zitadel_shapes import Json, Shape
from fleet.capabilities.clock import Clock
from fleet.capabilities.http import Http, HttpResponse
from fleet.contracts.errors import Disconnected, FleetError, Refused, Unavailable
from fleet.contracts.time import Duration, Instant

_CODE: Final = re.compile(r"[a-z_]{1,40}")
_MARK: Final = re.compile(r"\(([A-Z0-9]{2,8}-[A-Za-z0-9]{3,8})\)")


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON answer with a status that says yes."""

    fields: Json


class Exchange:
    """One provider.

    Args:
        issuer: its address, as its tokens name it.
    """

    def __init__(self, http: Http, clock: Clock, issuer: str) -> None:
        self.issuer = issuer
        self.clock = clock
        self._http = http
        self._endpoints: dict[str, str] = {}
        self._told: tuple[Instant, Instant] | None = None
        """What the provider's clock said, and what ours counted then."""

    def now(self) -> Instant:
        """The provider's time, as far as it is known."""
        if self._told is None:
            return self.clock.wall()
        said, counted = self._told
        return said + (self.clock.monotonic() - counted)

    async def discover(self) -> None:
        """Learn the endpoints and the clock, if that was not done yet.

        Raises:
            Refused: another issuer answers there. Otherwise as `ask`.
        """
        if self._endpoints:
            return
        found = await self.ask(shapes.DISCOVERY)
        if found.get("issuer") != self.issuer:
            raise Refused(f"{self.issuer}: the provider there calls itself otherwise; issuers have to be equal")
        self._endpoints = {key: value for key, value in found.items() if isinstance(value, str)}

    async def ask(
        self,
        shape: Shape,
        fields: Json | None = None,
        places: Mapping[str, str] | None = None,
        token: str | None = None,
        organization: str | None = None,
    ) -> Json:
        """Send it; the fields of the answer.

        Raises:
            what the shape says of a status; NotPermitted (401, 403), Refused (other 4xx).
            Unavailable: nothing was done. TimedOut, Disconnected: something may have been done.
        """
        url = await self._url(shape)
        response = await self.send(shape, fields, places, token, organization)
        if response.status // 100 != 2:
            raise refusal(shape, url, response)
        return body_of(url, response)

    async def send(
        self,
        shape: Shape,
        fields: Json | None = None,
        places: Mapping[str, str] | None = None,
        token: str | None = None,
        organization: str | None = None,
    ) -> HttpResponse:
        """Send it; the answer, whatever its status. Raises: as the Http port, and `discover`."""
        url = await self._url(shape)
        response = await self._http.send(shapes.request(shape, url, fields, places, token, organization))
        self._observe(response)
        return response

    async def _url(self, shape: Shape) -> str:
        if not shape.is_discovered:
            return self.issuer
        await self.discover()
        url = self._endpoints.get(shape.path)
        if url is None:
            raise Refused(f"{self.issuer}: the provider offers no {shape.path}")
        return url

    def _observe(self, response: HttpResponse) -> None:
        said = date_of(response)
        if said is not None:
            self._told = said, self.clock.monotonic()


def date_of(response: HttpResponse) -> Instant | None:
    """The provider's clock when it answered, in whole seconds; None when it did not say."""
    text = response.header("Date")
    if text is None:
        return None
    try:
        seconds = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return Instant(0) + Duration(int(seconds) * 10**9)


def refusal(shape: Shape, url: str, response: HttpResponse) -> FleetError:
    """What a status that says no means."""
    status = response.status
    told = f"{url} ({shape.name}): status {status}{_said(response)}"
    kind = shape.refusals.get(status) or shapes.USUAL.get(status)
    if kind is not None:
        return kind(told)
    if status in (408, 425, 429):
        return Unavailable(told)
    if status >= 500:
        return Disconnected(f"{told}; it may have acted before") if shape.acts else Unavailable(told)
    return Refused(told)


def error_code(response: HttpResponse) -> str:
    """The provider's own code for a refusal, such as `invalid_grant`; empty when it has none."""
    try:
        match json.loads(response.body):
            case {"error": str(code)} | {"code": str(code)} if _CODE.fullmatch(code):
                return code
            case _:
                return ""
    except (ValueError, RecursionError):
        return ""


def body_of(url: str, response: HttpResponse) -> Json:
    """The JSON object of an answer. Raises: Disconnected when it is none."""
    try:
        body = json.loads(response.body)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Disconnected(f"{url}: the answer {response.status} is not a JSON object")
    return body


def text_at(url: str, fields: Json, *path: str) -> str:
    """A text in an answer. Raises: Disconnected when it is not there: what was asked for may have been done."""
    found: object = fields
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, str) or not found:
        raise Disconnected(f"{url}: the answer holds no {'.'.join(path)}")
    return found


def _said(response: HttpResponse) -> str:
    """The code and the provider's mark for the place in its own source, which its documentation is searched by."""
    mark = _MARK.search(response.body.decode("utf-8", "replace"))
    words = [word for word in (error_code(response), "" if mark is None else mark[1]) if word]
    return f", {' '.join(words)}" if words else ""

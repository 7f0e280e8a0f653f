"""One HTTP exchange: what the clients of web APIs are written above, on a real network and on a simulated one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request, whole. Headers and body carry secrets: neither shows in `repr`.

    Args:
        method: in capitals.
        url: absolute.
    """

    method: str
    url: str
    headers: Headers = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer, whole, whatever its status. Headers and body carry secrets: neither shows in `repr`."""

    status: int
    headers: Headers = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str | None:
        """The first header of that name, in whatever case; None when there is none."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)


class Http(Protocol):
    """Sends requests. Follows no redirects: whoever asks a web API knows its addresses."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """One exchange. Any status is an answer, not an error.

        Raises:
            Unavailable: nobody could be reached, nothing was sent.
            TimedOut, Disconnected: the other side may have acted.
            Refused: that is no address, or the answer is too large to be one.
        """
        ...

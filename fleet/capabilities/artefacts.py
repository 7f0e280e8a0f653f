"""Where releases are fetched from: HTTP with range requests in production."""

from __future__ import annotations

from typing import Protocol


class Artefacts(Protocol):
    """A source of release files."""

    async def read(self, url: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; empty at the end of the file.

        Raises:
            NotFound: there is no such artefact. Refused: the server says no.
            Unavailable, TimedOut, Disconnected: try again from the same offset.
        """
        ...

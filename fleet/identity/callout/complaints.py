"""What went wrong, in the log, so that it is found and cannot fill it: anybody can be refused any number of times."""

from __future__ import annotations

from logging import Logger
from typing import Final

from fleet.contracts.time import Duration, Instant

WINDOW: Final = Duration.minutes(1)
MOST: Final = 200
"""Different lines within a window."""


class Complaints:
    """Says each line once in a window, and at the next window's first line how many were not said."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._said: dict[str, None] = {}
        self._unsaid = 0
        self._since: Instant | None = None

    def say(self, text: str, now: Instant) -> None:
        """Something went wrong. The text may hold no secret."""
        if self._since is None or now - self._since >= WINDOW:
            self._since = now
            self._said.clear()
            if self._unsaid:
                self._logger.warning("%s lines like those before were left out", self._unsaid)
                self._unsaid = 0
        if text in self._said or len(self._said) >= MOST:
            self._unsaid += 1
            return
        self._said[text] = None
        self._logger.warning("%s", text)

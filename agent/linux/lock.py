"""The `HostLock` port on Linux: `flock` on a file, which the kernel drops with the last process that has it open."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from fleet.capabilities.clock import Clock
from fleet.contracts.errors import DiskFault
from fleet.contracts.time import Duration

POLL = Duration.millis(500)


class LinuxLock:
    """The lock file at `path`. Waits by asking again: a blocking `flock` would need a thread that cannot be ended."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._held: int | None = None

    async def acquire(self) -> None:
        """See `HostLock.acquire`. Raises: DiskFault when the lock file cannot be opened."""
        if self._held is not None:
            return
        file = self._open()
        try:
            while not _locked(file):
                await self._clock.sleep(POLL)
        except BaseException:
            os.close(file)
            raise
        self._held = file

    def release(self) -> None:
        """See `HostLock.release`."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    def _open(self) -> int:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DiskFault(f"{self._path}: {error.strerror}") from error


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

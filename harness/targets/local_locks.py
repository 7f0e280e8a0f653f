"""Who holds a host lock, told by the kernel: `/proc/locks` names the process behind each `flock`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_TABLE = Path("/proc/locks")
_GONE = " (deleted)"


def held() -> frozenset[tuple[int, int]]:
    """Every pair of process id and inode where that process holds a `flock` on that inode."""
    return parse(_TABLE.read_text("ascii").splitlines())


def parse(lines: Iterable[str]) -> frozenset[tuple[int, int]]:
    """Read lines such as `3: FLOCK  ADVISORY  WRITE 4711 fe:00:1048 0 EOF`. Waiters (`->`) hold nothing."""
    fields = (line.split() for line in lines)
    flocks = (words for words in fields if len(words) >= 6 and words[1] == "FLOCK")
    return frozenset((int(words[4]), int(words[5].rsplit(":", 1)[1])) for words in flocks)


def is_open_as(path: Path, pid: int, inode: int) -> bool:
    """Whether the process has that inode open under this path, also if the path has since been given to another file.

    Two processes that lock two files of one name both believe to hold the lock: by its inode alone the second would
    not be found.
    """
    names = (str(path), f"{path}{_GONE}")
    for file in _open_files(pid):
        with suppress(OSError):
            if os.readlink(file) in names and os.stat(file).st_ino == inode:
                return True
    return False


def _open_files(pid: int) -> list[str]:
    try:
        return [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []  # The process is gone, and holds nothing.

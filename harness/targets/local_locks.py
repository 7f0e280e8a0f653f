"""Who holds a host lock, told by the kernel: `/proc/locks` names the process behind each `flock`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_TABLE = Path("/proc/locks")


def holders() -> dict[int, int]:
    """The holder's process id per inode that is locked with `flock`. Waiters (lines with `->`) do not count."""
    return parse(_TABLE.read_text("ascii").splitlines())


def parse(lines: Iterable[str]) -> dict[int, int]:
    """Read lines such as `3: FLOCK  ADVISORY  WRITE 4711 fe:00:1048 0 EOF`."""
    fields = (line.split() for line in lines)
    flocks = (words for words in fields if len(words) >= 6 and words[1] == "FLOCK")
    return {int(words[5].rsplit(":", 1)[1]): int(words[4]) for words in flocks}

"""Whose connection it is that reached a port of the loopback, told by the kernel.

All devices fetch releases from one address, because a rollout names one; which line a download goes over is decided by
the process at its other end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TABLE = Path("/proc/net/tcp")
_LOOPBACK = "0100007F"


def socket_of(port: int) -> int | None:
    """The inode of the socket bound to this port of the loopback at a connection's other end; None when it is gone."""
    return parse(_TABLE.read_text("ascii").splitlines()[1:], port)


def parse(lines: Iterable[str], port: int) -> int | None:
    """Read lines such as `0: 0100007F:9C40 0100007F:1F90 01 … 4711 …`."""
    address = f"{_LOOPBACK}:{port:04X}"
    for line in lines:
        words = line.split()
        if words[1] == address and words[9] != "0":
            return int(words[9])
    return None


def has_socket(pid: int, inode: int) -> bool:
    """Whether the process has this socket open."""
    name = f"socket:[{inode}]"
    try:
        return any(_target(f"/proc/{pid}/fd/{file}") == name for file in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False  # The process is gone.


def _target(file: str) -> str:
    try:
        return os.readlink(file)
    except OSError:
        return ""

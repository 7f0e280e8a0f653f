"""A disk of its own size for a device that is a folder: a tmpfs, which this process alone and its children see.

Mounting needs the right to administer the system, which root has and which a container may have taken away. The mounts
are made in a mount namespace of this process: when it and its children have ended, however they did, none is left.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from fleet.contracts.errors import Unavailable

_CLONE_NEWNS: Final = 0x0002_0000
_MS_REMOUNT: Final = 0x20
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x4_0000
_MNT_DETACH: Final = 2
_CAP_SYS_ADMIN: Final = 21
_LIBC = ctypes.CDLL(None, use_errno=True)

ROOMY: Final = 1 << 30
"""Bytes of a disk that nobody filled. They cost memory only as far as they are used."""

_entered: list[int] = []
"""The process that has a namespace of its own already."""


def may_mount() -> bool:
    """Whether this process has the right to."""
    for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) >> _CAP_SYS_ADMIN & 1)
    return False


def mount(path: Path) -> None:
    """Put a disk there. The folder is made. Raises: Unavailable."""
    if os.getpid() not in _entered:
        _check("unshare", _LIBC.unshare(_CLONE_NEWNS))
        _check("make mounts private", _LIBC.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))
        _entered.append(os.getpid())
    path.mkdir(parents=True, exist_ok=True)
    _check("mount", _LIBC.mount(b"fleet", os.fsencode(path), b"tmpfs", 0, _options(ROOMY)))


def resize(path: Path, size: int) -> None:
    """Give the disk another size in bytes. Raises: Unavailable, when it holds more."""
    _check("resize", _LIBC.mount(b"fleet", os.fsencode(path), b"tmpfs", _MS_REMOUNT, _options(size)))


def leave_free(path: Path, free: int) -> None:
    """Make the disk so small that `free` bytes are left, rounded up to whole pages."""
    found = os.statvfs(path)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    page = found.f_frsize
    resize(path, used + max(page, -(-free // page) * page))


def unmount(path: Path) -> None:
    """Take the disk away, with all that is on it."""
    _check("unmount", _LIBC.umount2(os.fsencode(path), _MNT_DETACH))


def _options(size: int) -> bytes:
    return b"mode=0755,size=%d" % size


def _check(what: str, answer: int) -> None:
    if answer != 0:
        raise Unavailable(f"could not {what}: {os.strerror(ctypes.get_errno())}")

"""The disk: single POSIX-like operations, so that atomicity is built, and cut by power, above the port.

Paths are absolute as the program sees them; an implementation may root them elsewhere. Nothing is durable
until it was synced: contents by `sync`, names (create, rename, symlink, unlink) by `sync_folder` of the folder.

All methods raise `DiskFault` when the device fails, `NotFound` for a missing file or folder, `NoSpace` when it
is full (what was written before stays).
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Protocol


class Disk(Protocol):
    """One machine's file system."""

    async def read(self, path: PurePosixPath, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes from `offset`, at most `length` (all when None). Follows links."""
        ...

    async def write(self, path: PurePosixPath, data: bytes, offset: int = 0) -> None:
        """Write at `offset`, creating the file. With offset 0 the file is truncated first. Not durable until synced.

        Raises:
            Refused: the file is a running program (ETXTBSY) or a folder.
        """
        ...

    async def make_executable(self, path: PurePosixPath) -> None:
        """Mode 0755."""
        ...

    async def make_private(self, path: PurePosixPath) -> None:
        """Mode 0600."""
        ...

    async def sync(self, path: PurePosixPath) -> None:
        """Make the file's contents durable."""
        ...

    async def sync_folder(self, path: PurePosixPath) -> None:
        """Make the folder's names durable."""
        ...

    async def rename(self, source: PurePosixPath, target: PurePosixPath) -> None:
        """Atomically give `source` the name `target`, replacing what had it. Files, links, and folders onto nothing."""
        ...

    async def symlink(self, target: PurePosixPath, link: PurePosixPath) -> None:
        """Make a symbolic link. Raises: Conflict when `link` exists."""
        ...

    async def read_link(self, link: PurePosixPath) -> PurePosixPath:
        """Where a link points. Raises: NotFound when it is missing or not a link."""
        ...

    async def unlink(self, path: PurePosixPath) -> None:
        """Remove a file or link."""
        ...

    async def make_folder(self, path: PurePosixPath) -> None:
        """Make a folder with its parents; nothing happens when it exists."""
        ...

    async def remove_folder(self, path: PurePosixPath) -> None:
        """Remove a folder with all below it; nothing happens when it is missing."""
        ...

    async def names(self, folder: PurePosixPath) -> tuple[str, ...]:
        """The names in a folder, sorted; empty when the folder is missing."""
        ...

    async def size(self, path: PurePosixPath) -> int:
        """The file's size in bytes. Follows links."""
        ...

    async def exists(self, path: PurePosixPath) -> bool:
        """Whether the name exists (a dangling link does)."""
        ...

    async def free(self) -> int:
        """Bytes that can still be written."""
        ...

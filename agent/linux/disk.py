"""The `Disk` port on a Linux file system, rooted at a folder (`/` in production).

An absolute link target is kept below the root on disk and given back without it, so that a device that lives in
a folder is whole there. Single system calls run inline; what can take long on a worn SD card runs in a thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TypeVar

from fleet.contracts.errors import Conflict, DiskFault, FleetError, NoSpace, NotFound, NotPermitted, Refused

T = TypeVar("T")

_INLINE = 64 * 1024
"""Reads and writes up to this many bytes stay on the event loop: a thread would cost more."""
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY})
_NO = frozenset({errno.EISDIR, errno.ETXTBSY, errno.EBUSY})
_FORBIDDEN = frozenset({errno.EPERM, errno.EACCES})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class LinuxDisk:
    """The file system below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def read(self, path: PurePosixPath, offset: int = 0, length: int | None = None) -> bytes:
        """See `Disk.read`."""
        if length is not None and length <= _INLINE:
            return self._read(path, offset, length)
        return await _in_thread(lambda: self._read(path, offset, length))

    async def write(self, path: PurePosixPath, data: bytes, offset: int = 0) -> None:
        """See `Disk.write`."""
        if len(data) <= _INLINE:
            self._write(path, data, offset)
        else:
            await _in_thread(lambda: self._write(path, data, offset))

    async def make_executable(self, path: PurePosixPath) -> None:
        """See `Disk.make_executable`."""
        with self._translated(path):
            os.chmod(self._at(path), 0o755)

    async def make_private(self, path: PurePosixPath) -> None:
        """See `Disk.make_private`."""
        with self._translated(path):
            os.chmod(self._at(path), 0o600)

    async def sync(self, path: PurePosixPath) -> None:
        """See `Disk.sync`."""
        await _in_thread(lambda: self._sync(path, os.O_RDONLY))

    async def sync_folder(self, path: PurePosixPath) -> None:
        """See `Disk.sync_folder`."""
        await _in_thread(lambda: self._sync(path, os.O_RDONLY | os.O_DIRECTORY))

    async def rename(self, source: PurePosixPath, target: PurePosixPath) -> None:
        """See `Disk.rename`."""
        with self._translated(target):
            try:
                os.rename(self._at(source), self._at(target))
            except NotADirectoryError as error:
                raise Refused(f"{target}: a folder and a file do not replace each other") from error

    async def symlink(self, target: PurePosixPath, link: PurePosixPath) -> None:
        """See `Disk.symlink`."""
        with self._translated(link):
            os.symlink(self._at(target) if target.is_absolute() else target, self._at(link))

    async def read_link(self, link: PurePosixPath) -> PurePosixPath:
        """See `Disk.read_link`."""
        with self._translated(link):
            try:
                target = PurePosixPath(os.readlink(self._at(link)))
            except OSError as error:
                if error.errno == errno.EINVAL:
                    raise NotFound(f"{link} is not a link") from error
                raise
        if target.is_absolute() and target.is_relative_to(self._root):
            return "/" / target.relative_to(self._root)
        return target

    async def unlink(self, path: PurePosixPath) -> None:
        """See `Disk.unlink`."""
        with self._translated(path):
            os.unlink(self._at(path))

    async def make_folder(self, path: PurePosixPath) -> None:
        """See `Disk.make_folder`."""
        with self._translated(path):
            try:
                os.makedirs(self._at(path), mode=0o755, exist_ok=True)
            except NotADirectoryError as error:
                raise Conflict(f"{path} is in the way of something that is not a folder") from error

    async def remove_folder(self, path: PurePosixPath) -> None:
        """See `Disk.remove_folder`."""
        await _in_thread(lambda: self._remove_folder(path))

    async def names(self, folder: PurePosixPath) -> tuple[str, ...]:
        """See `Disk.names`."""
        try:
            with self._translated(folder):
                return tuple(sorted(os.listdir(self._at(folder))))
        except NotFound:
            return ()

    async def size(self, path: PurePosixPath) -> int:
        """See `Disk.size`."""
        with self._translated(path):
            found = os.stat(self._at(path))
        if stat.S_ISDIR(found.st_mode):
            raise Refused(f"{path} is a folder")
        return found.st_size

    async def exists(self, path: PurePosixPath) -> bool:
        """See `Disk.exists`."""
        try:
            with self._translated(path):
                os.lstat(self._at(path))
        except NotFound:
            return False
        return True

    async def free(self) -> int:
        """See `Disk.free`."""
        with self._translated(PurePosixPath("/")):
            return self._free()

    def _at(self, path: PurePosixPath) -> Path:
        return self._root / path.relative_to("/")

    def _free(self) -> int:
        found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize

    def _read(self, path: PurePosixPath, offset: int, length: int | None) -> bytes:
        with self._translated(path), open(self._at(path), "rb") as file:
            file.seek(offset)
            return file.read(-1 if length is None else length)

    def _write(self, path: PurePosixPath, data: bytes, offset: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if offset == 0 else 0)
        with self._translated(path, needed=len(data)), _opened(self._at(path), flags) as file:
            rest = memoryview(data)
            while rest:
                written = os.pwrite(file, rest, offset)
                rest, offset = rest[written:], offset + written

    def _sync(self, path: PurePosixPath, flags: int) -> None:
        with self._translated(path), _opened(self._at(path), flags) as file:
            os.fsync(file)

    def _remove_folder(self, path: PurePosixPath) -> None:
        with self._translated(path):
            at = self._at(path)
            if at.is_symlink() or at.is_file():
                raise Refused(f"{path} is not a folder that can be removed")
            try:
                shutil.rmtree(at)
            except FileNotFoundError:
                return

    @contextmanager
    def _translated(self, path: PurePosixPath, needed: int = 0) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(path, error, needed) from error

    def _error(self, path: PurePosixPath, error: OSError, needed: int) -> FleetError:
        text = f"{path}: {error.strerror}"
        if error.errno in _FULL:
            return NoSpace(needed, self._free())
        if error.errno in _MISSING:
            return NotFound(text)
        if error.errno in _TAKEN:
            return Conflict(text)
        if error.errno in _NO:
            return Refused(text)
        if error.errno in _FORBIDDEN:
            return NotPermitted(text)
        return DiskFault(text)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        yield file
    finally:
        os.close(file)


async def _in_thread(act: Callable[[], T]) -> T:
    """Run `act` in a thread. A cancelled caller leaves when it is done, so that nothing is written behind its back."""
    work = asyncio.ensure_future(asyncio.to_thread(act))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise

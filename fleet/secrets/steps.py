"""The operations on a folder that the file store is made of, one method each.

They are a seam so that a test can stop the store before and after each of them, and can put a model of what a power cut
leaves in the place of the file system. All of them work relative to a folder that is open, so that nobody can swap the
folder in between, and none of them follows a symbolic link. They block, for as long as a small file takes: there are no
threads to hand them to.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands under a name.

    Args:
        regular: a plain file, not a link, a folder or a device.
        mode: the permission bits.
        owner: the user id.
    """

    regular: bool
    mode: int
    owner: int


class Steps(Protocol):
    """One folder that is open and checked. All methods raise `OSError`."""

    def names(self) -> list[str]:
        """Everything in the folder."""
        ...

    def look(self, name: str) -> Seen:
        """What stands under the name. Raises: FileNotFoundError."""
        ...

    def read(self, name: str, most: int) -> bytes:
        """At most that many bytes of a file. Raises: FileNotFoundError."""
        ...

    def write_new(self, name: str, content: bytes) -> None:
        """A new file, mode 0600. Raises: FileExistsError."""
        ...

    def sync(self, name: str) -> None:
        """The content of the file survives a power cut from here on."""
        ...

    def link_new(self, name: str, other: str) -> None:
        """A second name for a file. Raises: FileExistsError, and then leaves what stands under the other name."""
        ...

    def move_over(self, name: str, other: str) -> None:
        """Another name for a file, in place of whatever had it."""
        ...

    def remove(self, name: str) -> None:
        """Remove a name. Raises: FileNotFoundError."""
        ...

    def sync_folder(self) -> None:
        """The names in the folder survive a power cut from here on."""
        ...

    def try_lock(self, name: str) -> bool:
        """Take the lock on the file of that name without waiting; the end of the process gives it back."""
        ...

    def unlock(self) -> None:
        """Give the lock back, if it is held."""
        ...


class FolderSteps:
    """The operations on a real folder."""

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._lock: int | None = None

    def names(self) -> list[str]:
        """As the port says."""
        return os.listdir(self._folder)

    def look(self, name: str) -> Seen:
        """As the port says."""
        return seen_of(os.stat(name, dir_fd=self._folder, follow_symlinks=False))

    def read(self, name: str, most: int) -> bytes:
        """As the port says. One that is not a plain file is refused by the system or by `look`."""
        with self._opened(name, os.O_RDONLY | os.O_NONBLOCK) as file:
            parts: list[bytes] = []
            while most > 0 and (part := os.read(file, most)):
                parts.append(part)
                most -= len(part)
            return b"".join(parts)

    def write_new(self, name: str, content: bytes) -> None:
        """As the port says."""
        with self._opened(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
            os.fchmod(file, 0o600)
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(file, rest) :]

    def sync(self, name: str) -> None:
        """As the port says."""
        with self._opened(name, os.O_RDONLY) as file:
            os.fsync(file)

    def link_new(self, name: str, other: str) -> None:
        """As the port says."""
        os.link(name, other, src_dir_fd=self._folder, dst_dir_fd=self._folder, follow_symlinks=False)

    def move_over(self, name: str, other: str) -> None:
        """As the port says."""
        os.replace(name, other, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def remove(self, name: str) -> None:
        """As the port says."""
        os.unlink(name, dir_fd=self._folder)

    def sync_folder(self) -> None:
        """As the port says."""
        os.fsync(self._folder)

    def try_lock(self, name: str) -> bool:
        """As the port says."""
        file = self._open(name, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except BaseException:
            os.close(file)
            raise
        self._lock = file
        return True

    def unlock(self) -> None:
        """As the port says."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def _opened(self, name: str, flags: int) -> Iterator[int]:
        file = self._open(name, flags)
        try:
            yield file
        finally:
            os.close(file)

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._folder)


@contextmanager
def opened_folder(folder: Path, make: bool) -> Iterator[tuple[Seen, FolderSteps]]:
    """The folder, open, and what it is.

    Args:
        make: make it, with mode 0700, when its last part alone is missing.

    Raises:
        OSError: it cannot be opened or made, or is a symbolic link or no folder.
    """
    if make:
        _make(folder)
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    steps = FolderSteps(number)
    try:
        yield seen_of(os.fstat(number)), steps
    finally:
        steps.unlock()
        os.close(number)


def seen_of(status: os.stat_result) -> Seen:
    """What the file system says, as far as it matters."""
    return Seen(stat.S_ISREG(status.st_mode), stat.S_IMODE(status.st_mode), status.st_uid)


def _make(folder: Path) -> None:
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        return
    parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)

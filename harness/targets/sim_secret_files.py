"""The folder of secrets on a virtual disk: what the production file store does its operations on, one by one.

It stands for a volume that every program of the control plane mounts. Owners are kept beside the disk, which knows
none: all files belong to `OWNER`, unless a fault says otherwise.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from fleet.capabilities.clock import Clock
from fleet.capabilities.secrets import SecretStore
from fleet.contracts.errors import Conflict, FleetError, NoSpace, NotFound
from fleet.contracts.ids import ObjectName
from fleet.roots.logins import StoredPassword
from fleet.secrets.documents import Documents, Held, Kept
from fleet.secrets.file import SUFFIX, FileDocuments
from fleet.secrets.steps import Seen, Steps
from harness.faults import SecretDamage
from harness.targets.secret_damage import damaged
from sim.disk import DiskImage

T = TypeVar("T")

FOLDER: Final = PurePosixPath("/var/lib/fleet/secrets")
OWNER: Final = 1000
_STRANGER: Final = 65534


class VirtualSecretFiles:
    """A `SecretPlace` on a virtual disk.

    Args:
        clock: that of the programs that use it.
    """

    def __init__(self, clock: Clock) -> None:
        self.image = DiskImage()
        self.image.make_folder(FOLDER)
        self.image.sync_all()
        self.locked = False
        self._clock = clock
        self._owners: dict[str, int] = {}

    def documents(self) -> Documents:
        """See `SecretPlace`."""
        return FileDocuments(Path(FOLDER), self._clock, OWNER, self._opened)

    def content(self, name: ObjectName) -> bytes | None:
        """See `SecretPlace`."""
        path = FOLDER / f"{name}{SUFFIX}"
        return self.image.read(path) if self.image.exists(path) else None

    def damage(self, name: ObjectName, how: SecretDamage) -> Callable[[], None]:
        """See `SecretPlace`."""
        path = FOLDER / f"{name}{SUFFIX}"
        if not self.image.exists(path):
            raise NotFound(f"there is no secret {name}")
        before = self.image.read(path)
        match how:
            case SecretDamage.WRONG_MODE:
                self.image.set_mode(path, private=False)
            case SecretDamage.WRONG_OWNER:
                self._owners[path.name] = _STRANGER
            case _:
                self.image.damage(path, damaged(before, how))

        def mend() -> None:
            self.image.damage(path, before)
            self.image.set_mode(path, private=True)
            self._owners.pop(path.name, None)

        return mend

    def on_change(self, look: Callable[[], None]) -> None:
        """See `SecretPlace`."""
        self.image.on_names_changed((FOLDER,), look)

    def owner(self, name: str) -> int:
        """Whom a file belongs to."""
        return self._owners.get(name, OWNER)

    @contextmanager
    def _opened(self, folder: Path, make: bool) -> Iterator[tuple[Seen, Steps]]:
        steps = _Steps(self)
        try:
            yield Seen(regular=False, mode=0o700, owner=OWNER), steps
        finally:
            steps.unlock()


class _Steps:
    """The operations of one program on the folder."""

    def __init__(self, files: VirtualSecretFiles) -> None:
        self._files = files
        self._image = files.image
        self._holds_lock = False

    def names(self) -> list[str]:
        return list(self._image.names(FOLDER))

    def look(self, name: str) -> Seen:
        private = _done(lambda: self._image.is_private(FOLDER / name))
        return Seen(regular=True, mode=0o600 if private else 0o644, owner=self._files.owner(name))

    def read(self, name: str, most: int) -> bytes:
        return _done(lambda: self._image.read(FOLDER / name, 0, most))

    def write_new(self, name: str, content: bytes) -> None:
        if self._image.exists(FOLDER / name):
            raise FileExistsError(name)
        _done(lambda: self._image.write(FOLDER / name, content))
        _done(lambda: self._image.make_private(FOLDER / name))

    def sync(self, name: str) -> None:
        _done(lambda: self._image.sync(FOLDER / name))

    def link_new(self, name: str, other: str) -> None:
        _done(lambda: self._image.link(FOLDER / name, FOLDER / other))

    def move_over(self, name: str, other: str) -> None:
        _done(lambda: self._image.rename(FOLDER / name, FOLDER / other))

    def remove(self, name: str) -> None:
        _done(lambda: self._image.unlink(FOLDER / name))

    def sync_folder(self) -> None:
        _done(lambda: self._image.sync_folder(FOLDER))

    def try_lock(self, name: str) -> bool:
        if self._files.locked:
            return False
        self._files.locked = self._holds_lock = True
        return True

    def unlock(self) -> None:
        if self._holds_lock:
            self._files.locked = self._holds_lock = False


class FarDocuments:
    """Documents of a place that takes time to answer.

    Args:
        pause: waits for as long as one way there takes.
    """

    def __init__(self, documents: Documents, pause: Callable[[], Awaitable[None]]) -> None:
        self._documents = documents
        self._pause = pause

    async def get(self, name: ObjectName) -> Held:
        """See `Documents`."""
        await self._pause()
        return await self._documents.get(name)

    async def create(self, kept: Kept) -> None:
        """See `Documents`."""
        await self._pause()
        await self._documents.create(kept)

    async def replace(self, kept: Kept, token: str) -> None:
        """See `Documents`."""
        await self._pause()
        await self._documents.replace(kept, token)

    async def names(self) -> tuple[ObjectName, ...]:
        """See `Documents`."""
        await self._pause()
        return await self._documents.names()


def stored_password(store: SecretStore, user: str, secret: ObjectName) -> Callable[[], Awaitable[str]]:
    """How a program of the control plane logs in: with what stands in the store at each connection."""
    source = StoredPassword(user, secret, store)

    async def read() -> str:
        return (await source.read()).password

    return read


def _done(work: Callable[[], T]) -> T:
    """Do it; what goes wrong is told as a file system tells it."""
    try:
        return work()
    except NotFound as error:
        raise FileNotFoundError(str(error)) from error
    except Conflict as error:
        raise FileExistsError(str(error)) from error
    except NoSpace as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    except FleetError as error:
        raise OSError(errno.EIO, os.strerror(errno.EIO)) from error

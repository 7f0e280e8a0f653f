"""Secrets in a folder: mode 0700, one JSON file of mode 0600 per secret.

A file is written under a temporary name, synced, and only then given its name: by a link, which never overwrites, or by
a rename over the version it replaces. So a name leads to a whole document at every instant, a power cut included, and a
process that stops anywhere leaves the old document or the new one. What it leaves beside them is a temporary file that
the next writer removes. Writers take turns by a lock on `.lock`, which ends with the process that holds it.

Whatever is not exactly as it should be (mode, owner, kind, content) is refused with what to do about it: a folder that
others can read has to be looked at by a person, and a file that cannot be read is no reason to make another secret.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final, TypeVar

from fleet.capabilities.clock import Clock
from fleet.contracts.errors import Conflict, DiskFault, InvalidValue, NoSpace, NotFound, Unavailable
from fleet.contracts.ids import ObjectName
from fleet.contracts.time import Duration
from fleet.secrets import codec
from fleet.secrets.documents import Held, Kept
from fleet.secrets.steps import Seen, Steps, opened_folder

T = TypeVar("T")
Open = Callable[[Path, bool], AbstractContextManager[tuple[Seen, Steps]]]

LOCK: Final = ".lock"
TEMPORARY: Final = ".tmp"
SUFFIX: Final = ".json"
LARGEST_FILE: Final = 256 * 1024
WAIT_FOR_LOCK: Final = Duration.seconds(30)
BETWEEN_TRIES: Final = Duration.millis(20)


class FileDocuments:
    """Documents as files in a folder. The folder is made when only its last part is missing.

    Args:
        owner: the user id that everything has to belong to; None for the one the program runs as.
        opened: opens the folder; a test puts its own operations here.
    """

    def __init__(self, folder: Path, clock: Clock, owner: int | None = None, opened: Open = opened_folder) -> None:
        self._folder = folder
        self._clock = clock
        self._owner = os.geteuid() if owner is None else owner
        self._opened = opened

    async def get(self, name: ObjectName) -> Held:
        """As the port says. The folder is synced first: a name that a power cut could take back is not handed out."""
        with self._open() as steps:
            content = self._content(steps, name)
            if content is None:
                raise NotFound(f"there is no secret in {self._path(name)}")
            self._after(steps.sync_folder)
            return Held(self._decoded(name, content), _token(content))

    async def create(self, kept: Kept) -> None:
        """As the port says."""
        with self._open(make=True) as steps:
            await self._lock(steps)
            if self._content(steps, kept.name) is not None:
                raise Conflict(f"there is a secret in {self._path(kept.name)}")
            content = codec.to_json(codec.encode(kept))
            self._stage(steps, content)
            self._before(lambda: steps.link_new(TEMPORARY, self._path(kept.name).name), len(content))
            self._after(lambda: steps.remove(TEMPORARY))
            self._after(steps.sync_folder)

    async def replace(self, kept: Kept, token: str) -> None:
        """As the port says."""
        with self._open(make=True) as steps:
            await self._lock(steps)
            stored = self._content(steps, kept.name)
            if stored is None:
                raise NotFound(f"there is no secret in {self._path(kept.name)}")
            if _token(stored) != token:
                raise Conflict(f"the secret in {self._path(kept.name)} was written meanwhile: read it again")
            content = codec.to_json(codec.encode(kept))
            self._stage(steps, content)
            self._before(lambda: steps.move_over(TEMPORARY, self._path(kept.name).name), len(content))
            self._after(steps.sync_folder)

    async def names(self) -> tuple[ObjectName, ...]:
        """As the port says. What is not named like a secret is none."""
        try:
            with self._open() as steps:
                files = self._after(steps.names)
        except NotFound:
            return ()
        stems = (file.removesuffix(SUFFIX) for file in files if file.endswith(SUFFIX))
        return tuple(sorted(ObjectName(stem) for stem in stems if ObjectName.pattern.fullmatch(stem)))

    @contextmanager
    def _open(self, make: bool = False) -> Iterator[Steps]:
        """The folder, open and checked. Raises: InvalidValue, and NotFound when it was never made."""
        with ExitStack() as stack:
            try:
                seen, steps = stack.enter_context(self._opened(self._folder, make))
            except OSError as error:
                if isinstance(error, FileNotFoundError) and self._folder.parent.is_dir():
                    raise NotFound(f"there is no folder {self._folder}") from error
                raise self._unusable(error) from error
            self._check(self._folder, seen, 0o700)
            yield steps

    async def _lock(self, steps: Steps) -> None:
        """Take turns. A lock that is held for long belongs to a process that hangs, and waiting will not help."""
        waited = Duration(0)
        while not self._before(lambda: steps.try_lock(LOCK)):
            if waited >= WAIT_FOR_LOCK:
                raise Unavailable(f"another process has held {self._folder / LOCK} for {WAIT_FOR_LOCK}")
            await self._clock.sleep(BETWEEN_TRIES)
            waited += BETWEEN_TRIES

    def _stage(self, steps: Steps, content: bytes) -> None:
        """The content under the temporary name, synced. What is there was left by a process that stopped.

        It may be a second name of a secret that stands: it is removed and never written to.
        """
        if TEMPORARY in self._before(steps.names):
            self._before(lambda: steps.remove(TEMPORARY))
        self._before(lambda: steps.write_new(TEMPORARY, content), len(content))
        self._before(lambda: steps.sync(TEMPORARY), len(content))

    def _content(self, steps: Steps, name: ObjectName) -> bytes | None:
        """What stands under the name, None when nothing does. Raises: InvalidValue."""
        path = self._path(name)
        try:
            seen = steps.look(path.name)
            if not seen.regular:
                raise InvalidValue(f"{path} is not a plain file; {codec.REMEDY}")
            self._check(path, seen, 0o600)
            content = steps.read(path.name, LARGEST_FILE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidValue(f"the secret in {path} cannot be read: {error.strerror}; {codec.REMEDY}") from error
        if len(content) > LARGEST_FILE:
            raise codec.damaged(str(path), f"it has more than {LARGEST_FILE} bytes")
        return content

    def _decoded(self, name: ObjectName, content: bytes) -> Kept:
        where = str(self._path(name))
        return codec.decode(where, name, codec.from_json(where, content))

    def _check(self, path: Path, seen: Seen, mode: int) -> None:
        if seen.owner != self._owner:
            raise InvalidValue(
                f"{path} belongs to user {seen.owner}, not to {self._owner}: run as its owner, or find out who wrote it"
            )
        if seen.mode != mode:
            raise InvalidValue(
                f"{path} has mode {seen.mode:04o}, not {mode:04o}: "
                f"find out who could read it, then run chmod {mode:04o} on it and rotate what was exposed"
            )

    def _path(self, name: ObjectName) -> Path:
        return self._folder / f"{name}{SUFFIX}"

    def _before(self, step: Callable[[], T], size: int = 0) -> T:
        """An operation up to the one that gives a document its name. A full disk certainly kept it from that."""
        try:
            return step()
        except FileExistsError as error:
            raise Conflict(f"{self._folder}: somebody who takes no lock writes here as well") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace(size, shutil.disk_usage(self._folder).free) from error
            raise self._fault(error) from error

    def _after(self, step: Callable[[], T]) -> T:
        """An operation whose error says nothing about what stands in the folder."""
        try:
            return step()
        except OSError as error:
            raise self._fault(error) from error

    def _fault(self, error: OSError) -> DiskFault:
        return DiskFault(f"{self._folder}: {error.strerror}")

    def _unusable(self, error: OSError) -> InvalidValue:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            return InvalidValue(f"{self._folder} is a link or not a folder: name the folder itself")
        return InvalidValue(
            f"the folder {self._folder} cannot be opened: {error.strerror}; no secret is made elsewhere"
        )


def _token(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

"""A device's keys and its identity, as files in one folder of the device (mode 0700, files 0600).

`auth.json` says who the device is and names its key. `next.pem` is a key that was made and is not in use yet. Each key
has a second name made of its own public half, which is the one that `auth.json` names: so the switch from one key to
the next is one rename, and a key that lies there is never mistaken for another. Every file gets its name when it is
whole and synced. Whoever stops anywhere leaves the old identity or the new one, and at worst a key that the next run
removes.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from pydantic import ValidationError

from fleet.capabilities.identity import KeyMaker, NextKey, PrivateKey
from fleet.contracts.auth import FleetDeviceAuth, render
from fleet.contracts.errors import DiskFault, InvalidValue, NoSpace, NotFound, Unavailable
from fleet.secrets.steps import Seen, Steps, opened_folder

T = TypeVar("T")
Open = Callable[[Path, bool], AbstractContextManager[tuple[Seen, Steps]]]

FOLDER: Final = PurePosixPath("/etc/fleet-agent/identity")
"""On the device."""
AUTH: Final = "auth.json"
NEXT: Final = "next.pem"
TEMPORARY: Final = ".tmp"
LOCK: Final = ".lock"
LARGEST: Final = 64 * 1024


class FileDeviceKeys:
    """The DeviceKeys port, on the device itself or on its file system mounted somewhere.

    Args:
        root: where the device's `/` is. Its `/etc/fleet-agent` has to be there.
        maker: makes keys.
        opened: opens the folder; a test puts its own operations here.
    """

    def __init__(self, root: Path, maker: KeyMaker, opened: Open = opened_folder) -> None:
        self._folder = root / str(FOLDER).lstrip("/")
        self._maker = maker
        self._opened = opened

    async def auth(self) -> FleetDeviceAuth | None:
        """As the port says."""
        try:
            with self._open(make=False) as steps:
                return self._auth(steps)
        except NotFound:
            return None

    async def next_key(self) -> NextKey:
        """As the port says."""
        with self._open(make=True) as steps:
            self._lock(steps)
            auth = self._auth(steps)
            key = self._unused(steps, auth) or self._made(steps)
            public = self._maker.public(key)
            name = name_of(public)
            if name not in steps.names():
                steps.link_new(NEXT, name)
            self._sweep(steps, {NEXT, name, *([] if auth is None else [auth.private_key.name])})
            return NextKey(public, FOLDER / name)

    async def commit(self, auth: FleetDeviceAuth) -> None:
        """As the port says. Raises: InvalidValue when the key that `auth` names is not here."""
        with self._open(make=True) as steps:
            self._lock(steps)
            key = auth.private_key.name
            if auth.private_key.parent != FOLDER or key not in steps.names():
                raise InvalidValue(f"there is no key {auth.private_key} on the device: nothing was changed")
            if self._auth(steps) != auth:
                self._write(steps, render(auth), lambda: steps.move_over(TEMPORARY, AUTH))
            self._sweep(steps, {key})

    def _unused(self, steps: Steps, auth: FleetDeviceAuth | None) -> PrivateKey | None:
        """The key that waits; one that is in use already was left by a commit that was stopped."""
        if NEXT not in steps.names():
            return None
        key = PrivateKey(steps.read(NEXT, LARGEST))
        if auth is None or auth.private_key.name != name_of(self._maker.public(key)):
            return key
        steps.remove(NEXT)
        steps.sync_folder()
        return None

    def _made(self, steps: Steps) -> PrivateKey:
        key = self._maker.make()
        self._write(steps, key.pem, lambda: steps.link_new(TEMPORARY, NEXT))
        return key

    def _write(self, steps: Steps, content: bytes, name: Callable[[], None]) -> None:
        if TEMPORARY in steps.names():
            steps.remove(TEMPORARY)
        steps.write_new(TEMPORARY, content)
        steps.sync(TEMPORARY)
        name()
        steps.sync_folder()

    def _sweep(self, steps: Steps, kept: set[str]) -> None:
        """Remove every key but those, durably."""
        for name in sorted(steps.names()):
            is_key = name == TEMPORARY or name.endswith(".pem")
            if is_key and name not in kept:
                steps.remove(name)
        steps.sync_folder()

    def _auth(self, steps: Steps) -> FleetDeviceAuth | None:
        if AUTH not in steps.names():
            return None
        return auth_in(str(self._folder / AUTH), steps.read(AUTH, LARGEST))

    def _lock(self, steps: Steps) -> None:
        if not steps.try_lock(LOCK):
            raise Unavailable(f"another process is at the keys in {self._folder}")

    @contextmanager
    def _open(self, make: bool) -> Iterator[Steps]:
        """The folder, open and checked; errors of the file system under their names."""
        try:
            with self._opened(self._folder, make) as (seen, steps):
                if seen.mode & 0o077:
                    raise InvalidValue(f"others can get into {self._folder}: look who did, then `chmod 0700` it")
                yield steps
        except OSError as error:
            raise self._told(error) from error

    def _told(self, error: OSError) -> Exception:
        told = f"{self._folder}: {error.strerror or type(error).__name__}"
        match error.errno:
            case errno.ENOENT if self._folder.parent.is_dir():
                return NotFound(told)
            case errno.ENOENT | errno.ENOTDIR | errno.ELOOP | errno.EACCES | errno.EPERM:
                return InvalidValue(f"{told}: --root has to be the `/` of a device, and its owner has to run this")
            case errno.ENOSPC | errno.EDQUOT:
                return NoSpace(LARGEST, _free(self._folder))
            case _:
                return DiskFault(told)


def name_of(public: bytes) -> str:
    """The file name of a key, made of its public half."""
    return f"key-{hashlib.sha256(public).hexdigest()[:16]}.pem"


def auth_in(where: str, content: bytes) -> FleetDeviceAuth:
    """The identity in a file. Raises: InvalidValue."""
    try:
        return FleetDeviceAuth.model_validate_json(content)
    except ValidationError:
        raise InvalidValue(f"{where} does not hold an identity: enrol the device again") from None


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize

"""The keys of a virtual device, on its virtual disk, in the files that a real one has."""

from __future__ import annotations

from functools import lru_cache
from pathlib import PurePosixPath

from pydantic import ValidationError

from agent import paths
from fleet.capabilities.clock import Clock
from fleet.capabilities.identity import KeyMaker, NextKey, PrivateKey
from fleet.contracts.auth import FleetDeviceAuth, render
from fleet.contracts.errors import InvalidValue, NotFound, Unavailable
from fleet.identity.device_keys import AUTH, FOLDER, NEXT, name_of
from sim.disk import DiskImage


class SimDeviceKeys:
    """The DeviceKeys port. Every method acts in one instant, and what it wrote is durable."""

    def __init__(self, disk: DiskImage, maker: KeyMaker) -> None:
        self._disk = disk
        self._maker = maker

    async def auth(self) -> FleetDeviceAuth | None:
        """As the port says."""
        return auth_on(self._disk) if self._disk.exists(FOLDER / AUTH) else None

    async def next_key(self) -> NextKey:
        """As the port says."""
        if not self._disk.exists(FOLDER / NEXT):
            self._put(NEXT, self._maker.make().pem)
        public = self._maker.public(PrivateKey(self._disk.read(FOLDER / NEXT)))
        name = name_of(public)
        if not self._disk.exists(FOLDER / name):
            self._put(name, self._disk.read(FOLDER / NEXT))
        return NextKey(public, FOLDER / name)

    async def commit(self, auth: FleetDeviceAuth) -> None:
        """As the port says."""
        if not self._disk.exists(auth.private_key):
            raise InvalidValue(f"there is no key {auth.private_key} on the device: nothing was changed")
        self._put(AUTH, render(auth))
        for name in self._disk.names(FOLDER):
            if name.endswith(".pem") and name != auth.private_key.name:
                self._disk.unlink(FOLDER / name)
        self._disk.sync_folder(FOLDER)

    def _put(self, name: str, content: bytes) -> None:
        temporary = FOLDER / f".{name}.tmp"
        self._disk.make_folder(FOLDER)
        self._disk.write(temporary, content)
        self._disk.sync(temporary)
        self._disk.rename(temporary, FOLDER / name)
        self._disk.sync_all()


def auth_on(disk: DiskImage) -> FleetDeviceAuth:
    """The identity on a device's disk. Raises: Unavailable, InvalidValue."""
    try:
        return _auth_in(disk.read(FOLDER / AUTH))
    except NotFound as error:
        raise Unavailable("the device has no identity") from error
    except ValidationError:
        raise InvalidValue("what stands in place of the device's identity is none") from None


@lru_cache(maxsize=64)
def _auth_in(content: bytes) -> FleetDeviceAuth:
    """Kept, because an agent reads it at each attempt to connect, and a device out of reach makes thousands."""
    return FleetDeviceAuth.model_validate_json(content)


def key_on(disk: DiskImage, path: PurePosixPath) -> PrivateKey:
    """A private key on a device's disk. Raises: NotFound."""
    return PrivateKey(disk.read(path))


class SimTokenFile:
    """A SharedToken on a virtual device's file system in memory. `clock` is the machine's, and counts from its boot."""

    def __init__(self, disk: DiskImage, clock: Clock) -> None:
        self._disk = disk
        self.now = clock.monotonic

    def read(self) -> bytes | None:
        """As the port says."""
        return self._disk.read(paths.TOKEN) if self._disk.exists(paths.TOKEN) else None

    def write(self, content: bytes) -> None:
        """As the port says."""
        temporary = paths.TOKEN.with_name(f".{paths.TOKEN.name}.tmp")
        self._disk.make_folder(temporary.parent)
        self._disk.write(temporary, content)
        self._disk.rename(temporary, paths.TOKEN)

"""The boot guard's view of a virtual disk: what `launcher.RealFiles` is on a real one, operation by operation."""

from __future__ import annotations

from pathlib import PurePosixPath

from fleet.contracts.errors import FleetError
from sim.disk import DiskImage


class VirtualFiles:
    """The boot guard's view of a virtual disk."""

    def __init__(self, disk: DiskImage) -> None:
        self._disk = disk

    def read(self, path: str) -> bytes | None:
        """See `launcher.Files.read`."""
        try:
            self._disk.check_readable(PurePosixPath(path))
            return self._disk.read(PurePosixPath(path))
        except FleetError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """See `launcher.Files.write`."""
        target = PurePosixPath(path)
        temporary = target.with_name(f"{target.name}.tmp-launcher")
        self._disk.make_folder(target.parent)
        self._disk.write(temporary, data)
        self._disk.sync(temporary)
        self._disk.rename(temporary, target)
        self._disk.sync_folder(target.parent)

    def link(self, path: str) -> str | None:
        """See `launcher.Files.link`."""
        try:
            self._disk.check_readable(PurePosixPath(path))
            return str(self._disk.read_link(PurePosixPath(path)))
        except FleetError:
            return None

    def swap(self, link: str, target: str) -> None:
        """See `launcher.Files.swap`."""
        path = PurePosixPath(link)
        temporary = path.with_name(f"{path.name}.swap-launcher")
        if self._disk.exists(temporary):
            self._disk.unlink(temporary)
        self._disk.symlink(PurePosixPath(target), temporary)
        self._disk.rename(temporary, path)
        self._disk.sync_folder(path.parent)

    def names(self, folder: str) -> list[str]:
        """See `launcher.Files.names`."""
        try:
            self._disk.check_readable(PurePosixPath(folder))
        except FleetError:
            return []
        return list(self._disk.names(PurePosixPath(folder)))

    def sha256(self, path: str) -> str | None:
        """See `launcher.Files.sha256`."""
        try:
            self._disk.check_readable(PurePosixPath(path))
            return self._disk.sha256(PurePosixPath(path))
        except FleetError:
            return None

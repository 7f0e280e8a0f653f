"""The agent's small files, written so that a power cut leaves the old or the new contents, and read with distrust.

A file that cannot be read as what it should be is moved aside under `*.broken` and treated as missing: it must never
keep a device from starting.
"""

from __future__ import annotations

import json
import logging
from pathlib import PurePosixPath
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from agent import paths
from agent.events import Attempt
from fleet.capabilities.disk import Disk
from fleet.contracts.errors import InvalidValue, NotFound
from fleet.contracts.ids import Release, Sha256, Slot
from fleet.contracts.records import ReleaseManifest

T = TypeVar("T")

_log = logging.getLogger(__name__)
_RELEASE = TypeAdapter(Release)
_ATTEMPT = TypeAdapter(Attempt)
_MANIFEST = TypeAdapter(ReleaseManifest)
_COUNTER = TypeAdapter(int)


async def write_atomic(disk: Disk, path: PurePosixPath, data: bytes) -> None:
    """Give `path` new contents, durably, with no instant at which it has neither the old nor the new ones."""
    temporary = path.with_name(f".{path.name}.tmp")
    await disk.make_folder(path.parent)
    await disk.write(temporary, data)
    await disk.sync(temporary)
    await disk.rename(temporary, path)
    await disk.sync_folder(path.parent)


async def point_link(disk: Disk, link: PurePosixPath, target: PurePosixPath) -> None:
    """Let `link` lead to `target`, durably; it resolves at every instant."""
    temporary = link.with_name(f".{link.name}.swap")
    await disk.make_folder(link.parent)
    if await disk.exists(temporary):
        await disk.unlink(temporary)
    await disk.symlink(target, temporary)
    await disk.rename(temporary, link)
    await disk.sync_folder(link.parent)


class Store:
    """Typed access to the agent's state on one disk."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    async def next_start(self, slot: Slot) -> int:
        """Count a start in a slot. Numbers of the two slots never meet: a has the even ones, b the odd ones."""
        path = paths.start_counter(slot)
        count = (await self._read(path, _COUNTER) or 0) + 1
        await write_atomic(self._disk, path, str(count).encode())
        return count * 2 + (slot is Slot.B)

    async def verified(self) -> Release | None:
        """The release last confirmed on this device."""
        return await self._read(paths.VERIFIED, _RELEASE)

    async def mark_verified(self, release: Release) -> None:
        """Remember a confirmed release; the attempt that brought it, if any, is confirmed with it."""
        await write_atomic(self._disk, paths.VERIFIED, release.model_dump_json().encode())

    async def attempt(self) -> Attempt | None:
        """The attempt that was under way when it was last written."""
        return await self._read(paths.ATTEMPT, _ATTEMPT)

    async def record_attempt(self, attempt: Attempt) -> None:
        """Remember an attempt."""
        await write_atomic(self._disk, paths.ATTEMPT, _ATTEMPT.dump_json(attempt))

    async def forget_attempt(self) -> None:
        """There is no attempt under way."""
        if await self._disk.exists(paths.ATTEMPT):
            await self._disk.unlink(paths.ATTEMPT)
            await self._disk.sync_folder(paths.STATE)

    async def quarantine(self, release: Release, reason: str) -> None:
        """Condemn a release on this device."""
        text = json.dumps({"version": release.version, "reason": reason})
        await write_atomic(self._disk, paths.quarantine(release), text.encode())

    async def quarantined(self) -> dict[Sha256, str]:
        """The condemned releases with the reasons. A mark that cannot be read still condemns."""
        found = {}
        for name in await self._disk.names(paths.QUARANTINE):
            try:
                found[Sha256(name)] = await self._reason(paths.QUARANTINE / name)
            except InvalidValue:
                continue  # Not a mark: temporary files of interrupted writes stand here too.
        return found

    async def releases(self) -> tuple[Release, ...]:
        """The releases on disk that have a manifest, by version."""
        found = []
        for name in await self._disk.names(paths.RELEASES):
            if name.startswith("fleet-agent-v") and name.endswith(".manifest.json"):
                manifest = await self._read(paths.RELEASES / name, _MANIFEST)
                if manifest is not None:
                    found.append(Release(version=manifest.version, sha256=Sha256(manifest.sha256)))
        return tuple(found)

    async def _reason(self, path: PurePosixPath) -> str:
        try:
            return str(json.loads(await self._disk.read(path))["reason"])
        except (ValueError, KeyError, TypeError):
            return "the quarantine mark cannot be read"

    async def _read(self, path: PurePosixPath, kind: TypeAdapter[T]) -> T | None:
        try:
            data = await self._disk.read(path)
        except NotFound:
            return None
        try:
            return kind.validate_json(data)
        except ValidationError as error:
            _log.warning("%s is unreadable and was moved aside: %d problems", path, error.error_count())
            await self._disk.rename(path, path.with_name(f"{path.name}.broken"))
            return None

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
from agent.events import AttemptRecord
from fleet.capabilities.disk import Disk
from fleet.contracts.errors import Definite, DiskFault, InvalidValue, NotFound, Unknown
from fleet.contracts.ids import DeploymentName, Frozen, Release, Revision, Sha256, Slot, Version
from fleet.contracts.records import DesiredWorkload, ReleaseManifest

T = TypeVar("T")

_log = logging.getLogger(__name__)


class VerifiedMark(Frozen):
    """The release that was confirmed last, and the one that was before it: the boot guard's ways back."""

    version: Version
    sha256: Sha256
    before: Release | None = None

    @property
    def release(self) -> Release:
        """The release it names."""
        return Release(version=self.version, sha256=self.sha256)


class TrialCount(Frozen):
    """How often the boot guard has started a release that has not proved itself since."""

    sha256: Sha256
    starts: int


class KeptWorkload(Frozen):
    """A desired workload and the revision at which it was written."""

    revision: Revision
    desired: DesiredWorkload


class KeptWorkloads(Frozen):
    """What is remembered of workloads, so that a device without a network runs what it ran.

    `reported` are the deployments under whose keys this device may have reported something.
    """

    workloads: tuple[KeptWorkload, ...] = ()
    reported: tuple[DeploymentName, ...] = ()


_VERIFIED = TypeAdapter(VerifiedMark)
_ATTEMPT = TypeAdapter(AttemptRecord)
_TRIALS = TypeAdapter(TrialCount)
_MANIFEST = TypeAdapter(ReleaseManifest)
_KEPT = TypeAdapter(KeptWorkloads)
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

    async def next_start(self, slot: Slot, unlikely: str) -> int:
        """Count a start in a slot. Numbers of the two slots never meet: a has the even ones, b the odd ones.

        `unlikely` are hexadecimal digits that make a number of their own when the count cannot be written.
        """
        path = paths.start_counter(slot)
        count = (await self._read(path, _COUNTER) or 0) + 1
        try:
            await write_atomic(self._disk, path, str(count).encode())
        except (Definite, Unknown) as error:
            _log.warning("%s stays as it is: %s", path, error)
            count = (1 << 32) + int(unlikely[:7], 16)
        return count * 2 + (slot is Slot.B)

    async def verified(self) -> Release | None:
        """The release last confirmed on this device."""
        mark = await self._read(paths.VERIFIED, _VERIFIED)
        return None if mark is None else mark.release

    async def mark_verified(self, release: Release) -> None:
        """Remember a confirmed release, and the one before it; forget how often it was started."""
        mark = await self._read(paths.VERIFIED, _VERIFIED)
        if mark is None or mark.release != release:
            before = None if mark is None or mark.before == release else mark.release
            fresh = VerifiedMark(version=release.version, sha256=release.sha256, before=before)
            await write_atomic(self._disk, paths.VERIFIED, fresh.model_dump_json().encode())
        await self.forget_starts(release)

    async def forget_starts(self, release: Release) -> None:
        """The release has proved itself: its starts count from zero again."""
        trials = await self._read(paths.TRIALS, _TRIALS)
        if trials is not None and trials.sha256 == release.sha256 and trials.starts > 0:
            fresh = TrialCount(sha256=release.sha256, starts=0)
            await write_atomic(self._disk, paths.TRIALS, fresh.model_dump_json().encode())

    async def attempt(self) -> AttemptRecord | None:
        """The attempt that is under way or ended last."""
        return await self._read(paths.ATTEMPT, _ATTEMPT)

    async def record_attempt(self, record: AttemptRecord) -> None:
        """Remember an attempt."""
        await write_atomic(self._disk, paths.ATTEMPT, record.model_dump_json().encode())

    async def kept(self) -> KeptWorkloads | None:
        """The workloads as they were remembered last; None when nothing can be read."""
        return await self._read(paths.WORKLOADS, _KEPT)

    async def keep(self, kept: KeptWorkloads) -> None:
        """Remember the workloads."""
        await write_atomic(self._disk, paths.WORKLOADS, kept.model_dump_json().encode())

    async def quarantine(self, release: Release, reason: str) -> None:
        """Condemn a release on this device. The first reason stays."""
        if not await self._disk.exists(paths.quarantine(release)):
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

    async def condemned(self, release: Release) -> str | None:
        """The reason in the release's quarantine mark; None when there is none."""
        path = paths.quarantine(release)
        return await self._reason(path) if await self._disk.exists(path) else None

    async def current(self) -> Version | None:
        """The version that the current link leads to."""
        try:
            target = await self._disk.read_link(paths.CURRENT)
            return Version(target.name.removeprefix("fleet-agent-v"))
        except (NotFound, InvalidValue, DiskFault):
            return None

    async def releases(self) -> tuple[Release, ...]:
        """The releases on disk that have a manifest, by the names of those."""
        found = []
        for name in await self._disk.names(paths.RELEASES):
            if name.startswith("fleet-agent-v") and name.endswith(".manifest.json"):
                manifest = await self._read(paths.RELEASES / name, _MANIFEST, move=False)
                if manifest is not None:
                    found.append(Release(version=manifest.version, sha256=Sha256(manifest.sha256)))
        return tuple(found)

    async def _reason(self, path: PurePosixPath) -> str:
        try:
            return str(json.loads(await self._disk.read(path))["reason"])
        except (ValueError, KeyError, TypeError, RecursionError, NotFound, DiskFault):
            return "the quarantine mark cannot be read"

    async def _read(self, path: PurePosixPath, kind: TypeAdapter[T], *, move: bool = True) -> T | None:
        try:
            data = await self._disk.read(path)
        except NotFound:
            return None
        except (Definite, Unknown) as error:
            _log.warning("%s cannot be read and counts as missing: %s", path, error)
            return None
        try:
            return kind.validate_json(data)
        except ValidationError as error:
            _log.warning("%s is unreadable and counts as missing: %d problems", path, error.error_count())
        if move:
            await self._move_aside(path)
        return None

    async def _move_aside(self, path: PurePosixPath) -> None:
        try:
            await self._disk.rename(path, path.with_name(f"{path.name}.broken"))
        except (Definite, Unknown) as error:
            _log.warning("%s stays where it is: %s", path, error)

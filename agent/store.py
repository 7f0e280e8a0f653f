"""The agent's small files, written so that a power cut leaves the old or the new contents, and read with distrust.

A file that is not understood (garbage, or of a newer major version of its form, see `agent.statefile`) is put aside
under `*.broken` and counts as missing: it must never keep a device from starting, and it is never destroyed. A disk
that fails a reading is another matter: the file may be well. `DiskFault` goes to the caller, who decides.
"""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import PurePosixPath
from typing import TypeVar

from pydantic import BaseModel

from agent import paths, statefile
from agent.events import AttemptRecord, Condemned
from fleet.capabilities.disk import Disk
from fleet.contracts.errors import Definite, DiskFault, InvalidValue, NotFound, Unknown
from fleet.contracts.ids import AttemptId, DeploymentName, Frozen, Release, Revision, Sha256, Slot, Version
from fleet.contracts.records import DesiredWorkload, ReleaseManifest

M = TypeVar("M", bound=BaseModel)

_log = logging.getLogger(__name__)
_LONGEST_COUNT = 12
_UNREADABLE = "the quarantine mark cannot be read"


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

    workloads: tuple[KeptWorkload, ...]
    reported: tuple[DeploymentName, ...] = ()


class QuarantineMark(Frozen):
    """Why a release is condemned on this device. `attempt` is the one that failed; missing in old marks."""

    version: str = ""
    reason: str
    attempt: AttemptId | None = None


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

        `unlikely` are hexadecimal digits that make a number of their own when the count cannot be kept.
        """
        path = paths.start_counter(slot)
        try:
            count = await self._counted(path, unlikely) + 1
            await write_atomic(self._disk, path, str(count).encode())
        except (Definite, Unknown) as error:
            _log.warning("%s stays as it is: %s", path, error)
            count = _no_other(unlikely)
        return count * 2 + (slot is Slot.B)

    async def verified(self) -> Release | None:
        """The release last confirmed on this device. Raises: DiskFault."""
        mark = await self._read(paths.VERIFIED, VerifiedMark)
        return None if mark is None else mark.release

    async def mark_verified(self, release: Release) -> None:
        """Remember a confirmed release, and the one before it; forget how often it was started before that.

        Marking it again forgets nothing: it is done at each start, and a release that crashes then has to be noticed.
        """
        mark = await self._read(paths.VERIFIED, VerifiedMark)
        if mark is None or mark.release != release:
            before = None if mark is None or mark.before == release else mark.release
            fresh = VerifiedMark(version=release.version, sha256=release.sha256, before=before)
            await self._write(paths.VERIFIED, fresh)
            await self.forget_starts(release)

    async def forget_starts(self, release: Release) -> None:
        """The release has proved itself, or is tried anew: its starts count from zero again."""
        trials = await self._read(paths.TRIALS, TrialCount)
        if trials is not None and trials.sha256 == release.sha256 and trials.starts > 0:
            await self._write(paths.TRIALS, TrialCount(sha256=release.sha256, starts=0))

    async def attempt(self) -> AttemptRecord | None:
        """The attempt that is under way or ended last. Raises: DiskFault."""
        return await self._read(paths.ATTEMPT, AttemptRecord)

    async def record_attempt(self, record: AttemptRecord) -> None:
        """Remember an attempt."""
        await self._write(paths.ATTEMPT, record)

    async def kept(self) -> KeptWorkloads | None:
        """The workloads as they were remembered last; None when nothing is. Raises: DiskFault."""
        return await self._read(paths.WORKLOADS, KeptWorkloads)

    async def keep(self, kept: KeptWorkloads) -> None:
        """Remember the workloads."""
        await self._write(paths.WORKLOADS, kept)

    async def quarantine(self, release: Release, reason: str, attempt: AttemptId) -> None:
        """Condemn a release on this device. The first reason stays, unless a later attempt failed, too."""
        there = await self.condemned(release)
        if there is None or there.attempt != attempt:
            mark = QuarantineMark(version=release.version, reason=reason, attempt=attempt)
            await self._write(paths.quarantine(release), mark)
        else:  # Whoever wrote it may have ended before its name was durable.
            await self._disk.sync_folder(paths.QUARANTINE)
        await self._disk.sync_folder(paths.QUARANTINE.parent)  # The first mark makes the folder that it stands in.

    async def lift_quarantine(self, release: Release) -> None:
        """Take the mark off a release, and give it fresh starts. The starts first: a cut in between changes nothing."""
        await self.forget_starts(release)
        path = paths.quarantine(release)
        if await self._disk.exists(path):
            await self._disk.unlink(path)
        await self._disk.make_folder(path.parent)
        await self._disk.sync_folder(path.parent)

    async def quarantined(self) -> dict[Sha256, Condemned]:
        """The condemned releases. A mark that cannot be read still condemns. Raises: DiskFault."""
        found = {}
        for name in await self._disk.names(paths.QUARANTINE):
            try:
                found[Sha256(name)] = await self._mark(paths.QUARANTINE / name)
            except InvalidValue:
                continue  # Not a mark: temporary files of interrupted writes stand here too.
        return found

    async def condemned(self, release: Release) -> Condemned | None:
        """The release's quarantine mark; None when there is none. Raises: DiskFault."""
        path = paths.quarantine(release)
        return await self._mark(path) if await self._disk.exists(path) else None

    async def current(self) -> Version | None:
        """The version that the current link leads to. Raises: DiskFault."""
        try:
            target = await self._disk.read_link(paths.CURRENT)
            return Version(target.name.removeprefix("fleet-agent-v"))
        except (NotFound, InvalidValue):
            return None

    async def releases(self) -> tuple[Release, ...]:
        """The releases on disk that have a manifest, by the names of those. Raises: DiskFault."""
        found = []
        for name in await self._disk.names(paths.RELEASES):
            if name.startswith("fleet-agent-v") and name.endswith(".manifest.json"):
                manifest = await self._read(paths.RELEASES / name, ReleaseManifest, aside=False)
                if manifest is not None:
                    found.append(Release(version=manifest.version, sha256=Sha256(manifest.sha256)))
        return tuple(found)

    async def _counted(self, path: PurePosixPath, unlikely: str) -> int:
        """The count on disk; garbage is counted on from where no count has been."""
        try:
            text = await self._disk.read(path)
        except NotFound:
            return 0
        return int(text) if text.isdigit() and len(text) <= _LONGEST_COUNT else _no_other(unlikely)

    async def _mark(self, path: PurePosixPath) -> Condemned:
        try:
            mark = statefile.decode(QuarantineMark, await self._disk.read(path))
        except (InvalidValue, NotFound, DiskFault):
            return Condemned(_UNREADABLE)
        return Condemned(mark.reason, mark.attempt)

    async def _write(self, path: PurePosixPath, value: BaseModel) -> None:
        await write_atomic(self._disk, path, statefile.encode(value))

    async def _read(self, path: PurePosixPath, kind: type[M], *, aside: bool = True) -> M | None:
        try:
            data = await self._disk.read(path)
        except NotFound:
            return None
        except Definite as error:
            _log.warning("%s cannot be read and counts as missing: %s", path, error)
            return None
        try:
            return statefile.decode(kind, data)
        except InvalidValue as error:
            _log.warning("%s counts as missing: %s", path, error)
        if aside:
            await self._put_aside(path, data)
        return None

    async def _put_aside(self, path: PurePosixPath, data: bytes) -> None:
        """The name tells the contents: nothing that was put aside before is overwritten by something else."""
        try:
            await self._disk.rename(path, path.with_name(f"{path.name}.{sha256(data).hexdigest()[:12]}.broken"))
        except (Definite, Unknown) as error:
            _log.warning("%s stays where it is: %s", path, error)


def _no_other(unlikely: str) -> int:
    return (1 << 32) + int(unlikely[:7], 16)

"""Bringing a release onto the disk: fetch, check, unpack, and say so last.

Every step can be cut off by a power loss and is safe to do again, whatever an earlier try has left. The target name
never holds anything but the whole, checked file; the manifest is written when everything else is durable. Nothing is
ever deleted to make room; a try that finds the disk full takes away what it has put there itself.

A card loses bits later, too: a release counts as complete only while its file hashes to its sha256 and everything
unpacked of it equals what its archive holds. What was unpacked is mended from the archive, one file after the other.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import zipfile
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Final

from agent import paths, statefile
from agent.store import Store, point_link, write_atomic
from fleet.capabilities.artefacts import Artefacts
from fleet.capabilities.clock import Clock
from fleet.capabilities.disk import Disk
from fleet.contracts.errors import (
    Definite,
    Disconnected,
    DiskFault,
    InvalidValue,
    NoSpace,
    NotFound,
    Refused,
    TimedOut,
    Unavailable,
    Unknown,
)
from fleet.contracts.ids import Release, Sha256, Version
from fleet.contracts.records import Artefact, ReleaseManifest
from fleet.contracts.time import Duration

CHUNK: Final = 1024 * 1024
"""Bytes fetched, hashed or unpacked before other things get their turn."""
UNPACKED_FACTOR: Final = 4
"""Space asked for what is unpacked, as a multiple of the file: wheels shrink to about a third when zipped."""
_INSIDE = "site-packages/"
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)
"""What `zipfile` raises for an archive that is none, or not one of ours."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fetching:
    """How to fetch: the source, and the pause after a failure."""

    artefacts: Artefacts
    clock: Clock
    retry: Duration


async def is_complete(disk: Disk, release: Release) -> bool:
    """Whether the release is on disk, with its manifest, the right sha256, and everything unpacked of it as packed."""
    manifest = await read_manifest(disk, release.version)
    if manifest is None or manifest.sha256 != release.sha256 or not await is_whole(disk, release):
        return False
    with _opened(await disk.read(paths.release(release.version))) as packed:
        if manifest.unpacked != _folder(packed, release):
            return False
        async for _ in _damaged(disk, packed, paths.UNPACKED / manifest.unpacked):
            return False
    return True


async def is_whole(disk: Disk, release: Release) -> bool:
    """Whether the file of a release is on disk with the right sha256, whatever its manifest says.

    A file that the disk fails to read is not whole: another one takes its name, and not its place on the disk.
    """
    try:
        return await _hash(disk, paths.release(release.version)) == release.sha256
    except DiskFault as error:
        _log.warning("%s cannot be read back: %s", release, error)
        return False


async def mend(disk: Disk, release: Release) -> None:
    """Write anew what was unpacked of a whole release and is not as it was packed. Each file is replaced atomically.

    Raises:
        Refused: the file is no release. NoSpace, DiskFault: as the disk does.
    """
    with _opened(await disk.read(paths.release(release.version))) as packed:
        async for path, data in _damaged(disk, packed, paths.UNPACKED / _folder(packed, release)):
            _log.warning("%s is damaged and is written anew", path)
            await write_atomic(disk, path, data)


async def read_manifest(disk: Disk, version: Version) -> ReleaseManifest | None:
    """The manifest of a version; None when there is none or it cannot be read."""
    try:
        return statefile.decode(ReleaseManifest, await disk.read(paths.manifest(version)))
    except (NotFound, DiskFault, InvalidValue):
        return None


async def stage(disk: Disk, artefact: Artefact, fetching: Fetching) -> None:
    """Have the release on disk, whole and durable. Does nothing when it is there and as it should be.

    A whole file of which something unpacked is missing or damaged is unpacked again, without a network.

    Raises:
        NoSpace: before anything was written, or with what was written taken away again.
        Refused: the artefact is not what it should be, or another release of this version is on disk.
        NotFound: there is no such artefact.
    """
    release = artefact.release
    if await is_complete(disk, release):
        await disk.sync_folder(paths.RELEASES)  # An earlier try may have ended between the manifest and this.
        return
    await _refuse_other(disk, release)
    part = _part(release)
    whole = await is_whole(disk, release)
    await _check_space(disk, artefact, artefact.size if whole else await _size(disk, part))
    try:
        if whole:
            await _install(disk, release, paths.release(release.version))
        else:
            await _fetch_and_install(disk, artefact, part, fetching)
    except NoSpace:
        await _tidy(disk, release, part)
        raise


async def _fetch_and_install(disk: Disk, artefact: Artefact, part: PurePosixPath, fetching: Fetching) -> None:
    release, resumed = artefact.release, await disk.exists(part)
    await _fetch(disk, artefact, part, fetching)
    found = await _hash(disk, part)
    if found != release.sha256:
        await disk.unlink(part)
        if resumed:  # A power cut may have torn what an earlier try had fetched: begin once more, from nothing.
            await _fetch_and_install(disk, artefact, part, fetching)
            return
        raise Refused(f"the artefact has sha256 {found}, {release.sha256} was asked for")
    await _install(disk, release, part)


async def install_first(disk: Disk, data: bytes, version: Version) -> Release:
    """Install the first release of a device, verified by whoever sets it up. Used at set-up, not by the agent."""
    release = Release(version=version, sha256=Sha256(sha256(data).hexdigest()))
    part = _part(release)
    await disk.make_folder(paths.RELEASES)
    await disk.write(part, data)
    await _install(disk, release, part)
    await Store(disk).mark_verified(release)
    await point_link(disk, paths.CURRENT, paths.release(version))
    return release


def _part(release: Release) -> PurePosixPath:
    return paths.RELEASES / f".fleet-agent-v{release.version}.{release.sha256.short}.part"


async def _refuse_other(disk: Disk, release: Release) -> None:
    """A release is never replaced: the same version with other contents has to get a version of its own."""
    path = paths.release(release.version)
    manifest = await read_manifest(disk, release.version)
    if manifest is not None and manifest.sha256 != release.sha256 and await disk.exists(path):
        raise Refused(
            f"version {release.version} is on disk with sha256 {manifest.sha256[:12]}, "
            f"{release.sha256.short} was asked for: releases are never replaced"
        )


async def _size(disk: Disk, path: PurePosixPath) -> int:
    return await disk.size(path) if await disk.exists(path) else 0


async def _check_space(disk: Disk, artefact: Artefact, there: int) -> None:
    needed = max(artefact.size - there, 0) + artefact.size * UNPACKED_FACTOR
    free = await disk.free()
    if free < needed:
        raise NoSpace(needed, free)


async def _fetch(disk: Disk, artefact: Artefact, part: PurePosixPath, fetching: Fetching) -> None:
    """Fetch to `part`, going on where an earlier try ended; tries for as long as the caller lets it."""
    offset = await _size(disk, part)
    if offset > artefact.size:
        await disk.unlink(part)
        offset = 0
    while offset < artefact.size:
        length = min(CHUNK, artefact.size - offset)
        try:
            data = await fetching.artefacts.read(artefact.url, offset, length)
        except (Unavailable, TimedOut, Disconnected):
            await fetching.clock.sleep(fetching.retry)
            continue
        if not data:
            raise Refused(f"the artefact ends after {offset} bytes, {artefact.size} were announced")
        await disk.write(part, data, offset)
        offset += len(data)


async def _tidy(disk: Disk, release: Release, part: PurePosixPath) -> None:
    """Take away what a try has put on a disk that turned out to be full: others need the room, and it serves nobody."""
    try:
        for name in await disk.names(paths.UNPACKED):
            if name.startswith(f".fleet-agent-v{release.version}_") and name.endswith(".tmp"):
                await disk.remove_folder(paths.UNPACKED / name)
        if await disk.exists(part):
            await disk.unlink(part)
    except (Definite, Unknown) as error:
        _log.warning("leftovers of %s stay: %s", release, error)


async def _install(disk: Disk, release: Release, file: PurePosixPath) -> None:
    """From the whole, checked file, under its own name or not yet, to a complete release."""
    target = paths.release(release.version)
    await disk.make_executable(file)
    await disk.sync(file)
    unpacked = await _unpack(disk, release, file)
    if file != target:
        await disk.rename(file, target)
        await disk.sync_folder(paths.RELEASES)
    size = await disk.size(target)
    manifest = ReleaseManifest(version=release.version, sha256=release.sha256, size=size, unpacked=unpacked)
    await write_atomic(disk, paths.manifest(release.version), statefile.encode(manifest))


async def _unpack(disk: Disk, release: Release, archive: PurePosixPath) -> str:
    """Unpack where the release will look for it, and return the folder's name below the unpack root.

    The name is that of shiv's bootstrap (shiv 1.0.8, `cache_path`): file name and build id.
    """
    root = paths.UNPACKED
    with _opened(await disk.read(archive)) as packed:
        name = _folder(packed, release)
        temporary = root / f".{name}.tmp"
        await _clear(disk, temporary)
        for member in _members(packed):
            if not member.is_dir():
                await _write_member(disk, temporary / _checked(member.filename), _contents(packed, member))
        await _sync_folders(disk, temporary, _members(packed))
    await _clear(disk, root / name)
    await disk.rename(temporary, root / name)
    await disk.sync_folder(root)
    await disk.sync_folder(root.parent)
    return name


def _opened(data: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except _BROKEN_ZIP as error:
        raise Refused(f"the artefact is not a release: {error}") from error


def _folder(packed: zipfile.ZipFile, release: Release) -> str:
    try:
        build = json.loads(packed.read("environment.json"))["build_id"]
    except (*_BROKEN_ZIP, KeyError, TypeError) as error:
        raise Refused(f"the artefact is not a release: {error!r}") from error
    name = f"fleet-agent-v{release.version}_{build}"
    if "/" in name:
        raise Refused(f"the artefact is not a release: {name!r} is no folder name")
    return name


def _members(packed: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [member for member in packed.infolist() if member.filename.startswith(_INSIDE)]


def _contents(packed: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    try:
        return packed.read(member)
    except _BROKEN_ZIP as error:
        raise Refused(f"the artefact is not a release: its member {member.filename!r} is broken: {error}") from error


async def _damaged(
    disk: Disk, packed: zipfile.ZipFile, root: PurePosixPath
) -> AsyncIterator[tuple[PurePosixPath, bytes]]:
    """The files below `root` that are missing or not what the archive holds, with what they should be."""
    for member in _members(packed):
        if member.is_dir():
            continue
        path, data = root / _checked(member.filename), _contents(packed, member)
        try:
            found: bytes | None = await disk.read(path)
        except (NotFound, Refused, DiskFault):
            found = None
        if found != data:
            yield path, data
        await _turn()


async def _clear(disk: Disk, path: PurePosixPath) -> None:
    """Have nothing there, whatever an earlier try or a repair of the file system has left."""
    try:
        await disk.remove_folder(path)
    except Refused:
        await disk.unlink(path)


async def _write_member(disk: Disk, path: PurePosixPath, data: bytes) -> None:
    await disk.make_folder(path.parent)
    await disk.write(path, data)
    await disk.sync(path)
    await _turn()


async def _sync_folders(disk: Disk, root: PurePosixPath, members: list[zipfile.ZipInfo]) -> None:
    """Make every name durable, the deepest first."""
    folders = {root}
    for member in members:
        folders.update(root / parent for parent in _checked(member.filename).parents)
    for folder in sorted(folders, key=lambda folder: (-len(folder.parts), str(folder))):
        await disk.make_folder(folder)
        await disk.sync_folder(folder)


def _checked(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise Refused(f"the artefact is not a release: it has a member {name!r}")
    return path


async def _hash(disk: Disk, path: PurePosixPath) -> Sha256 | None:
    """The sha256 of a file; None when it is missing."""
    digest, offset = sha256(), 0
    try:
        while data := await disk.read(path, offset, CHUNK):
            digest.update(data)
            offset += len(data)
            await _turn()
    except NotFound:
        return None
    return Sha256(digest.hexdigest())


async def _turn() -> None:
    """Let others have theirs: heartbeats go on while a release is staged."""
    await asyncio.sleep(0)  # noqa: TID251 - no time passes: nothing to pace

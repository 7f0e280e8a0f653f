"""Bringing a release onto the disk: fetch, check, unpack, and say so last.

Every step can be cut off by a power loss and is safe to do again. The target name never holds anything but the whole,
checked file; the manifest is written when everything else is durable. Nothing is ever deleted to make room.
"""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Final

from pydantic import ValidationError

from agent import paths
from agent.store import Store, point_link, write_atomic
from fleet.capabilities.artefacts import Artefacts
from fleet.capabilities.clock import Clock
from fleet.capabilities.disk import Disk
from fleet.contracts.errors import Disconnected, NoSpace, NotFound, Refused, TimedOut, Unavailable
from fleet.contracts.ids import Release, Sha256, Version
from fleet.contracts.records import Artefact, ReleaseManifest
from fleet.contracts.time import Duration

CHUNK: Final = 1024 * 1024
"""Bytes fetched, hashed or unpacked before other things get their turn."""
UNPACKED_FACTOR: Final = 4
"""Space asked for what is unpacked, as a multiple of the file: wheels shrink to about a third when zipped."""
_INSIDE = "site-packages/"


@dataclass(frozen=True, slots=True)
class Fetching:
    """How to fetch: the source, and the pause after a failure."""

    artefacts: Artefacts
    clock: Clock
    retry: Duration


async def is_complete(disk: Disk, release: Release) -> bool:
    """Whether the release is on disk, with its manifest, what was unpacked of it, and the right sha256."""
    manifest = await read_manifest(disk, release.version)
    if manifest is None or manifest.sha256 != release.sha256:
        return False
    if not await disk.exists(paths.UNPACKED / manifest.unpacked):
        return False
    return await _hash(disk, paths.release(release.version)) == release.sha256


async def is_whole(disk: Disk, release: Release) -> bool:
    """Whether the file of a release is on disk with the right sha256, whatever its manifest says."""
    return await _hash(disk, paths.release(release.version)) == release.sha256


async def read_manifest(disk: Disk, version: Version) -> ReleaseManifest | None:
    """The manifest of a version; None when there is none or it cannot be read."""
    try:
        return ReleaseManifest.model_validate_json(await disk.read(paths.manifest(version)))
    except (NotFound, ValidationError):
        return None


async def stage(disk: Disk, artefact: Artefact, fetching: Fetching) -> None:
    """Have the release on disk, whole and durable. Does nothing when it is there and its hash is right.

    Raises:
        NoSpace: before anything was written.
        Refused: the artefact is not what it should be, or another release of this version is on disk.
        NotFound: there is no such artefact.
    """
    release = artefact.release
    if await is_complete(disk, release):
        return
    await _refuse_other(disk, release)
    part = _part(release)
    await _check_space(disk, artefact, part)
    resumed = await disk.exists(part)
    await _fetch(disk, artefact, part, fetching)
    found = await _hash(disk, part)
    if found != release.sha256:
        await disk.unlink(part)
        if resumed:  # A power cut may have torn what an earlier try had fetched: begin once more, from nothing.
            await stage(disk, artefact, fetching)
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


async def _check_space(disk: Disk, artefact: Artefact, part: PurePosixPath) -> None:
    there = await disk.size(part) if await disk.exists(part) else 0
    needed = max(artefact.size - there, 0) + artefact.size * UNPACKED_FACTOR
    free = await disk.free()
    if free < needed:
        raise NoSpace(needed, free)


async def _fetch(disk: Disk, artefact: Artefact, part: PurePosixPath, fetching: Fetching) -> None:
    """Fetch to `part`, going on where an earlier try ended; tries for as long as the caller lets it."""
    offset = await disk.size(part) if await disk.exists(part) else 0
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


async def _install(disk: Disk, release: Release, part: PurePosixPath) -> None:
    """From the whole, checked file to a complete release."""
    target = paths.release(release.version)
    await disk.make_executable(part)
    await disk.sync(part)
    unpacked = await _unpack(disk, release, part)
    await disk.rename(part, target)
    await disk.sync_folder(paths.RELEASES)
    size = await disk.size(target)
    manifest = ReleaseManifest(version=release.version, sha256=release.sha256, size=size, unpacked=unpacked)
    await write_atomic(disk, paths.manifest(release.version), manifest.model_dump_json().encode())


async def _unpack(disk: Disk, release: Release, archive: PurePosixPath) -> str:
    """Unpack where the release will look for it, and return the folder's name below the unpack root.

    The name is that of shiv's bootstrap (shiv 1.0.8, `cache_path`): file name and build id.
    """
    root = paths.UNPACKED
    with _opened(await disk.read(archive)) as packed:
        try:
            name = f"fleet-agent-v{release.version}_{json.loads(packed.read('environment.json'))['build_id']}"
        except (KeyError, ValueError, TypeError) as error:
            raise Refused(f"the artefact is not a release: {error!r}") from error
        if "/" in name:
            raise Refused(f"the artefact is not a release: {name!r} is no folder name")
        temporary = root / f".{name}.tmp"
        await disk.remove_folder(temporary)
        members = [member for member in packed.infolist() if member.filename.startswith(_INSIDE)]
        for member in members:
            if not member.is_dir():
                await _write_member(disk, temporary / _checked(member.filename), packed.read(member))
    await _sync_folders(disk, temporary, members)
    await disk.remove_folder(root / name)
    await disk.rename(temporary, root / name)
    await disk.sync_folder(root)
    await disk.sync_folder(root.parent)
    return name


def _opened(data: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile as error:
        raise Refused(f"the artefact is not a release: {error}") from error


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

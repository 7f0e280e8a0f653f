"""Which files a `damage-file` fault means, and what becomes of their contents: the same on every target."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import assert_never

from agent import paths
from fleet.contracts.errors import Refused
from fleet.contracts.ids import Release, Slot
from harness.faults import AgentFile, Damage

_GARBAGE = bytes(range(0x80, 0x100))


def places(file: AgentFile, release: Release | None, current: Release | None) -> tuple[PurePosixPath, ...]:
    """Where files of that kind are; `release` is the one they belong to, where there is one per release.

    Raises:
        Refused: they belong to the current release.
    """
    match file:
        case AgentFile.VERIFIED:
            return (paths.VERIFIED,)
        case AgentFile.ATTEMPT:
            return (paths.ATTEMPT,)
        case AgentFile.TRIALS:
            return (paths.TRIALS,)
        case AgentFile.WORKLOADS:
            return (paths.WORKLOADS,)
        case AgentFile.START_COUNTERS:
            return tuple(paths.start_counter(slot) for slot in Slot)
        case AgentFile.QUARANTINE_MARK | AgentFile.MANIFEST | AgentFile.RELEASE | AgentFile.STAGED_PART:
            if release is None:
                raise Refused(f"{file.value} of which release?")
        case _:
            assert_never(file)
    match file:
        case AgentFile.QUARANTINE_MARK:
            return (paths.quarantine(release),)
        case AgentFile.STAGED_PART:
            return (paths.RELEASES / f".fleet-agent-v{release.version}.{release.sha256.short}.part",)
        case _:
            if current is None or current.version == release.version:
                raise Refused(f"{release} is the current release: it is not for a fault to break")
            if file is AgentFile.MANIFEST:
                return (paths.manifest(release.version),)
            return (paths.release(release.version),)


def damaged(data: bytes, how: Damage) -> bytes | None:
    """What becomes of a file's contents; None when the file is gone."""
    match how:
        case Damage.EMPTY:
            return b""
        case Damage.GARBAGE:
            return (_GARBAGE * (len(data) // len(_GARBAGE) + 1))[: max(1, len(data))]
        case Damage.TRUNCATED:
            return data[: len(data) // 2]
        case Damage.MISSING:
            return None
        case _:
            assert_never(how)

"""What can be seen of a device's disk from outside: where its current link leads, and which releases are whole.

Read from the files themselves and never from what an agent says of them. A file is hashed again only when its inode,
size or time of change differ from those at the last look.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from agent import paths, statefile
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId, Release, Sha256, Version
from fleet.contracts.records import ReleaseManifest
from fleet.contracts.time import Instant
from sim.journal import CurrentRelease, Journal, QuarantineMarks, ReleasesOnDisk

_PREFIX = "fleet-agent-v"
_MANIFEST = ".manifest.json"


class _NotWhole(Exception):
    """Why a path is not a complete release."""


@dataclass(slots=True)
class DiskWatch:
    """Looks at one device's root folder; records what changed since the last look."""

    device: DeviceId
    root: Path
    journal: Journal
    now: Callable[[], Instant]
    _hashes: dict[Path, tuple[tuple[int, int, int], Sha256]] = field(default_factory=dict)
    _current: tuple[Release | None, str] | None = None
    _releases: tuple[Release, ...] | None = None
    _marks: tuple[str, ...] = ()

    @property
    def current(self) -> Release | None:
        """Where the current link leads now; None when that is no complete release."""
        return self._where_current_leads()[0]

    def inspect(self) -> None:
        """Read everything anew, and record it also where nothing changed: what a killed agent left behind."""
        self._hashes.clear()
        self._releases = self._current = None
        self.look()

    def look(self) -> None:
        """Record `CurrentRelease`, `ReleasesOnDisk` and `QuarantineMarks` where they differ from the last look."""
        releases = self._whole_releases()
        if releases != self._releases:
            self._releases = releases
            self.journal.record(ReleasesOnDisk(self.now(), self.device, releases))
        current = self._where_current_leads()
        if current != self._current:
            self._current = current
            self.journal.record(CurrentRelease(self.now(), self.device, *current))
        marks = tuple(sorted(path.name for path in self._inside(paths.QUARANTINE).glob(64 * "[0-9a-f]")))
        if marks != self._marks:
            self._marks = marks
            self.journal.record(QuarantineMarks(self.now(), self.device, marks))

    def release_in(self, arguments: tuple[str, ...]) -> Release | None:
        """The release that a process with these arguments runs, by its file's own bytes; None when it runs none."""
        folder = self._inside(paths.RELEASES)
        for path in (Path(argument) for argument in arguments):
            if path.parent == folder and path.name.startswith(_PREFIX):
                try:
                    return Release(version=Version(path.name.removeprefix(_PREFIX)), sha256=self._sha256(path))
                except (InvalidValue, OSError):
                    continue
        return None

    def _where_current_leads(self) -> tuple[Release | None, str]:
        link = self._inside(paths.CURRENT)
        try:
            target = self._on_disk(link, os.readlink(link))
        except OSError as error:
            return None, f"the link cannot be read: {error.strerror}"
        if target.parent != self._inside(paths.RELEASES):
            return None, f"the link leads out of the release folder, to {target.name}"
        try:
            return self._release(target.name), ""
        except _NotWhole as error:
            return None, str(error)

    def _on_disk(self, link: Path, target: str) -> Path:
        """Where a link's text leads. An absolute one has the root in front or, as the device sees it, not."""
        below = PurePosixPath(target)
        if below.is_absolute() and not below.is_relative_to(self.root):
            return Path(os.path.normpath(self._inside(below)))
        return Path(os.path.normpath(link.parent / target))

    def _whole_releases(self) -> tuple[Release, ...]:
        folder = self._inside(paths.RELEASES)
        names = sorted(path.name.removesuffix(_MANIFEST) for path in folder.glob(f"{_PREFIX}*{_MANIFEST}"))
        found = []
        for name in names:
            try:
                found.append(self._release(name))
            except _NotWhole:
                continue
        return tuple(sorted(found, key=lambda release: (release.version, release.sha256)))

    def _release(self, name: str) -> Release:
        """The release of that file name in the release folder, when file and manifest agree."""
        path = self._inside(paths.RELEASES / name)
        try:
            version = Version(name.removeprefix(_PREFIX))
            manifest = statefile.decode(ReleaseManifest, self._inside(paths.manifest(version)).read_bytes())
            sha256 = self._sha256(path)
        except InvalidValue as error:
            raise _NotWhole(f"{name}: {type(error).__name__}") from error
        except OSError as error:
            raise _NotWhole(f"{name}: {error.strerror}") from error
        if (manifest.version, manifest.sha256) != (version, sha256):
            raise _NotWhole(f"{name}: the file is {sha256.short}, its manifest says {manifest.sha256[:12]}")
        return Release(version=version, sha256=sha256)

    def _sha256(self, path: Path) -> Sha256:
        facts = path.stat()
        stamp = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        known = self._hashes.get(path)
        if known is None or known[0] != stamp:
            with path.open("rb") as file:
                known = (stamp, Sha256(hashlib.file_digest(file, "sha256").hexdigest()))
            self._hashes[path] = known
        return known[1]

    def _inside(self, path: PurePosixPath) -> Path:
        return self.root / path.relative_to("/")

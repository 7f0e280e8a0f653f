"""The harness sees on a device's disk what is there, not what an agent says of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from fleet.contracts.ids import DeviceId, Release, Sha256, Version
from fleet.contracts.records import ReleaseManifest
from fleet.contracts.time import Instant
from harness.targets.local_disk import DiskWatch
from sim.journal import CurrentRelease, Event, Journal, ReleasesOnDisk

DEVICE = DeviceId("dev-1")


class Disk:
    """A device's root folder, and what a watch records about it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: list[Event] = []
        for folder in ("usr/bin", "usr/local/bin"):
            (root / folder).mkdir(parents=True)
        journal = Journal()
        journal.subscribe_all(self.events.append)
        self._watch = DiskWatch(DEVICE, root, journal, lambda: Instant(7))

    def install(self, version: str, data: bytes) -> Release:
        (self.root / f"usr/bin/fleet-agent-v{version}").write_bytes(data)
        release = Release(version=Version(version), sha256=Sha256(hashlib.sha256(data).hexdigest()))
        manifest = ReleaseManifest(version=release.version, sha256=release.sha256, size=len(data), unpacked="x")
        (self.root / f"usr/bin/fleet-agent-v{version}.manifest.json").write_text(manifest.model_dump_json())
        return release

    def link(self, target: str) -> None:
        os.symlink(target, self.root / "new")
        os.replace(self.root / "new", self.root / "usr/local/bin/fleet-agent")

    def look(self) -> list[Event]:
        self.events.clear()
        self._watch.look()
        return self.events.copy()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_a_complete_release_behind_the_link(disk: Disk) -> None:
    release = disk.install("1.0.0", b"one")
    disk.link("/usr/bin/fleet-agent-v1.0.0")
    assert disk.look() == [
        ReleasesOnDisk(Instant(7), DEVICE, (release,)),
        CurrentRelease(Instant(7), DEVICE, release),
    ]
    assert disk.look() == []


def test_a_link_may_lead_through_the_root_folder(disk: Disk) -> None:
    release = disk.install("1.0.0", b"one")
    disk.link(f"{disk.root}/usr/bin/fleet-agent-v1.0.0")
    assert disk.look()[-1] == CurrentRelease(Instant(7), DEVICE, release)


def test_a_swap_and_a_new_release_are_recorded_once(disk: Disk) -> None:
    first = disk.install("1.0.0", b"one")
    disk.link("/usr/bin/fleet-agent-v1.0.0")
    disk.look()
    second = disk.install("1.1.0", b"two")
    disk.link("/usr/bin/fleet-agent-v1.1.0")
    assert disk.look() == [
        ReleasesOnDisk(Instant(7), DEVICE, (first, second)),
        CurrentRelease(Instant(7), DEVICE, second),
    ]


def test_a_changed_byte_breaks_the_link_and_takes_the_release_off_the_list(disk: Disk) -> None:
    disk.install("1.0.0", b"one")
    disk.link("/usr/bin/fleet-agent-v1.0.0")
    disk.look()
    (disk.root / "usr/bin/fleet-agent-v1.0.0").write_bytes(b"0ne and more")
    releases, current = disk.look()
    assert releases == ReleasesOnDisk(Instant(7), DEVICE, ())
    assert isinstance(current, CurrentRelease)
    assert current.release is None
    assert "its manifest says" in current.broken


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/usr/bin/fleet-agent-v9.9.9", "No such file"),
        ("/usr/bin/fleet-agent-vnine", "InvalidValue"),
        ("/tmp/fleet-agent-v1.0.0", "out of the release folder"),
        ("../../../etc/fleet-agent-v1.0.0", "out of the release folder"),
    ],
)
def test_a_link_that_leads_to_no_release(disk: Disk, target: str, reason: str) -> None:
    disk.install("1.0.0", b"one")
    disk.link(target)
    current = disk.look()[-1]
    assert isinstance(current, CurrentRelease)
    assert current.release is None
    assert reason in current.broken


def test_no_link_at_all(disk: Disk) -> None:
    assert disk.look()[-1] == CurrentRelease(
        Instant(7), DEVICE, None, "the link cannot be read: No such file or directory"
    )


def test_a_file_without_a_manifest_is_not_complete(disk: Disk) -> None:
    (disk.root / "usr/bin/fleet-agent-v1.0.0").write_bytes(b"half")
    assert disk.look()[0] == ReleasesOnDisk(Instant(7), DEVICE, ())

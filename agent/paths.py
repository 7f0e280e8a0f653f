"""Where the agent keeps things on a device: fixed names below one root (`/` in production)."""

from __future__ import annotations

from pathlib import PurePosixPath

from fleet.contracts.ids import Release, Slot, Version

RELEASES = PurePosixPath("/usr/bin")
"""Holds `fleet-agent-v<version>` (immutable, never erased) and, written last, its `.manifest.json`."""
CURRENT = PurePosixPath("/usr/local/bin/fleet-agent")
"""Symbolic link to the current release; swapped by rename, so that it resolves at every instant."""
LAUNCHER = PurePosixPath("/usr/local/lib/fleet-agent/launcher.py")
"""The boot guard that both units run."""
STATE = PurePosixPath("/var/lib/fleet-agent")
UNPACKED = STATE / "unpacked"
"""Where releases look for what cannot be imported from inside a zip: one folder each, made while staging."""
QUARANTINE = STATE / "quarantine"
"""One file per condemned sha256, holding the reason. Only an explicit operator retry lifts it."""
VERIFIED = STATE / "verified.json"
"""The release last confirmed by the operator, and the one before: `{"version": …, "sha256": …, "before": …}`."""
ATTEMPT = STATE / "attempt.json"
"""The upgrade attempt under way or last ended."""
TRIALS = STATE / "trials.json"
"""How often the boot guard has started a release that has not proved itself since: `{"sha256": …, "starts": …}`."""
WORKLOADS = STATE / "workloads.json"
"""The desired workloads as last read: a device without a network runs what it ran."""
LOCK = PurePosixPath("/run/fleet-agent/leader.lock")
TOKEN = PurePosixPath("/run/fleet-agent/token.json")
"""The token that the instances of a device share. In memory: it is gone after a boot."""
CONFIG = PurePosixPath("/etc/fleet-agent/config.json")


def release(version: Version) -> PurePosixPath:
    """The file of a release."""
    return RELEASES / f"fleet-agent-v{version}"


def manifest(version: Version) -> PurePosixPath:
    """The completion manifest of a release (`fleet.contracts.records.ReleaseManifest`)."""
    return RELEASES / f"fleet-agent-v{version}.manifest.json"


def quarantine(item: Release) -> PurePosixPath:
    """The quarantine mark of a release."""
    return QUARANTINE / item.sha256


def start_counter(slot: Slot) -> PurePosixPath:
    """The counter of starts in a slot. One file per slot, so that two instances never race for it."""
    return STATE / f"starts-{slot.value}"

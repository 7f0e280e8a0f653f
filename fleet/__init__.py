"""The door of the platform: `from fleet import AgentUpgradeScore`. Everything behind it may move.

Holds Scores (frozen values that describe what shall be), the identities they need, and the outcomes of applying them.
Names are loaded when they are first used: `fleet.contracts` is part of every agent, and importing it runs this file,
which must not load anything that a device does not have.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fleet.contracts.auth import FleetDeviceAuth as FleetDeviceAuth
    from fleet.contracts.podman import PodmanScore as PodmanScore
    from fleet.identity.auth import AdminAuth as AdminAuth
    from fleet.identity.auth import DeviceEnrollmentIntent as DeviceEnrollmentIntent
    from fleet.identity.auth import KeyInFile as KeyInFile
    from fleet.identity.auth import KeyInSecret as KeyInSecret
    from fleet.scores.enroll import DeviceAlreadyEnrolled as DeviceAlreadyEnrolled
    from fleet.scores.enroll import DeviceEnrolled as DeviceEnrolled
    from fleet.scores.enroll import EnrollOutcome as EnrollOutcome
    from fleet.scores.enroll import FleetDeviceEnrollScore as FleetDeviceEnrollScore
    from fleet.scores.outcome import Changed as Changed
    from fleet.scores.outcome import Created as Created
    from fleet.scores.outcome import Unchanged as Unchanged
    from fleet.scores.podman import PodmanOutcome as PodmanOutcome
    from fleet.scores.server import FleetServerScore as FleetServerScore
    from fleet.scores.server import ServerChanged as ServerChanged
    from fleet.scores.server import ServerInstalled as ServerInstalled
    from fleet.scores.server import ServerOutcome as ServerOutcome
    from fleet.scores.server import ServerUnchanged as ServerUnchanged
    from fleet.scores.setup import DeviceSetUp as DeviceSetUp
    from fleet.scores.setup import DeviceUnchanged as DeviceUnchanged
    from fleet.scores.setup import FleetDeviceSetupScore as FleetDeviceSetupScore
    from fleet.scores.setup import SetupOutcome as SetupOutcome
    from fleet.scores.upgrade import AgentUpgradeScore as AgentUpgradeScore
    from fleet.scores.upgrade import UpgradeOutcome as UpgradeOutcome

_HOMES: Final = {
    "AdminAuth": "fleet.identity.auth",
    "AgentUpgradeScore": "fleet.scores.upgrade",
    "Changed": "fleet.scores.outcome",
    "Created": "fleet.scores.outcome",
    "DeviceAlreadyEnrolled": "fleet.scores.enroll",
    "DeviceEnrolled": "fleet.scores.enroll",
    "DeviceEnrollmentIntent": "fleet.identity.auth",
    "DeviceSetUp": "fleet.scores.setup",
    "DeviceUnchanged": "fleet.scores.setup",
    "EnrollOutcome": "fleet.scores.enroll",
    "FleetDeviceAuth": "fleet.contracts.auth",
    "FleetDeviceEnrollScore": "fleet.scores.enroll",
    "FleetDeviceSetupScore": "fleet.scores.setup",
    "FleetServerScore": "fleet.scores.server",
    "KeyInFile": "fleet.identity.auth",
    "KeyInSecret": "fleet.identity.auth",
    "PodmanOutcome": "fleet.scores.podman",
    "PodmanScore": "fleet.contracts.podman",
    "ServerChanged": "fleet.scores.server",
    "ServerInstalled": "fleet.scores.server",
    "ServerOutcome": "fleet.scores.server",
    "ServerUnchanged": "fleet.scores.server",
    "SetupOutcome": "fleet.scores.setup",
    "Unchanged": "fleet.scores.outcome",
    "UpgradeOutcome": "fleet.scores.upgrade",
}
"""What the door exports, and where it lives."""

__all__ = [
    "AdminAuth",
    "AgentUpgradeScore",
    "Changed",
    "Created",
    "DeviceAlreadyEnrolled",
    "DeviceEnrolled",
    "DeviceEnrollmentIntent",
    "DeviceSetUp",
    "DeviceUnchanged",
    "EnrollOutcome",
    "FleetDeviceAuth",
    "FleetDeviceEnrollScore",
    "FleetDeviceSetupScore",
    "FleetServerScore",
    "KeyInFile",
    "KeyInSecret",
    "PodmanOutcome",
    "PodmanScore",
    "ServerChanged",
    "ServerInstalled",
    "ServerOutcome",
    "ServerUnchanged",
    "SetupOutcome",
    "Unchanged",
    "UpgradeOutcome",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fleet' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""A device's first installation as a Score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fleet.contracts.auth import FleetDeviceAuth
from fleet.contracts.ids import DeviceId, Frozen, Release
from fleet.contracts.records import Artefact


class FleetDeviceSetupScore(Frozen):
    """One Linux host shall be a device of the fleet: its units, its configuration, its first release.

    Args:
        device: its id.
        auth: resolved; enrolment makes it.
        artefact: the first release, for the host's architecture.
        bus: where the message bus is, `nats://host:port`, or `tls://`.
    """

    device: DeviceId
    auth: FleetDeviceAuth
    artefact: Artefact
    bus: Annotated[str, Field(pattern=r"^(nats|tls)://[^\s/]+$")]


@dataclass(frozen=True, slots=True)
class DeviceSetUp:
    """The host was prepared and runs this release."""

    release: Release


@dataclass(frozen=True, slots=True)
class DeviceUnchanged:
    """The host was a device already. What it runs is for rollouts to decide: it was left alone."""

    release: Release


SetupOutcome = DeviceSetUp | DeviceUnchanged

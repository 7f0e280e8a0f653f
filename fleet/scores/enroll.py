"""A device's identity as a Score. Its outcome carries the resolved auth: there is no other way to get one."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.contracts.auth import FleetDeviceAuth
from fleet.contracts.ids import Frozen
from fleet.identity.auth import AdminAuth, DeviceEnrollmentIntent


class FleetDeviceEnrollScore(Frozen):
    """One device shall have an identity.

    Args:
        intent: which device, where, with which role.
        admin: how enrolment logs in at the provider.
    """

    intent: DeviceEnrollmentIntent
    admin: AdminAuth


@dataclass(frozen=True, slots=True)
class DeviceEnrolled:
    """The identity was made."""

    auth: FleetDeviceAuth


@dataclass(frozen=True, slots=True)
class DeviceAlreadyEnrolled:
    """It was there with its key; nothing was made or replaced."""

    auth: FleetDeviceAuth


EnrollOutcome = DeviceEnrolled | DeviceAlreadyEnrolled

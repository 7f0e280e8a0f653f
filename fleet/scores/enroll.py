"""A device's identity as a Score. Its outcome carries the resolved auth: there is no other way to get one."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.capabilities.identity import DeviceKeys
from fleet.contracts.auth import FleetDeviceAuth
from fleet.contracts.ids import Frozen
from fleet.identity.auth import AdminAuth, DeviceEnrollmentIntent
from fleet.identity.enrolment import Places, enroll


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


async def interpret(score: FleetDeviceEnrollScore, keys: DeviceKeys, places: Places) -> EnrollOutcome:
    """Give the device its identity, where its keys are; running it again finishes what was not finished.

    Args:
        keys: on the device.
        places: the provider as `score.admin`, the bus, and the clock.

    Raises:
        Refused: the device is revoked. Otherwise as the ports; nothing that works is taken away.
    """
    made = await enroll(score.intent, keys, places)
    return DeviceEnrolled(made.auth) if made.is_new else DeviceAlreadyEnrolled(made.auth)

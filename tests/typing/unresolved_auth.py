"""Checked by mypy, never run: an identity that was not resolved cannot be rendered to a device's configuration."""

from __future__ import annotations

from pathlib import PurePosixPath

from fleet.contracts.auth import FleetDeviceAuth, render
from fleet.contracts.ids import DeviceId
from fleet.contracts.records import Artefact
from fleet.identity.auth import AdminAuth, DeviceEnrollmentIntent
from fleet.scores.setup import FleetDeviceSetupScore


def a_resolved_auth_is_rendered(auth: FleetDeviceAuth) -> bytes:
    return render(auth)


def an_intent_is_not(intent: DeviceEnrollmentIntent) -> bytes:
    return render(intent)  # type: ignore[arg-type]  # mypy must object, or this comment is reported as unused


def an_administrator_is_not(admin: AdminAuth) -> bytes:
    return render(admin)  # type: ignore[arg-type]  # as above


def a_device_is_not_set_up_from_an_intent(intent: DeviceEnrollmentIntent, artefact: Artefact) -> FleetDeviceSetupScore:
    return FleetDeviceSetupScore(
        device=DeviceId("pi-1"),
        auth=intent,  # type: ignore[arg-type]  # as above
        artefact=artefact,
        bus="nats://bus:4222",
    )


def an_auth_is_not_made_from_parts_of_an_intent(intent: DeviceEnrollmentIntent) -> FleetDeviceAuth:
    return FleetDeviceAuth(  # type: ignore[call-arg]  # the user and the key are what enrolment finds out
        issuer=intent.issuer, scopes=("openid",), private_key=PurePosixPath("/etc/fleet-agent/key.pem")
    )

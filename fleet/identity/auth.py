"""The shapes of an identity: wanted (before enrolment) and resolved (after it), as types that cannot be confused.

Only a resolved `FleetDeviceAuth` can be rendered to a device's configuration, and only enrolment makes one. Private
keys are named by where they are, never carried.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import Field, field_validator

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId, Frozen
from fleet.contracts.time import Duration

Url = Annotated[str, Field(pattern=r"^https?://[^\s]*[^\s/]$", max_length=2048)]
"""An absolute http(s) address without a slash at its end: providers compare issuers letter by letter."""
Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\s]+$")]


class FleetDeviceAuth(Frozen):
    """What an agent needs on its disk to obtain tokens. Made by enrolment.

    Args:
        issuer: the identity provider.
        scopes: asked for with each token; they decide its audience and roles.
        user: the id of the device's machine user.
        key: the id under which the provider knows the device's public key.
        private_key: where on the device the private key lies (PEM).
    """

    issuer: Url
    scopes: Annotated[tuple[Name, ...], Field(min_length=1)]
    user: Name
    key: Name
    private_key: PurePosixPath

    @field_validator("private_key")
    @classmethod
    def _is_absolute(cls, path: PurePosixPath) -> PurePosixPath:
        if not path.is_absolute():
            raise InvalidValue(f"{path} is not an absolute path on the device")
        return path


class DeviceEnrollmentIntent(Frozen):
    """A device that shall have an identity and has none yet. Resolving it produces a `FleetDeviceAuth`.

    Args:
        device: becomes the name of its machine user.
        issuer: the identity provider.
        project: the provider's project that the device gets its role in.
        role: the role to grant.
        key_lifetime: after this the device's key is no longer accepted.
    """

    device: DeviceId
    issuer: Url
    project: Name
    role: Name = "fleet-device"
    key_lifetime: Duration = Duration.minutes(60 * 24 * 365)


class AdminAuth(Frozen):
    """How enrolment itself logs in at the identity provider.

    Args:
        issuer: the identity provider.
        organization: the one that device users are made in.
        key_file: the service account's key file on the machine that enrols.
    """

    issuer: Url
    organization: Name
    key_file: PurePosixPath


def render(auth: FleetDeviceAuth) -> bytes:
    """The part of an agent's configuration that lets it obtain tokens, as JSON."""
    return auth.model_dump_json(indent=2).encode()

"""The shapes of an identity that is wanted, and of the login that makes one.

The resolved shape is a type of its own (`fleet.contracts.auth.FleetDeviceAuth`): only it can be rendered to a device's
configuration, and only enrolment makes one.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Final, Literal

from pydantic import Field

from fleet.contracts.auth import Name, Url
from fleet.contracts.ids import DeviceId, Frozen, ObjectName
from fleet.contracts.time import Duration

DEVICE_ROLE: Final = "fleet-device"
"""The role of a device in the provider's project, where nothing else is said."""


KEY_LIFETIME: Final = Duration.minutes(60 * 24 * 365 * 20)
"""The provider wants an end to each key. It lies beyond the life of a device, because a device whose key has ended
stays out until somebody has its file system in hand. What ends a key is `fleet device rotate-key`, or `revoke`."""


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
    role: Name = DEVICE_ROLE
    key_lifetime: Duration = KEY_LIFETIME


class KeyInFile(Frozen):
    """A service account's key file on the machine that enrols."""

    kept: Literal["file"] = "file"
    path: PurePosixPath


class KeyInSecret(Frozen):
    """A service account's key file as a secret of the installation's store."""

    kept: Literal["secret"] = "secret"
    name: ObjectName


class AdminAuth(Frozen):
    """How enrolment itself logs in at the identity provider.

    Args:
        issuer: the identity provider.
        organization: the one that device users are made in.
        key: where the service account's key file is.
    """

    issuer: Url
    organization: Name
    key: Annotated[KeyInFile | KeyInSecret, Field(discriminator="kept")]

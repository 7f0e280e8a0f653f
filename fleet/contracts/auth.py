"""A device's resolved identity: what its agent needs on disk to obtain tokens. Read by the agent, made by enrolment.

Private keys are named by where they are, never carried.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import Field, field_validator

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import Frozen

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


def render(auth: FleetDeviceAuth) -> bytes:
    """The file from which an agent knows who it is, as JSON."""
    return auth.model_dump_json(indent=2).encode()


def scopes_in(project: str) -> tuple[str, ...]:
    """What a device asks for with each token: that it is meant for the project, and names the device's roles in it."""
    return ("openid", f"urn:zitadel:iam:org:project:id:{project}:aud", "urn:zitadel:iam:org:projects:roles")

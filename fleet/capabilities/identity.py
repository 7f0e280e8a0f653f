"""Identities: tokens for a device, and what enrolment needs from the identity provider (Zitadel)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from fleet.contracts.ids import DeviceId
from fleet.contracts.time import Instant


@dataclass(frozen=True, slots=True)
class Token:
    """An access token. The text never shows in `repr`."""

    text: str = field(repr=False)
    expires: Instant


class TokenSource(Protocol):
    """Tokens of one identity."""

    async def mint(self) -> Token:
        """A fresh token. Raises: NotPermitted when the identity is revoked, Unavailable, TimedOut."""
        ...


class IdentityProvider(Protocol):
    """The administrative side, for enrolment and revocation. Raises Conflict, NotFound, Unavailable, TimedOut."""

    async def create_device_user(self, device: DeviceId) -> str:
        """Make the machine user, or find it; returns its user id."""
        ...

    async def add_key(self, user: str, public_key_pem: str, expires: Instant) -> str:
        """Add a public key; returns its key id."""
        ...

    async def remove_key(self, user: str, key: str) -> None:
        """Remove a key. Tokens minted with it stay valid until they expire."""
        ...

    async def grant_role(self, user: str, role: str) -> None:
        """Give the user a role of the project. Giving it twice is harmless."""
        ...

    async def deactivate(self, user: str) -> None:
        """Refuse the user from now on."""
        ...

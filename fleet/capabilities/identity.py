"""Identities: tokens for a device, the keys of both sides, and what enrolment needs from the provider (Zitadel)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Protocol

from fleet.contracts.auth import FleetDeviceAuth
from fleet.contracts.ids import DeviceId
from fleet.contracts.time import Instant


@dataclass(frozen=True, slots=True)
class Token:
    """An access token. The text never shows in `repr`.

    Args:
        expires: on the monotonic clock of the program that asked for it.
        refresh: when to ask for the next one, on the same clock.
    """

    text: str = field(repr=False)
    expires: Instant
    refresh: Instant


class TokenMint(Protocol):
    """Tokens by the JWT-profile grant: whoever holds the private key gets them."""

    async def mint(self, auth: FleetDeviceAuth) -> Token:
        """A fresh token.

        Raises:
            NotPermitted: the provider does not accept the key, the user or the clock.
            NotFound, InvalidValue: the private key is not where `auth` says, or is none.
            Unavailable, TimedOut, Disconnected: try again.
        """
        ...


class SigningKeys(Protocol):
    """The provider's public keys, by which tokens are verified offline."""

    async def fetch(self) -> bytes:
        """The JWK set as JSON, as the provider has it now. Raises: Unavailable, TimedOut."""
        ...


class AccountState(StrEnum):
    """Whether the provider lets a user in."""

    ACTIVE = "active"
    INACTIVE = "inactive"


@dataclass(frozen=True, slots=True)
class MachineUser:
    """A user that is a device.

    Args:
        has_jwt_tokens: its access tokens can be verified offline. A provider hands out opaque ones unless told.
    """

    id: str
    name: str
    state: AccountState
    has_jwt_tokens: bool


class IdentityProvider(Protocol):
    """The administrative side, for enrolment and revocation.

    Every method may raise: Unavailable, TimedOut, Disconnected (all may be called again), NotPermitted (the
    administrator may not), Refused (the provider does not take the request, and will not next time).
    """

    async def now(self) -> Instant:
        """The provider's clock, rounded down to whole seconds: what the times in its tokens are taken from."""
        ...

    async def create_device_user(self, device: DeviceId) -> MachineUser:
        """Make the machine user of that name, or find it. Raises: Refused when the name is that of a person."""
        ...

    async def find_device_user(self, device: DeviceId) -> MachineUser:
        """The machine user of that name. Raises: NotFound."""
        ...

    async def device_users(self, role: str) -> tuple[MachineUser, ...]:
        """Every machine user that has that role of the project, by name; those that are refused as well."""
        ...

    async def use_jwt_tokens(self, user: MachineUser) -> None:
        """Have its access tokens be JWTs, and read back that they are. Raises: Refused when they are not."""
        ...

    async def add_key(self, user: str, public_key_pem: bytes, expires: Instant) -> str:
        """Add a public key (PEM, SPKI); returns its key id. The same key added twice is two keys. Raises: NotFound."""
        ...

    async def keys(self, user: str) -> tuple[str, ...]:
        """The ids of all its keys, sorted."""
        ...

    async def remove_key(self, user: str, key: str) -> None:
        """Remove a key; nothing happens when it is gone. Tokens minted with it stay valid until they expire."""
        ...

    async def grant_role(self, user: str, role: str) -> None:
        """Give the user a role of the project. Giving it twice is harmless. Raises: NotFound."""
        ...

    async def deactivate(self, user: str) -> None:
        """Refuse the user from now on; nothing happens when it is refused already. Raises: NotFound."""
        ...

    async def reactivate(self, user: str) -> None:
        """Let the user in again; nothing happens when it is let in already. Raises: NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """An RSA key of 2048 bits or more, in PEM (PKCS #8). It never shows in `repr`."""

    pem: bytes = field(repr=False)


class KeyMaker(Protocol):
    """Makes keys that nobody can guess. In a simulated world: keys that are the same for the same seed."""

    def make(self) -> PrivateKey:
        """A new key."""
        ...

    def public(self, key: PrivateKey) -> bytes:
        """Its public half (PEM, SPKI). Raises: InvalidValue when that is no key."""
        ...


@dataclass(frozen=True, slots=True)
class NextKey:
    """A key that lies on the device and is not in use yet.

    Args:
        public: PEM, SPKI.
        path: where on the device the private half lies.
    """

    public: bytes
    path: PurePosixPath


class DeviceKeys(Protocol):
    """The keys of one device, on the device. Private halves never leave it.

    Every method may raise: InvalidValue (what lies there is not as it should be; says where and what to do), NoSpace,
    DiskFault, Unavailable (another process is at it).
    """

    async def auth(self) -> FleetDeviceAuth | None:
        """The identity that the agent uses; None before enrolment."""
        ...

    async def next_key(self) -> NextKey:
        """The key to use next: the one that was made and not committed, or a new one. Durable when it is returned."""
        ...

    async def commit(self, auth: FleetDeviceAuth) -> None:
        """Use this identity from now on, and remove every key but its own. At once and for good, or not at all."""
        ...

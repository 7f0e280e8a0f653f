"""How a device logs in with its identity: a token of the provider, kept for as long as it is good for much longer."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import ValidationError

from fleet.adapters.nats_login import TokenLogin
from fleet.capabilities.clock import Clock
from fleet.capabilities.identity import Token, TokenMint
from fleet.contracts.auth import FleetDeviceAuth
from fleet.contracts.errors import Disconnected, InvalidValue, TimedOut, Unavailable

_LARGEST: Final = 64 * 1024


class TokenLoginSource:
    """The LoginSource of a device with an identity.

    The identity is read anew each time, so that a rotated key is used without a restart. A token is asked for again
    once most of its life is over, and the one at hand goes on being used while the provider cannot be reached.

    Args:
        auth: the file that enrolment leaves on the device.
    """

    def __init__(self, auth: Path, mint: TokenMint, clock: Clock) -> None:
        self._path = auth
        self._mint = mint
        self._clock = clock
        self._held: tuple[FleetDeviceAuth, Token] | None = None

    async def read(self) -> TokenLogin:
        """A token that is good now.

        Raises:
            Unavailable, InvalidValue: there is no identity. Otherwise as `TokenMint.mint`.
        """
        auth = self._auth()
        held = self._held[1] if self._held is not None and self._held[0] == auth else None
        if held is not None and self._clock.monotonic() < held.refresh:
            return TokenLogin(held.text, held.expires)
        try:
            token = await self._mint.mint(auth)
        except (Unavailable, TimedOut, Disconnected):
            if held is None or self._clock.monotonic() >= held.expires:
                raise
            token = held
        self._held = auth, token
        return TokenLogin(token.text, token.expires)

    def _auth(self) -> FleetDeviceAuth:
        try:
            with self._path.open("rb") as file:
                return FleetDeviceAuth.model_validate_json(file.read(_LARGEST))
        except OSError as error:
            raise Unavailable(f"the identity in {self._path} cannot be read: {error.strerror}") from error
        except ValidationError:
            raise InvalidValue(f"{self._path} does not hold an identity: enrol the device again") from None

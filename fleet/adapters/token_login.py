"""How a device logs in with its identity: a token of the provider, kept for as long as it is good for much longer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from fleet.adapters.nats_login import TokenLogin
from fleet.capabilities.clock import Clock
from fleet.capabilities.identity import Token, TokenMint
from fleet.contracts.auth import FleetDeviceAuth
from fleet.contracts.errors import Disconnected, InvalidValue, TimedOut, Unavailable
from fleet.contracts.time import Duration, Instant

ReadAuth = Callable[[], FleetDeviceAuth]
AGAIN: Final = Duration.minutes(2)
"""A server that turns a token away is shown another one, but the provider is asked for one at most this often: perhaps
it was never the token, because nobody is there who could verify it."""
_LARGEST: Final = 64 * 1024


class TokenLoginSource:
    """The LoginSource of a device with an identity.

    The identity is read anew each time, so that a rotated key is used without a restart. A token is asked for again
    once most of its life is over, or when it was turned away: the provider may sign with other keys by now. The one at
    hand goes on being used while the provider cannot be reached.

    Args:
        auth: reads the identity that enrolment left on the device. Raises: FleetError.
    """

    def __init__(self, auth: ReadAuth, mint: TokenMint, clock: Clock) -> None:
        self._auth = auth
        self._mint = mint
        self._clock = clock
        self._held: tuple[FleetDeviceAuth, Token] | None = None
        self._minted = Instant(0)
        self._doubted = False

    async def read(self) -> TokenLogin:
        """A token that is good now, as far as it says itself.

        Raises:
            Unavailable, InvalidValue: there is no identity. Otherwise as `TokenMint.mint`.
        """
        auth = self._auth()
        held = self._held[1] if self._held is not None and self._held[0] == auth else None
        if held is not None and not self._is_due(held):
            return TokenLogin(held.text, held.expires)
        try:
            token = await self._mint.mint(auth)
        except (Unavailable, TimedOut, Disconnected):
            if held is None or self._clock.monotonic() >= held.expires:
                raise
            token = held
        else:
            self._minted, self._doubted = self._clock.monotonic(), False
        self._held = auth, token
        return TokenLogin(token.text, token.expires)

    def turned_away(self) -> None:
        """As the port says."""
        self._doubted = True

    def _is_due(self, held: Token) -> bool:
        now = self._clock.monotonic()
        return now >= held.refresh or (self._doubted and now - self._minted >= AGAIN)


def auth_in_file(path: Path) -> ReadAuth:
    """Reads the file that enrolment leaves. It raises: Unavailable, InvalidValue."""

    def read() -> FleetDeviceAuth:
        try:
            with path.open("rb") as file:
                return FleetDeviceAuth.model_validate_json(file.read(_LARGEST))
        except OSError as error:
            raise Unavailable(f"the identity in {path} cannot be read: {error.strerror}") from error
        except ValidationError:
            raise InvalidValue(f"{path} does not hold an identity: enrol the device again") from None

    return read

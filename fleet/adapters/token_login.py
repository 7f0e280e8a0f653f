"""How a device logs in with its identity: a token of the provider, kept for as long as it is good for much longer."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from pydantic import Field, ValidationError

from fleet.adapters.nats_login import TokenLogin
from fleet.capabilities.clock import Clock
from fleet.capabilities.identity import Token, TokenMint
from fleet.contracts.auth import FleetDeviceAuth
from fleet.contracts.errors import Disconnected, InvalidValue, NotPermitted, TimedOut, Unavailable
from fleet.contracts.ids import Frozen
from fleet.contracts.time import Duration, Instant

_log = logging.getLogger("fleet.bus")

ReadAuth = Callable[[], FleetDeviceAuth]


class SharedToken(Protocol):
    """A small private place in memory that is gone after a boot."""

    def now(self) -> Instant:
        """Time since the boot, the same for every instance: the time of day is wrong until a time server answers."""
        ...

    def read(self) -> bytes | None:
        """What was written last; None when there is nothing that can be read."""
        ...

    def write(self, content: bytes) -> None:
        """Replace it, as a whole. What cannot be written is not there, which is told to the log."""
        ...


class _LeftToken(Frozen):
    """The token with the identity it is of, and its times since the boot."""

    auth: FleetDeviceAuth
    text: str = Field(repr=False)
    refresh: Instant
    expires: Instant


AGAIN: Final = Duration.minutes(2)
"""A server that turns a token away is shown another one, but the provider is asked for one at most this often: perhaps
it was never the token, because nobody is there who could verify it."""
REFUSED_FOR: Final = Duration.seconds(30)
"""A provider that refused an identity is not asked for it again within this: a connection is tried every two seconds,
and every device that is locked out would be at the provider as often, for nothing."""
_LARGEST: Final = 64 * 1024


class TokenLoginSource:
    """The LoginSource of a device with an identity.

    The identity is read anew each time, so that a rotated key is used without a restart. A token is asked for again
    once most of its life is over, or when it was turned away: the provider may sign with other keys by now. The one at
    hand goes on being used while the provider cannot be reached.

    The instances of one device share what they hold: a new release in its overlap, or an agent that starts again,
    logs in while the provider is away.

    Args:
        auth: reads the identity that enrolment left on the device. Raises: FleetError.
        shared: where other instances of this device find the token.
    """

    def __init__(self, auth: ReadAuth, mint: TokenMint, clock: Clock, shared: SharedToken) -> None:
        self._auth = auth
        self._mint = mint
        self._clock = clock
        self._shared = shared
        self._held: tuple[FleetDeviceAuth, Token] | None = None
        self._minted: Instant | None = None
        self._refused: tuple[FleetDeviceAuth, Instant] | None = None
        self._doubted = False

    async def read(self) -> TokenLogin:
        """A token that is good now, as far as it says itself.

        Raises:
            Unavailable, InvalidValue: there is no identity.
            NotPermitted: the provider does not accept it, or did not just now. Otherwise as `TokenMint.mint`.
        """
        auth = self._auth()
        held = self._held[1] if self._held is not None and self._held[0] == auth else self._left_by_others(auth)
        if held is not None and not self._is_due(held):
            return TokenLogin(held.text, held.expires)
        if self._was_refused(auth):
            raise NotPermitted(f"{auth.issuer}: the provider did not accept this user and this key just now")
        try:
            token = await self._mint.mint(auth)
        except NotPermitted:
            self._refused = auth, self._clock.monotonic()
            raise
        except (Unavailable, TimedOut, Disconnected):
            if held is None or self._clock.monotonic() >= held.expires:
                raise
            token = held
        else:
            self._minted, self._doubted = self._clock.monotonic(), False
            self._leave_to_others(auth, token)
        self._held = auth, token
        return TokenLogin(token.text, token.expires)

    def turned_away(self) -> None:
        """As the port says."""
        self._doubted = True

    def _was_refused(self, auth: FleetDeviceAuth) -> bool:
        if self._refused is None or self._refused[0] != auth:
            return False
        return self._clock.monotonic() - self._refused[1] < REFUSED_FOR

    def _is_due(self, held: Token) -> bool:
        now = self._clock.monotonic()
        return now >= held.refresh or (self._doubted and (self._minted is None or now - self._minted >= AGAIN))

    def _left_by_others(self, auth: FleetDeviceAuth) -> Token | None:
        """The token of another instance, if it is of this identity and still good."""
        content = self._shared.read()
        if content is None:
            return None
        try:
            left = _LeftToken.model_validate_json(content)
        except ValidationError:
            _log.warning("what other instances left in place of a token is none: it is replaced by the next one")
            return None
        now, here = self._clock.monotonic(), self._shared.now()
        if left.auth != auth or left.expires <= here:
            return None
        token = Token(left.text, now + (left.expires - here), now + (left.refresh - here))
        self._held = auth, token
        return token

    def _leave_to_others(self, auth: FleetDeviceAuth, token: Token) -> None:
        now, here = self._clock.monotonic(), self._shared.now()
        left = _LeftToken(
            auth=auth,
            text=token.text,
            refresh=here + (token.refresh - now),
            expires=here + (token.expires - now),
        )
        self._shared.write(left.model_dump_json().encode())


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


class TokenFile:
    """A SharedToken: a file that its owner alone may read, on a file system in memory (`/run`).

    Args:
        since_boot: the machine's time since its boot, at the pace of the program.
    """

    def __init__(self, path: Path, since_boot: Callable[[], Instant]) -> None:
        self._path = path
        self.now = since_boot

    def read(self) -> bytes | None:
        """As the port says."""
        try:
            with self._path.open("rb") as file:
                return file.read(_LARGEST)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("the token in %s cannot be read: %s", self._path, error.strerror)
            return None

    def write(self, content: bytes) -> None:
        """As the port says."""
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)  # `/run` is empty after a boot
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            temporary.rename(self._path)
        except OSError as error:
            _log.warning("the token cannot be left in %s: %s", self._path, error.strerror)

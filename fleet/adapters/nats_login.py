"""How a program proves to the NATS server who it is. Read anew at each connection, so that a rotation is picked up."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fleet.contracts.errors import InvalidValue, Unavailable
from fleet.contracts.permissions import DEVICE_ROOT
from fleet.contracts.time import Instant


@dataclass(frozen=True, slots=True)
class PasswordLogin:
    """A user and its password: good until somebody changes it. The password never shows in `repr`."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenLogin:
    """An access token of the identity provider. The text never shows in `repr`.

    `expires` is on the monotonic clock of the program that logs in: its wall clock may be wrong or jump. `root` stands
    before every subject but inboxes: who comes with a token is let into the account of the devices (ADR-030).
    """

    text: str = field(repr=False)
    expires: Instant
    root: str = DEVICE_ROOT


Login = PasswordLogin | TokenLogin


class LoginSource(Protocol):
    """Where the login comes from, at each connection anew."""

    async def read(self) -> Login:
        """The login now. May ask the identity provider. Raises: FleetError."""
        ...

    def turned_away(self) -> None:
        """The server did not accept what was read last. It never says why: perhaps it was not even looked at."""
        ...


@dataclass(frozen=True, slots=True)
class PasswordFile:
    """A private file that holds `{"user": …, "password": …}`."""

    path: Path

    def turned_away(self) -> None:
        """The file is read anew each time anyway."""

    async def read(self) -> PasswordLogin:
        """What stands in the file now. Raises: Unavailable, InvalidValue (which quotes nothing of the file)."""
        try:
            content = json.loads(self.path.read_bytes())
        except OSError as error:
            raise Unavailable(f"the login in {self.path} cannot be read: {error.strerror}") from error
        except ValueError:
            raise InvalidValue(f"the login in {self.path} is not JSON") from None
        match content:
            case {"user": str(user), "password": str(password)}:
                return PasswordLogin(user, password)
            case _:
                raise InvalidValue(f"the login in {self.path} lacks a user and a password")

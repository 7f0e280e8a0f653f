"""How a program proves to the NATS server who it is. Read anew at each connection, so that a rotation is picked up."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from fleet.contracts.errors import InvalidValue, Unavailable


@dataclass(frozen=True, slots=True)
class Login:
    """A user and its password. The password never shows in `repr`."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PasswordFile:
    """A private file that holds `{"user": …, "password": …}`."""

    path: Path

    def read(self) -> Login:
        """What stands in the file now. Raises: Unavailable, InvalidValue (which quotes nothing of the file)."""
        try:
            content = json.loads(self.path.read_bytes())
        except OSError as error:
            raise Unavailable(f"the login in {self.path} cannot be read: {error.strerror}") from error
        except ValueError:
            raise InvalidValue(f"the login in {self.path} is not JSON") from None
        match content:
            case {"user": str(user), "password": str(password)}:
                return Login(user, password)
            case _:
                raise InvalidValue(f"the login in {self.path} lacks a user and a password")

"""The users of the modelled provider: their keys, their roles, and whether they are let in."""

from __future__ import annotations

from dataclasses import dataclass, field

from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from fleet.contracts.errors import NotFound, Refused
from fleet.contracts.time import Instant


@dataclass(frozen=True, slots=True)
class UserKey:
    """A public key of a user, good until it expires."""

    public: RSAKey
    expires: Instant


@dataclass
class User:
    """A machine user, or a person. Roles are kept by grant, one per project."""

    id: str
    name: str
    is_machine: bool = True
    is_active: bool = True
    is_admin: bool = False
    has_jwt_tokens: bool = False
    keys: dict[str, UserKey] = field(default_factory=dict)
    grants: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    """By project: the id of the grant, and its roles."""


class Taken(Refused):
    """There is one already."""


class Accounts:
    """All users of one organization. Ids are numbers that count up, as they do at the real provider."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self._last = 310_000_000_000_000_000

    def new_id(self) -> str:
        """An id that nothing has."""
        self._last += 1
        return str(self._last)

    def create(self, name: str, is_machine: bool = True) -> User:
        """A new user. Raises: Taken."""
        if self.named(name) is not None:
            raise Taken(f"there is a user {name}")
        user = User(self.new_id(), name, is_machine)
        self.users[user.id] = user
        return user

    def named(self, name: str) -> User | None:
        """The user of that name."""
        return next((user for user in self.users.values() if user.name == name), None)

    def get(self, user: str) -> User:
        """The user of that id. Raises: NotFound."""
        found = self.users.get(user)
        if found is None:
            raise NotFound(f"there is no user {user}")
        return found

    def add_key(self, user: str, public_pem: bytes, expires: Instant) -> str:
        """Another key. Raises: NotFound; Refused when it is none."""
        try:
            key = RSAKey.import_key(public_pem)
        except (ValueError, TypeError, JoseError):
            raise Refused("that is no public key") from None
        if key.is_private:
            raise Refused("that is a private key")
        number = self.new_id()
        self.get(user).keys[number] = UserKey(key, expires)
        return number

    def grant(self, user: str, project: str, roles: tuple[str, ...]) -> str:
        """A grant of roles. Raises: NotFound; Taken when the user has one of that project."""
        grants = self.get(user).grants
        if project in grants:
            raise Taken(f"user {user} has a grant of project {project}")
        grants[project] = self.new_id(), roles
        return grants[project][0]

    def change_grant(self, user: str, grant: str, roles: tuple[str, ...]) -> None:
        """Other roles in a grant. Raises: NotFound."""
        grants = self.get(user).grants
        for project, (number, _) in grants.items():
            if number == grant:
                grants[project] = number, roles
                return
        raise NotFound(f"there is no grant {grant}")

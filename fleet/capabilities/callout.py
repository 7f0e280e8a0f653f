"""The auth callout as its program sees it: clients that want in, connections that stand, and a way to end one.

What it is like on the wire (signed and sealed messages of the server's system account) is the adapter's business. The
model of the server speaks this port directly, so that the program that decides is the same in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fleet.capabilities.bus import Subscription
from fleet.contracts.ids import DeviceId
from fleet.contracts.permissions import Permissions
from fleet.contracts.time import Instant


@dataclass(frozen=True, slots=True)
class Admission:
    """What a client that is let in gets.

    Args:
        device: which one it is.
        user: the `sub` of its token.
        issued, expires: of its token, by the provider's clock. The server ends the connection at `expires`.
        permissions: what it may do.
    """

    device: DeviceId
    user: str
    issued: Instant
    expires: Instant
    permissions: Permissions


@dataclass(frozen=True, slots=True)
class Shown:
    """What a client shows.

    Args:
        token: a secret; empty when there is none.
        client: what it says it is, for a log. Nobody has checked it.
    """

    token: str = field(repr=False)
    client: str


class LoginRequest(Protocol):
    """One client that wants in. To answer late is harmless and useless: the server has sent the client away by then.

    Only the first answer counts.
    """

    def read(self) -> Shown:
        """What the client shows. Takes a fraction of a millisecond. Raises: InvalidValue when nobody can read it."""
        ...

    def allow(self, admission: Admission) -> None:
        """Let it in, after `read`."""
        ...

    def refuse(self) -> None:
        """Turn it away at once, after `read`. It learns no reason."""
        ...


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection that stands by an `Admission`.

    Args:
        connection: names it to `CalloutWire.end`.
        device, issued: of the admission.
    """

    connection: str
    device: DeviceId
    issued: Instant


class CalloutWire(Protocol):
    """The server's side of the callout. Any number of programs may serve it: each request goes to one of them."""

    def serve(self, handler: Callable[[LoginRequest], None]) -> Subscription:
        """Call back for each client that wants in. The callback must not raise, and should not take long."""
        ...

    async def connected(self) -> tuple[Connected, ...]:
        """All connections that stand by an admission, on every server.

        Raises:
            Unavailable, TimedOut, Disconnected, NotPermitted.
        """
        ...

    async def end(self, connection: Connected) -> None:
        """Cut a connection. One that is gone already is none to cut.

        Raises:
            Unavailable, TimedOut, Disconnected, NotPermitted.
        """
        ...

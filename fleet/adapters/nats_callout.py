"""The auth callout's wire on a real NATS server: questions about clients, and the power to cut their connections.

Two connections, because the server asks in one account and takes orders in another. A question is opened and checked
when it is read, not when it comes in: one that waited for too long is thrown away without having cost anything.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from fleet.adapters import nats_jwt
from fleet.adapters.nats import NatsBus
from fleet.adapters.nats_jwt import NONCE_BYTES, Asked, CalloutKeys
from fleet.adapters.nats_session import Listener
from fleet.adapters.nats_wire import Frame, Headers
from fleet.capabilities.callout import Admission, Connected, LoginRequest, Shown
from fleet.capabilities.clock import Clock
from fleet.contracts.errors import InvalidValue, Refused, TimedOut, Unavailable
from fleet.contracts.time import Duration

_log = logging.getLogger("fleet.callout")

QUESTIONS: Final = "$SYS.REQ.USER.AUTH"
GROUP: Final = "fleet-callout"
CONNECTIONS: Final = "$SYS.REQ.SERVER.PING.CONNZ"
_PAGE: Final = 1000
"""Connections asked for at once: half of what fits into a message."""
_MOST_PAGES: Final = 100
_MORE: Final = Duration.millis(150)
"""How long another server's answer is waited for after the last one: how many servers there are is not known."""
_SECOND: Final = 10**9
_NO_SUCH_CLIENT: Final = "no such client"


class NatsCallout:
    """The CalloutWire port.

    Args:
        asked: a bus whose login is in the account in which the callout is asked.
        system: a bus whose login is in the system's account.
        account: the one that admitted clients are put into.
        entropy: gives that many bytes that come never again.
    """

    def __init__(
        self,
        asked: NatsBus,
        system: NatsBus,
        account: str,
        keys: CalloutKeys,
        clock: Clock,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._asked = asked
        self._system = system
        self._clock = clock
        self._entropy = entropy
        self.account = account
        self.keys = keys

    def serve(self, handler: Callable[[LoginRequest], None]) -> Listener:
        """As the port says."""
        return self._asked.hear(QUESTIONS, GROUP, lambda frame: handler(_Question(self, frame)))

    async def connected(self) -> tuple[Connected, ...]:
        """As the port says. A page of every server at a time; whoever comes meanwhile may be left out."""
        found: dict[str, Connected] = {}
        for page in range(_MOST_PAGES):
            asked = {"auth": True, "acc": self.account, "limit": _PAGE, "offset": page * _PAGE}
            frames = await self._system.gather(CONNECTIONS, json.dumps(asked).encode(), _MORE)
            answers = [_answer(frame) for frame in frames]
            found |= {item.connection: item for answer in answers for item in _admitted(answer)}
            if all(len(answer.data.connections) < _PAGE for answer in answers):
                break
        return tuple(found.values())

    async def end(self, connection: Connected) -> None:
        """As the port says. Raises also: Refused."""
        server, _, number = connection.connection.rpartition("/")
        frame = await self._system.call_api(f"$SYS.REQ.SERVER.{server}.KICK", json.dumps({"cid": int(number)}).encode())
        try:
            answer = json.loads(frame.payload or b"{}")
        except ValueError:
            raise TimedOut("the server's answer cannot be read") from None
        match answer:
            case {"error": {"description": str(text)}} if _NO_SUCH_CLIENT not in text:
                raise Refused(f"the server did not cut a connection: {text}")

    def now(self) -> int:
        """Whole seconds of the time of day."""
        return self._clock.wall() // _SECOND

    def reply(self, asked: Asked, subject: str, jwt: str) -> None:
        """Send an answer. With the connection gone there is nobody to answer: the server asks again at the next try."""
        payload = jwt.encode()
        if asked.server_xkey is not None:
            payload = self.keys.seal(payload, asked.server_xkey, self._entropy(NONCE_BYTES))
        try:
            self._asked.say(subject, payload)
        except Unavailable as error:
            _log.debug("a login was not answered: %s", error)


class _Question:
    """A LoginRequest."""

    __slots__ = ("_answered", "_asked", "_frame", "_wire")

    def __init__(self, wire: NatsCallout, frame: Frame) -> None:
        self._wire = wire
        self._frame = frame
        self._asked: Asked | None = None
        self._answered = False

    def read(self) -> Shown:
        """As the port says."""
        if self._asked is None:
            xkey = Headers(self._frame.header).last(b"Nats-Server-Xkey")
            if xkey is None:
                raise InvalidValue("the server's question is not sealed: its configuration lacks the callout's xkey")
            self._asked = nats_jwt.read_question(self._frame.payload, xkey, self._wire.keys)
        return Shown(self._asked.token, self._asked.client)

    def allow(self, admission: Admission) -> None:
        """As the port says."""
        asked = self._once()
        if asked is not None:
            wire = self._wire
            self._reply(asked, nats_jwt.allowed(asked, admission, wire.account, wire.now(), wire.keys))

    def refuse(self) -> None:
        """As the port says."""
        asked = self._once()
        if asked is not None:
            self._reply(asked, nats_jwt.refused(asked, self._wire.now(), self._wire.keys))

    def _once(self) -> Asked | None:
        if self._answered:
            return None
        self._answered = True
        return self._asked

    def _reply(self, asked: Asked, jwt: str) -> None:
        self._wire.reply(asked, self._frame.reply.decode("ascii", "replace"), jwt)


# --- what the server says of its connections ----------------------------------------------------------


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Connection(_Part):
    cid: int
    authorized_user: str = ""


class _Connections(_Part):
    connections: tuple[_Connection, ...] = ()


class _Server(_Part):
    id: str


class _Connz(_Part):
    server: _Server
    data: _Connections


def _answer(frame: Frame) -> _Connz:
    try:
        return _Connz.model_validate_json(frame.payload)
    except ValidationError:
        raise TimedOut("the server's list of connections cannot be read") from None


def _admitted(answer: _Connz) -> Iterator[Connected]:
    """The connections whose name is that of an admission."""
    for item in answer.data.connections:
        named = nats_jwt.read_name(item.authorized_user)
        if named is not None:
            yield Connected(f"{answer.server.id}/{item.cid}", *named)

"""The Bus port for one client: one virtual process, one connection at a time, kept up for the life of the process.

The connection is a state machine of callbacks, not a task, so that a thousand idle devices cost nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from fleet.capabilities.bus import Deleted, Entry, Request
from fleet.capabilities.clock import Chance
from fleet.contracts.errors import Conflict, Disconnected, FleetError, NotPermitted, TimedOut, Unavailable
from fleet.contracts.ids import Revision
from fleet.contracts.keys import check_key, check_subject, check_value
from fleet.contracts.layout import Bucket
from fleet.contracts.time import Duration, Instant
from sim.kernel import Call
from sim.nats.auth import ReadPassword, ReadToken
from sim.nats.pipe import Message, Pipe
from sim.nats.server import NatsServer, Session, Ticket
from sim.nats.subjects import republished_patterns

_FRAME: Final = 96
"""Bytes of protocol around a message."""
_HANDSHAKE: Final = 400
"""Bytes of a connection request."""


@dataclass(frozen=True, slots=True)
class BusTimings:
    """The intervals of a client: those of the real adapter."""

    answer: Duration = Duration.seconds(5)
    """A call without an answer fails after this."""
    dial: Duration = Duration.seconds(2)
    """A connection attempt without an answer is given up after this."""
    backoff_least: Duration = Duration.seconds(1)
    backoff_most: Duration = Duration.seconds(3)
    """The pause before the next attempt lies between the two."""
    ping: Duration = Duration.seconds(10)
    missed_pings: int = 2
    """The connection is given up at the ping after this many unanswered ones."""
    renew_ahead: Duration = Duration.minutes(1)
    """A session whose token ends is replaced between this and twice this ahead; a short one, a quarter to half of its
    time ahead."""


class Owner(Protocol):
    """The virtual process whose client this is."""

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        ...

    def on_death(self, callback: Callable[[], None]) -> None:
        """Call back when it ends, whichever way."""
        ...

    def crash(self, error: BaseException) -> None:
        """It raised an exception that nobody handles."""
        ...


class Listener:
    """A subscription: outlives connections, runs its callback in the context it was made in."""

    __slots__ = ("_bus", "_context", "callback", "patterns", "refused")

    def __init__(self, bus: SimBus, patterns: tuple[str, ...], callback: Callable[..., object]) -> None:
        self._bus = bus
        self._context = copy_context()
        self.patterns = patterns
        self.callback = callback
        self.refused: NotPermitted | None = None

    def call(self, *args: object) -> object:
        """Run the callback. What it raises ends its process."""
        try:
            return self._context.run(self.callback, *args)
        except Exception as error:  # noqa: BLE001 - handed on to the process, whose code raised it
            self._bus.process.crash(error)
            return None

    def close(self) -> None:
        """End it. Nothing is delivered any more. Closing twice is harmless."""
        self._bus.forget(self)


Answer = asyncio.Future[Any]


class SimBus:
    """The Bus port over the virtual network.

    It begins to connect when it is made, which has to be on the running loop and inside its process.

    Args:
        server: whom to connect to, over the server's network.
        name: the client as the server knows it (`NatsServer.permit`).
        host: the network node it runs on.
        process: whose it is; it ends with it.
        chance: for the jitter of reconnects.
        read_token: where its token comes from, whose end is on the kernel's clock; None when the server knows the
            client by its name, as if by a password.
        turned_away: told each time that the server did not accept a token.
        read_password: where its password comes from, at each connection anew; None when it has none to show.
    """

    def __init__(
        self,
        server: NatsServer,
        name: str,
        host: str,
        process: Owner,
        chance: Chance,
        timings: BusTimings = BusTimings(),
        read_token: ReadToken | None = None,
        turned_away: Callable[[], None] = lambda: None,
        read_password: ReadPassword | None = None,
    ) -> None:
        self.name = name
        self.process = process
        self._host = host
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._kernel = server.kernel
        self._up = server.network.route(host, server.host)
        self._down = server.network.route(server.host, host)
        self._chance = chance
        self._timings = timings
        self._session: Session | None = None
        self._pipe = Pipe(self._up, self._kernel)
        self._attempt = 0
        self._dialling: Call | None = None
        self._suspicion: Call | None = None
        self._calls: dict[int, Answer] = {}
        self._last_call = 0
        self._listeners: dict[Listener, None] = {}
        self._on_session: dict[Listener, None] = {}
        self._established_at = 0
        self._buffered: tuple[Message, ...] = ()
        self._closed = False
        self._context = copy_context()
        self._read_token = read_token
        self._turned_away = turned_away
        self._read_password = read_password
        self._reading: asyncio.Task[None] | None = None
        self._token_expires = Instant(0)
        self._renewal: Call | None = None
        self._retired: dict[Session, None] = {}
        server.attend(self, host)
        process.on_death(self._process_died)
        self._dial()

    # --- the port -----------------------------------------------------------------------------------

    def on_session(self, callback: Callable[[], None]) -> Listener:
        """As the port says."""
        listener = Listener(self, (), callback)
        self._on_session[listener] = None
        if self._session is not None:
            self._loop.call_soon(self._greet, listener, self._session)
        return listener

    def is_connected(self) -> bool:
        """As the port says."""
        return self._session is not None

    async def may_log_in(self) -> bool:
        """As the port says."""
        answer: asyncio.Future[bool] = self._loop.create_future()

        def settle(is_in: bool) -> None:
            if not answer.done() and self.process.alive:
                answer.set_result(is_in)

        other = SimBus(
            self._server,
            self.name,
            self._host,
            self.process,
            self._chance,
            self._timings,
            self._read_token,
            self._turned_away,
            self._read_password,
        )
        other.on_session(lambda: settle(True))
        limit = self._kernel.after(self._timings.answer, settle, False)
        try:
            return await answer
        finally:
            limit.cancel()
            await other.close()

    async def put(self, bucket: Bucket, key: str, value: bytes) -> Revision:
        """As the port says."""
        revision: Revision = await self._write(bucket, key, value, None)
        return revision

    def post(self, bucket: Bucket, key: str, value: bytes) -> None:
        """As the port says."""
        check_key(key)
        check_value(value)
        session = self._standing()
        self._pipe.send(_FRAME + len(key) + len(value), session.post, bucket, key, value)

    async def update(self, bucket: Bucket, key: str, value: bytes, last: Revision) -> Revision:
        """As the port says. With `last` 0 a delete marker is looked up first when the server names a conflict."""
        try:
            revision: Revision = await self._write(bucket, key, value, last)
        except Conflict:
            if last != 0:
                raise
            newest = await self.get(bucket, key)
            if not isinstance(newest, Deleted):
                raise
            revision = await self._write(bucket, key, value, newest.revision)
        return revision

    async def delete(self, bucket: Bucket, key: str, last: Revision | None = None) -> None:
        """As the port says."""
        await self._write(bucket, key, None, last)

    async def get(self, bucket: Bucket, key: str) -> Entry | None:
        """As the port says."""
        check_key(key)
        session = self._standing()
        call, answer = self._call(self._timings.answer)
        self._pipe.send(_FRAME + len(key), session.get, call, bucket, key)
        entry: Entry | None = await answer
        return entry

    async def entries(self, bucket: Bucket, prefix: str = "") -> tuple[Entry, ...]:
        """As the port says."""
        if prefix:
            check_key(prefix)
        session = self._standing()
        call, answer = self._call(self._timings.answer)
        self._pipe.send(_FRAME + len(prefix), session.list, call, bucket, prefix)
        entries: tuple[Entry, ...] = await answer
        return entries

    def listen(self, bucket: Bucket, prefix: str, callback: Callable[[Entry], None]) -> Listener:
        """As the port says."""
        if prefix:
            check_key(prefix)
        return self._subscribe(Listener(self, republished_patterns(bucket, prefix), callback))

    async def request(self, subject: str, payload: bytes, timeout: Duration) -> bytes:
        """As the port says."""
        check_subject(subject)
        check_value(payload)
        session = self._standing()
        call, answer = self._call(timeout)
        self._pipe.send(_FRAME + len(payload), session.request, call, subject, payload)
        reply: bytes = await answer
        return reply

    def serve(self, subject: str, handler: Callable[[Request], bytes | None]) -> Listener:
        """As the port says."""
        check_subject(subject.removesuffix(".*"))
        return self._subscribe(Listener(self, (subject,), handler))

    async def close(self) -> None:
        """As the port says."""
        if self._closed:
            return
        self._closed = True
        session = self._session
        if session is not None:
            self._hang_up(session)
        self._lose(Disconnected("the client was closed"))
        self._stop_dialling()
        self._server.leave(self, self._host)
        self._listeners.clear()
        self._on_session.clear()

    # --- what the server's messages do when they arrive ---------------------------------------------

    def accepted(self, session: Session) -> None:
        """A connection stands: subscribe anew, write what was left in the buffer, and tell who wants to know."""
        if self._closed or session.attempt != self._attempt or not self.process.alive:
            self._hang_up(session)
            return
        self._stop_dialling()
        if self._session is not None:
            self._retire(self._session)
        self._session = session
        self._established_at = self._kernel.now
        if self._read_token is not None:
            self._renewal = self._kernel.after(self._renew_in(), self._dial)
        for listener in self._listeners:
            listener.refused = None
            self._pipe.send(_FRAME, session.subscribe, listener, listener.patterns)
        buffered, self._buffered = self._buffered, ()
        for size, _, args in buffered:
            self._pipe.send(size, session.write, *args)
        if self._is_cut():
            self.link_changed()
        for listener in tuple(self._on_session):
            self._greet(listener, session)

    def turned_away(self, attempt: int) -> None:
        """A connection attempt with a token was turned down, or nobody could say in time whether it is good."""
        if attempt == self._attempt and self.process.alive:
            self._turned_away()
        self.refused(attempt)

    def refused(self, attempt: int) -> None:
        """A connection attempt was turned down."""
        if attempt == self._attempt and self.process.alive:
            self._dial_later()

    def ended(self, session: Session) -> None:
        """The connection is over."""
        if session is self._session and self.process.alive:
            self._reconnect(Disconnected("the server closed the connection"))

    def answered(self, session: Session, call: int, answer: object) -> None:
        """The answer to a call. A second or a late one finds no call and is ignored."""
        future = self._calls.pop(call, None)
        if future is None or future.done() or not self.process.alive:
            return
        if isinstance(answer, FleetError):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def not_permitted(self, session: Session, subscription: object, pattern: str) -> None:
        """A subscription that may hear nothing."""
        if session is self._session and subscription in self._listeners:
            subscription.refused = NotPermitted(f"not permitted to subscribe to {pattern}")

    def republished(self, session: Session, subscription: object, entry: Entry) -> None:
        """A stored write that a subscription asked for."""
        if session in self._retired and self.process.alive:
            return
        if session is not self._session or not self.process.alive:
            self._hang_up(session)
        elif subscription in self._listeners:
            subscription.call(entry)

    def requested(self, session: Session, subscription: object, subject: str, payload: bytes, ticket: Ticket) -> None:
        """A request for a subject this client serves."""
        if session in self._retired and self.process.alive:
            return
        if session is not self._session or not self.process.alive:
            self._hang_up(session)
        elif subscription in self._listeners:
            answer = subscription.call(Request(subject, payload))
            if answer is not None and session is self._session:
                self._pipe.send(_FRAME + len(cast(bytes, answer)), session.reply, ticket, answer)

    # --- subscriptions ------------------------------------------------------------------------------

    def forget(self, listener: Listener) -> None:
        """End a subscription."""
        self._on_session.pop(listener, None)
        if listener in self._listeners:
            del self._listeners[listener]
            if self._session is not None:
                self._pipe.send(_FRAME, self._session.unsubscribe, listener)

    def _subscribe(self, listener: Listener) -> Listener:
        self._listeners[listener] = None
        if self._session is not None:
            self._pipe.send(_FRAME, self._session.subscribe, listener, listener.patterns)
        return listener

    def _greet(self, listener: Listener, session: Session) -> None:
        if listener in self._on_session and session is self._session:
            listener.call()

    # --- calls --------------------------------------------------------------------------------------

    def _standing(self) -> Session:
        if self._session is None:
            raise Unavailable("not connected to the bus")
        return self._session

    def _write(self, bucket: Bucket, key: str, value: bytes | None, expected: int | None) -> Answer:
        check_key(key)
        size = _FRAME + len(key)
        if value is not None:
            check_value(value)
            size += len(value)
        session = self._standing()
        call, answer = self._call(self._timings.answer)
        self._pipe.send(size, session.write, call, bucket, key, value, expected)
        return answer

    def _call(self, timeout: Duration) -> tuple[int, Answer]:
        self._last_call = call = self._last_call + 1
        answer: Answer = self._loop.create_future()
        self._calls[call] = answer
        self._server.deadlines.limit(timeout, self, call)
        return call, answer

    def waits(self, call: int) -> bool:
        """See `Caller`."""
        return call in self._calls

    def time_out(self, call: int) -> None:
        """See `Caller`."""
        answer = self._calls.pop(call)
        if self.process.alive and not answer.done():
            answer.set_exception(TimedOut("no answer from the bus"))

    # --- the connection -----------------------------------------------------------------------------

    def _dial(self) -> None:
        if self._closed or not self.process.alive:
            return
        self._attempt += 1
        if self._read_token is not None:
            work = self._dial_by_token(self._read_token, self._attempt)
            self._reading = self._context.run(self._loop.create_task, work)
        elif self._read_password is not None:
            work = self._dial_by_password(self._read_password, self._attempt)
            self._reading = self._context.run(self._loop.create_task, work)
        else:
            self._dialling = self._kernel.after(self._timings.dial, self._dial_later)
            self._up.send(_HANDSHAKE, self._knock, self._attempt, None)

    async def _dial_by_password(self, read_password: ReadPassword, attempt: int) -> None:
        try:
            password = await read_password()
        except FleetError:
            if attempt == self._attempt:
                self._dial_later()
            return
        if attempt == self._attempt and not self._closed:
            self._dialling = self._kernel.after(self._timings.dial, self._dial_later)
            self._up.send(_HANDSHAKE, self._knock, attempt, password)

    async def _dial_by_token(self, read_token: ReadToken, attempt: int) -> None:
        try:
            token = await read_token()
        except FleetError:
            if attempt == self._attempt:
                self._dial_later()
            return
        if attempt == self._attempt and not self._closed:
            self._token_expires = token.expires
            self._dialling = self._kernel.after(self._timings.dial, self._dial_later)
            self._up.send(_HANDSHAKE, self._show, attempt, token.text)

    def _show(self, attempt: int, token: str) -> None:
        """At the server: a connection request with a token has arrived."""
        try:
            self._server.connect_by_token(self.name, token, self, attempt, self._host)
        except FleetError:
            self._down.send(_FRAME, self.refused, attempt)

    def _knock(self, attempt: int, password: str | None) -> None:
        """At the server: a connection request has arrived."""
        try:
            session = self._server.connect(self.name, self, attempt, self._host, password)
        except FleetError:
            self._down.send(_FRAME, self.refused, attempt)
            return
        session.welcome()

    def _renew_in(self) -> Duration:
        """How long the session is used before another one with a new token takes over."""
        left = max(self._token_expires - Instant(self._kernel.now), Duration(0))
        ahead = min(self._timings.renew_ahead, Duration(left // 4))
        return max(Duration(left - self._chance.between(ahead, ahead * 2)), self._timings.backoff_least)

    def _retire(self, session: Session) -> None:
        """Another session took over: let this one get the answers that are under way, and leave."""
        self._retired[session] = None
        for listener in self._listeners:
            self._pipe.send(_FRAME, session.unsubscribe, listener)
        self._kernel.after(self._timings.answer, self._leave, session)

    def _leave(self, session: Session) -> None:
        self._retired.pop(session, None)
        self._hang_up(session)

    def _dial_later(self) -> None:
        self._stop_dialling()
        pause = self._chance.between(self._timings.backoff_least, self._timings.backoff_most)
        self._dialling = self._kernel.after(pause, self._dial)
        self._attempt += 1

    def _stop_dialling(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None

    def link_changed(self) -> None:
        """A link was cut or mended: cut, the connection is given up when enough pings have gone unanswered."""
        if not self._is_cut():
            self._trust()
        elif self._suspicion is None and self._session is not None:
            ping = self._timings.ping
            to_next_ping = ping - (self._kernel.now - self._established_at) % ping
            wait = Duration(to_next_ping + ping * self._timings.missed_pings)
            self._suspicion = self._kernel.after(wait, self._give_up, self._session)

    def _give_up(self, session: Session) -> None:
        self._suspicion = None
        if session is self._session and self.process.alive:
            self._reconnect(Disconnected("pings went unanswered"))

    def _trust(self) -> None:
        if self._suspicion is not None:
            self._suspicion.cancel()
            self._suspicion = None

    def _is_cut(self) -> bool:
        return self._up.is_cut or self._down.is_cut

    def _reconnect(self, error: Disconnected) -> None:
        self._lose(error)
        self._dial_later()

    def _lose(self, error: Disconnected) -> None:
        """The connection is over: its calls fail. What was sent into the cut may be written after the reconnect."""
        session, self._session = self._session, None
        self._trust()
        waiting = self._pipe.close()
        if session is not None:
            self._buffered = tuple(item for item in waiting if item[1] == session.write and self._was_buffered())
        calls, self._calls = self._calls, {}
        for answer in calls.values():
            if not answer.done():
                answer.set_exception(error)

    def _was_buffered(self) -> bool:
        """Whether bytes stood in the client's own buffer, which is kept, or in the kernel's, which is not."""
        return self._chance.between(Duration(0), Duration(1)) == 1

    def _process_died(self) -> None:
        """The kernel of the host closes the connection of a dead process."""
        if self._session is not None and not self._pipe.stalled:
            self._hang_up(self._session)
        self._session = None
        self._trust()
        self._stop_dialling()
        self._pipe.close()
        self._calls.clear()
        self._server.leave(self, self._host)

    def _hang_up(self, session: Session) -> None:
        """Tell the server that there is no such connection here (any more), if it can be reached."""
        self._up.send(_FRAME, session.finish)

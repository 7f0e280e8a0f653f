"""The Bus port on a real NATS server.

A connection is used once: when it ends, for whatever reason, a supervisor makes a new client after a pause with
jitter, because a nats-py client can close for good and reconnects without jitter. All waiting goes through the Clock.
Reading is by direct get and by republished subjects; there are no consumers, which would need permissions that cannot
be limited to one device, and which stay silent for many seconds after a crash of the server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final

from nats.errors import Error as NatsError

from fleet.adapters import nats_messages as messages
from fleet.adapters.nats_login import Login, LoginSource, PasswordFile, PasswordLogin, TokenLogin
from fleet.adapters.nats_wire import Frame, WireClient
from fleet.capabilities.bus import Deleted, Entry, Request
from fleet.capabilities.clock import Chance, Clock
from fleet.contracts.errors import Conflict, Disconnected, TimedOut, Unavailable
from fleet.contracts.ids import Revision
from fleet.contracts.keys import check_key, check_value
from fleet.contracts.layout import Bucket
from fleet.contracts.permissions import inbox_prefix
from fleet.contracts.time import Duration

__all__ = ["Login", "LoginSource", "NatsBus", "NatsTimings", "PasswordFile", "PasswordLogin", "TokenLogin"]

_log = logging.getLogger("fleet.bus")

_FOR_EVER: Final = 10**9
"""Seconds. The library's own timers are out of use: they would not keep the pace of the clock."""
_MAX_UNSENT: Final = 8 * 1024 * 1024
"""Bytes that may wait to be sent; beyond, writes are refused before they are sent."""
_PAGE: Final = 512
"""Messages asked for at once in a listing."""
_INBOX_SID: Final = 1


@dataclass(frozen=True, slots=True)
class NatsTimings:
    """The intervals of a connection, on the program's own clock."""

    answer: Duration = Duration.seconds(5)
    """A call without an answer fails after this."""
    dial: Duration = Duration.seconds(5)
    """A connection attempt is given up after this."""
    backoff_least: Duration = Duration.seconds(1)
    backoff_most: Duration = Duration.seconds(3)
    """The pause before the next attempt lies between the two."""
    ping: Duration = Duration.seconds(10)
    missed_pings: int = 2
    """A ping without an answer for this many intervals ends the connection."""
    leave: Duration = Duration.seconds(2)
    """How long an orderly end may take."""


class Listener:
    """A subscription: outlives connections."""

    __slots__ = ("_bus", "on_frame", "subjects")

    def __init__(self, bus: NatsBus, subjects: tuple[str, ...], on_frame: Callable[[Frame], None]) -> None:
        self._bus = bus
        self.subjects = subjects
        self.on_frame = on_frame

    def close(self) -> None:
        """End it. Nothing is delivered any more. Closing twice is harmless."""
        self._bus.forget(self)


class SessionListener:
    """Who wants to know of new sessions."""

    __slots__ = ("_bus", "callback")

    def __init__(self, bus: NatsBus, callback: Callable[[], None]) -> None:
        self._bus = bus
        self.callback = callback

    def close(self) -> None:
        """End it. Closing twice is harmless."""
        self._bus.forget_session(self)


class _Session:
    """One connection that stands: its client, and what its subscription numbers mean."""

    def __init__(self, on_inbox: Callable[[Frame], None]) -> None:
        self.ended = asyncio.Event()
        self.stands = False
        self.greeted = False
        self.client = WireClient(self._on_frame)
        self._on_sid: dict[int, Callable[[Frame], None]] = {_INBOX_SID: on_inbox}
        self._sids: dict[Listener, tuple[int, ...]] = {}
        self._last_sid = _INBOX_SID

    def subscribe(self, listener: Listener) -> None:
        """Ask the server for a subscription's subjects."""
        first = self._last_sid + 1
        self._last_sid += len(listener.subjects)
        sids = tuple(range(first, self._last_sid + 1))
        self._sids[listener] = sids
        for sid, subject in zip(sids, listener.subjects, strict=True):
            self._on_sid[sid] = listener.on_frame
            self.client.say(f"SUB {subject} {sid}\r\n".encode())

    def unsubscribe(self, listener: Listener) -> None:
        """Ask for them no more."""
        for sid in self._sids.pop(listener, ()):
            del self._on_sid[sid]
            self.client.say(f"UNSUB {sid}\r\n".encode())

    async def on_error(self, error: Exception) -> None:
        """What the library reports beside any call: refused subscriptions and publishes, above all."""
        if self.stands:
            _log.warning("the bus reports: %s", error)

    def _on_frame(self, frame: Frame) -> None:
        handler = self._on_sid.get(frame.sid)
        if handler is None:
            return
        try:
            handler(frame)
        except Exception as error:  # noqa: BLE001 - the loop's handler is told; raising would end the library's read loop
            message = f"a callback of the bus raised {type(error).__name__}"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})


class NatsBus:
    """The Bus port. `start` it on a running loop, inside the task group or the main function of the program.

    Args:
        url: `nats://host:port`.
        name: the client as the server knows it; decides the subjects of its answers.
        login: read at each connection.
    """

    def __init__(
        self,
        url: str,
        name: str,
        login: LoginSource,
        clock: Clock,
        chance: Chance,
        timings: NatsTimings = NatsTimings(),
    ) -> None:
        self._url = url
        self._name = name
        self._login = login
        self._clock = clock
        self._chance = chance
        self._timings = timings
        self._inbox = f"{inbox_prefix(name)}.{chance.token()}"
        self._session: _Session | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._listeners: dict[Listener, None] = {}
        self._on_session: dict[SessionListener, None] = {}
        self._calls: dict[bytes, asyncio.Queue[Frame | Disconnected]] = {}
        self._last_call = 0
        self._complained = False

    def start(self) -> None:
        """Begin to connect, and keep at it. Nothing happens when it was started before."""
        if self._supervisor is None:
            self._supervisor = asyncio.get_running_loop().create_task(self._supervise(), name="bus supervisor")

    # --- the port -----------------------------------------------------------------------------------

    def on_session(self, callback: Callable[[], None]) -> SessionListener:
        """As the port says."""
        listener = SessionListener(self, callback)
        self._on_session[listener] = None
        if self._session is not None and self._session.greeted:
            asyncio.get_running_loop().call_soon(self._greet, listener, self._session)
        return listener

    def is_connected(self) -> bool:
        """As the port says."""
        return self._session is not None

    async def put(self, bucket: Bucket, key: str, value: bytes) -> Revision:
        """As the port says."""
        check_value(value)
        return await self._write(bucket, key, value, messages.PUT, None)

    def post(self, bucket: Bucket, key: str, value: bytes) -> None:
        """As the port says. The server stores a message without a reply subject and acknowledges nothing."""
        check_key(key)
        check_value(value)
        self._standing().client.say(messages.publish(messages.value_subject(bucket, key), "", value))

    async def update(self, bucket: Bucket, key: str, value: bytes, last: Revision) -> Revision:
        """As the port says. The server counts a delete marker as an entry, so with `last` 0 one is looked up."""
        check_value(value)
        try:
            return await self._write(bucket, key, value, messages.PUT, last)
        except Conflict:
            if last != 0:
                raise
            newest = await self.get(bucket, key)
            if not isinstance(newest, Deleted):
                raise
            return await self._write(bucket, key, value, messages.PUT, newest.revision)

    async def delete(self, bucket: Bucket, key: str, last: Revision | None = None) -> None:
        """As the port says."""
        await self._write(bucket, key, b"", messages.DELETE, last)

    async def get(self, bucket: Bucket, key: str) -> Entry | None:
        """As the port says."""
        check_key(key)
        frame = await self._call(messages.direct_get_subject(bucket, key), b"", self._timings.answer)
        return messages.gotten(frame, bucket, key)

    async def entries(self, bucket: Bucket, prefix: str = "") -> tuple[Entry, ...]:
        """As the port says. Read in pages; what is written meanwhile moves to the end and is read there."""
        found: dict[str, Entry] = {}
        if prefix:
            check_key(prefix)
            own = await self.get(bucket, prefix)
            if own is not None:
                found[prefix] = own
        start, left = 1, 1
        while left:
            page, left = await self._page(bucket, prefix, start)
            for entry in page:
                found[entry.key] = entry
                start = entry.revision + 1
            if not page:
                break
        return tuple(sorted(found.values(), key=_revision))

    def listen(self, bucket: Bucket, prefix: str, callback: Callable[[Entry], None]) -> Listener:
        """As the port says."""
        base = f"fleet.{bucket.value}"
        if prefix:
            check_key(prefix)
        subjects = (f"{base}.{prefix}", f"{base}.{prefix}.>") if prefix else (f"{base}.>",)

        def on_frame(frame: Frame) -> None:
            entry = messages.republished(frame, bucket)
            if entry is not None:
                callback(entry)

        return self._subscribe(Listener(self, subjects, on_frame))

    async def request(self, subject: str, payload: bytes, timeout: Duration) -> bytes:
        """As the port says."""
        check_value(payload)
        frame = await self._call(subject, payload, timeout)
        if messages.is_no_responders(frame):
            raise Unavailable(f"nobody serves {subject}")
        return frame.payload

    def serve(self, subject: str, handler: Callable[[Request], bytes | None]) -> Listener:
        """As the port says."""

        def on_frame(frame: Frame) -> None:
            session = self._session
            reply = messages.reply_subject(frame)
            answer = handler(Request(frame.subject.decode("utf-8", "surrogateescape"), frame.payload))
            if answer is not None and reply is not None and session is not None:
                session.client.say(messages.publish(reply, "", answer))

        return self._subscribe(Listener(self, (subject,), on_frame))

    async def close(self) -> None:
        """As the port says."""
        self._listeners.clear()
        self._on_session.clear()
        supervisor, self._supervisor = self._supervisor, None
        session = self._session
        self._lose(Disconnected("the client was closed"))
        if session is not None:
            await self._leave(session)
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.wait((supervisor,))

    # --- for the subscriptions and for the administration -------------------------------------------

    def forget(self, listener: Listener) -> None:
        """End a subscription."""
        if listener in self._listeners:
            del self._listeners[listener]
            if self._session is not None:
                self._session.unsubscribe(listener)

    def forget_session(self, listener: SessionListener) -> None:
        """End a notification of sessions."""
        self._on_session.pop(listener, None)

    async def call_api(self, subject: str, payload: bytes) -> Frame:
        """Ask the server's own API. Raises: Unavailable, TimedOut, Disconnected."""
        return await self._call(subject, payload, self._timings.answer)

    def _subscribe(self, listener: Listener) -> Listener:
        self._listeners[listener] = None
        if self._session is not None:
            self._session.subscribe(listener)
        return listener

    def _greet(self, listener: SessionListener, session: _Session) -> None:
        if listener in self._on_session and session is self._session:
            listener.callback()

    # --- calls --------------------------------------------------------------------------------------

    async def _write(self, bucket: Bucket, key: str, value: bytes, header: bytes, last: int | None) -> Revision:
        check_key(key)
        subject = messages.value_subject(bucket, key)
        frame = await self._call(subject, value, self._timings.answer, messages.with_expected(header, last))
        return messages.acknowledged(frame)

    async def _call(self, subject: str, payload: bytes, timeout: Duration, header: bytes = b"") -> Frame:
        call, answers = self._ask(subject, payload, header)
        try:
            async with self._clock.timeout(timeout):
                return await _next(answers)
        except TimeoutError:
            raise TimedOut(f"no answer to {subject} in {timeout}") from None
        finally:
            del self._calls[call]

    async def _page(self, bucket: Bucket, prefix: str, start: int) -> tuple[list[Entry], int]:
        """One page of a listing, and how many messages are left after it."""
        request = messages.listing_request(bucket, prefix, start, _PAGE)
        call, answers = self._ask(messages.listing_subject(bucket), request, b"")
        page: list[Entry] = []
        try:
            async with self._clock.timeout(self._timings.answer):
                while True:
                    match messages.listed(await _next(answers), bucket):
                        case int(left):
                            return page, left
                        case entry:
                            page.append(entry)
        except TimeoutError:
            raise TimedOut(f"no end of a listing of {bucket} in {self._timings.answer}") from None
        finally:
            del self._calls[call]

    def _ask(self, subject: str, payload: bytes, header: bytes) -> tuple[bytes, asyncio.Queue[Frame | Disconnected]]:
        session = self._standing()
        self._last_call += 1
        call = b"%d" % self._last_call
        answers: asyncio.Queue[Frame | Disconnected] = asyncio.Queue()
        self._calls[call] = answers
        session.client.say(messages.publish(subject, f"{self._inbox}.{call.decode()}", payload, header))
        return call, answers

    def _standing(self) -> _Session:
        session = self._session
        if session is None:
            raise Unavailable("not connected to the bus")
        if session.client.unsent > _MAX_UNSENT:
            raise Unavailable("too much waits to be sent to the bus already")
        return session

    def _on_inbox(self, frame: Frame) -> None:
        """An answer. A late or a second one, or one that nobody asked for, finds no call and is ignored."""
        answers = self._calls.get(frame.subject.rpartition(b".")[2])
        if answers is not None:
            answers.put_nowait(frame)

    # --- the connection -----------------------------------------------------------------------------

    async def _supervise(self) -> None:
        while True:
            session = _Session(self._on_inbox)
            try:
                await self._dial(session)
                await self._keep(session)
            except Exception as error:  # noqa: BLE001 - said once per outage; whatever it was, the next client is a new one
                self._complain(error)
            finally:
                self._drop(session)
            await self._leave(session)
            pause = self._chance.between(self._timings.backoff_least, self._timings.backoff_most)
            await self._clock.sleep(pause)

    async def _dial(self, session: _Session) -> None:
        """Connect, subscribe, and have the server confirm that it has taken both in."""
        user, password, token = _credentials(await self._login.read())
        connecting = session.client.connect(
            servers=[self._url],
            name=self._name,
            user=user,
            password=password,
            token=token,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=_FOR_EVER,
            ping_interval=_FOR_EVER,
            error_cb=session.on_error,
        )
        await self._within(connecting, self._timings.dial)
        if not session.client.on_deaf(session.ended.set):
            raise Unavailable("the server ended the connection at once")
        session.client.say(f"SUB {self._inbox}.* {_INBOX_SID}\r\n".encode())
        for listener in self._listeners:
            session.subscribe(listener)
        self._session, session.stands = session, True
        await self._within(session.client.flush(timeout=_FOR_EVER), self._timings.dial)

    async def _keep(self, session: _Session) -> None:
        """Return when the connection has ended."""
        self._complained = False
        session.greeted = True
        for listener in tuple(self._on_session):
            self._greet(listener, session)
        pinging = asyncio.get_running_loop().create_task(self._ping(session), name="bus pings")
        try:
            await session.ended.wait()
        finally:
            pinging.cancel()

    async def _ping(self, session: _Session) -> None:
        """End the session when the server is not heard any more."""
        ping = self._timings.ping
        try:
            while True:
                await self._clock.sleep(ping)
                pong = session.client.flush(timeout=_FOR_EVER)
                await self._within(pong, ping * self._timings.missed_pings)
        except (NatsError, OSError, TimeoutError):
            session.ended.set()

    async def _within(self, work: Coroutine[object, object, None], limit: Duration) -> None:
        """Run a coroutine of the library as a task of its own: some of them swallow the cancellation of their caller.

        Raises:
            TimeoutError, and whatever the work raises.
        """
        task = asyncio.get_running_loop().create_task(work)
        try:
            async with self._clock.timeout(limit):
                await asyncio.wait((task,))
        finally:
            if not task.done():
                task.cancel()
                task.add_done_callback(_forget)
        task.result()

    def _drop(self, session: _Session) -> None:
        session.stands = session.greeted = False
        session.client.abort()
        if session is self._session:
            self._lose(Disconnected("the connection to the bus ended"))

    def _lose(self, error: Disconnected) -> None:
        self._session = None
        for answers in self._calls.values():
            answers.put_nowait(error)

    async def _leave(self, session: _Session) -> None:
        """Close the library's client: what was said is sent before, if the connection still stands."""
        try:
            await self._within(session.client.close(), self._timings.leave)
        except Exception as error:  # noqa: BLE001 - logged; the client is thrown away, and a new one must follow
            _log.debug("the connection to the bus could not be closed in order: %s", type(error).__name__)
        finally:
            session.client.abort()

    def _complain(self, error: Exception) -> None:
        """Say once per outage why there is no connection. Never the login: the library's errors do not hold it."""
        if not self._complained:
            self._complained = True
            _log.warning("no connection to the bus: %s: %s", type(error).__name__, error)


def _credentials(login: Login) -> tuple[str | None, str | None, str | None]:
    """User, password and token, as the library wants them."""
    match login:
        case PasswordLogin(user, password):
            return user, password, None
        case TokenLogin(text):
            return None, None, text


def _forget(task: asyncio.Task[None]) -> None:
    """Take note of how an abandoned task ended, so that nobody else has to."""
    if not task.cancelled() and task.exception() is not None:
        _log.debug("an abandoned step of the bus client ended with %s", type(task.exception()).__name__)


async def _next(answers: asyncio.Queue[Frame | Disconnected]) -> Frame:
    answer = await answers.get()
    if isinstance(answer, Disconnected):
        raise answer
    return answer


def _revision(entry: Entry) -> int:
    return entry.revision

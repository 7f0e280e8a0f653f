"""The Bus port on a real NATS server, for as long as a program lives.

What the server and nats-py do to a connection, and what becomes of it here:

- A client that closed for good, whatever closed it (an error the server reports, the end of its login, silence, a
  slow consumer that the server drops, an exception of the login's source): a supervisor makes a new client after a
  pause with jitter (`NatsTimings.backoff_least` to `backoff_most`). Subscriptions come back by themselves, and
  `on_session` tells the program to read everything again: what was pushed meanwhile is lost.
- A login that ends: a successor stands before it does (`NatsTimings.renew_ahead`), and is a new session as well.
- Messages that come faster than they are read: there is no queue in this client that could drop some. The server
  drops the whole connection when too much waits for it: a new session, and a new reading.
- A call without an answer is `TimedOut`, one whose connection ended is `Disconnected`: both are `Unknown`, and whoever
  wrote looks what stands there (see the port).
- What the client may not do raises `NotPermitted` as soon as the server has said so; for a subscription it is kept in
  `refused`.
- What would cost the connection is refused before it is sent: keys and subjects that are no such thing, values over
  the limit, lines over the server's limit.

Reading is by direct get and by republished subjects; there are no consumers, which would need permissions that cannot
be limited to one device, and which stay silent for many seconds after a crash of the server.
All waiting goes through the Clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from fleet.adapters import nats_messages as messages
from fleet.adapters.nats_login import Login, LoginSource, PasswordFile, PasswordLogin, TokenLogin
from fleet.adapters.nats_session import Listener, Session
from fleet.adapters.nats_supervisor import NatsTimings, Supervisor
from fleet.adapters.nats_wire import Frame
from fleet.capabilities.bus import Deleted, Entry, Request
from fleet.capabilities.clock import Chance, Clock
from fleet.contracts.errors import Conflict, TimedOut, Unavailable
from fleet.contracts.ids import Revision
from fleet.contracts.keys import check_key, check_subject, check_value
from fleet.contracts.layout import Bucket
from fleet.contracts.time import Duration

__all__ = [
    "Login",
    "LoginSource",
    "NatsBus",
    "NatsTimings",
    "PasswordFile",
    "PasswordLogin",
    "TokenLogin",
]

_PAGE: Final = 512
"""Messages asked for at once in a listing."""


class SessionListener:
    """Who wants to know of new sessions."""

    __slots__ = ("_bus", "callback")

    refused = None
    """Nobody is refused to know."""

    def __init__(self, bus: NatsBus, callback: Callable[[], None]) -> None:
        self._bus = bus
        self.callback = callback

    def close(self) -> None:
        """End it. Closing twice is harmless."""
        self._bus.forget_session(self)


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
        self._clock = clock
        self._timings = timings
        self._on_session: dict[SessionListener, None] = {}
        self._supervisor = Supervisor(url, name, login, clock, chance, timings, self._stood)

    def start(self) -> None:
        """Begin to connect, and keep at it. Nothing happens when it was started before."""
        self._supervisor.start()

    # --- the port -----------------------------------------------------------------------------------

    def on_session(self, callback: Callable[[], None]) -> SessionListener:
        """As the port says."""
        listener = SessionListener(self, callback)
        self._on_session[listener] = None
        session = self._supervisor.session
        if session is not None:
            asyncio.get_running_loop().call_soon(self._greet, listener, session)
        return listener

    def is_connected(self) -> bool:
        """As the port says."""
        return self._supervisor.session is not None

    async def may_log_in(self) -> bool:
        """As the port says."""
        return await self._supervisor.may_log_in()

    async def put(self, bucket: Bucket, key: str, value: bytes) -> Revision:
        """As the port says."""
        check_key(key)
        check_value(value)
        return await self._write(bucket, key, value, messages.PUT, None)

    def post(self, bucket: Bucket, key: str, value: bytes) -> None:
        """As the port says. The server stores a message without a reply subject and acknowledges nothing."""
        check_key(key)
        check_value(value)
        self._standing().publish(messages.value_subject(bucket, key), value)

    async def update(self, bucket: Bucket, key: str, value: bytes, last: Revision) -> Revision:
        """As the port says. The server counts a delete marker as an entry, so with `last` 0 one is looked up."""
        check_key(key)
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

        return self._subscribe(subjects, on_frame)

    async def request(self, subject: str, payload: bytes, timeout: Duration) -> bytes:
        """As the port says."""
        check_subject(subject)
        check_value(payload)
        frame = await self._call(subject, payload, timeout)
        if messages.is_no_responders(frame):
            raise Unavailable(f"nobody serves {subject}")
        return frame.payload

    def serve(self, subject: str, handler: Callable[[Request], bytes | None]) -> Listener:
        """As the port says."""
        check_subject(subject.removesuffix(".*"))

        def on_frame(frame: Frame) -> None:
            session = self._supervisor.session
            reply = messages.reply_subject(frame)
            answer = handler(Request(frame.subject.decode("utf-8", "surrogateescape"), frame.payload))
            if answer is not None and reply is not None and session is not None:
                session.client.say(messages.publish(reply, "", answer))

        return self._subscribe((subject,), on_frame)

    async def close(self) -> None:
        """As the port says."""
        self._on_session.clear()
        await self._supervisor.close()

    # --- for the subscriptions and for the administration -------------------------------------------

    def forget_session(self, listener: SessionListener) -> None:
        """End a notification of sessions."""
        self._on_session.pop(listener, None)

    async def call_api(self, subject: str, payload: bytes) -> Frame:
        """Ask the server's own API. Raises: Unavailable, NotPermitted, TimedOut, Disconnected."""
        return await self._call(subject, payload, self._timings.answer)

    async def gather(self, subject: str, payload: bytes, more: Duration) -> tuple[Frame, ...]:
        """Ask and take every answer, until none has come for the length `more`. At least one has to come.

        Raises: Unavailable, NotPermitted, TimedOut, Disconnected.
        """
        session = self._standing()
        call = session.ask(subject, payload, b"")
        found: list[Frame] = []
        try:
            while True:
                async with self._clock.timeout(more if found else self._timings.answer):
                    found.append(await call.next())
        except TimeoutError:
            if not found:
                raise TimedOut(f"no answer to {subject} in {self._timings.answer}") from None
            return tuple(found)
        finally:
            session.forget(call)

    def hear(self, subject: str, queue: str, on_frame: Callable[[Frame], None]) -> Listener:
        """Take a share of what comes on a subject, one message for each group of programs. Must not raise."""
        return self._subscribe((subject,), on_frame, queue)

    def say(self, subject: str, payload: bytes) -> None:
        """Publish without waiting. Raises: Unavailable, TooLarge."""
        self._standing().publish(subject, payload)

    def _subscribe(self, subjects: tuple[str, ...], on_frame: Callable[[Frame], None], queue: str = "") -> Listener:
        listener = Listener(subjects, on_frame, self._supervisor.unsubscribe, queue)
        self._supervisor.subscribe(listener)
        return listener

    def _stood(self, session: Session) -> None:
        for listener in tuple(self._on_session):
            self._greet(listener, session)

    def _greet(self, listener: SessionListener, session: Session) -> None:
        if listener in self._on_session and session is self._supervisor.session:
            listener.callback()

    # --- calls --------------------------------------------------------------------------------------

    async def _write(self, bucket: Bucket, key: str, value: bytes, header: bytes, last: int | None) -> Revision:
        check_key(key)
        subject = messages.value_subject(bucket, key)
        frame = await self._call(subject, value, self._timings.answer, messages.with_expected(header, last))
        return messages.acknowledged(frame)

    async def _call(self, subject: str, payload: bytes, timeout: Duration, header: bytes = b"") -> Frame:
        session = self._standing()
        call = session.ask(subject, payload, header)
        try:
            async with self._clock.timeout(timeout):
                return await call.next()
        except TimeoutError:
            raise TimedOut(f"no answer to {subject} in {timeout}") from None
        finally:
            session.forget(call)

    async def _page(self, bucket: Bucket, prefix: str, start: int) -> tuple[list[Entry], int]:
        """One page of a listing, and how many messages are left after it."""
        request = messages.listing_request(bucket, prefix, start, _PAGE)
        session = self._standing()
        call = session.ask(messages.listing_subject(bucket), request, b"")
        page: list[Entry] = []
        try:
            async with self._clock.timeout(self._timings.answer):
                while True:
                    match messages.listed(await call.next(), bucket):
                        case int(left):
                            return page, left
                        case entry:
                            page.append(entry)
        except TimeoutError:
            raise TimedOut(f"no end of a listing of {bucket} in {self._timings.answer}") from None
        finally:
            session.forget(call)

    def _standing(self) -> Session:
        session = self._supervisor.session
        if session is None:
            raise Unavailable("not connected to the bus")
        return session


def _revision(entry: Entry) -> int:
    return entry.revision

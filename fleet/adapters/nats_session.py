"""One connection to a NATS server that stands: its calls, its subscriptions, and what the server says no to.

A session is used once. Its calls have an inbox of their own, so that two sessions of one client can overlap while one
takes over from the other. The server reports what a client may not do beside any call and never answers the call, so
a refusal is matched to the calls and subscriptions by its subject: all of one subject share one fate in a session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from fleet.adapters import nats_messages as messages
from fleet.adapters.nats_wire import Frame, WireClient
from fleet.contracts.errors import Disconnected, FleetError, NotPermitted, Unavailable
from fleet.contracts.time import Instant

_log = logging.getLogger("fleet.bus")

MAX_UNSENT: Final = 8 * 1024 * 1024
"""Bytes that may wait to be sent; beyond, writes are refused before they are sent."""
_INBOX_SID: Final = 1


class Listener:
    """A subscription: outlives sessions."""

    __slots__ = ("_forget", "on_frame", "queue", "refused", "subjects")

    def __init__(
        self,
        subjects: tuple[str, ...],
        on_frame: Callable[[Frame], None],
        forget: Callable[[Listener], None],
        queue: str = "",
    ) -> None:
        self._forget = forget
        self.queue = queue
        """The group of programs of which one gets each message; empty when this one gets them all."""
        self.subjects = subjects
        self.on_frame = on_frame
        self.refused: NotPermitted | None = None
        """Why nothing comes in this session, once the server has said so."""

    def close(self) -> None:
        """End it. Nothing is delivered any more. Closing twice is harmless."""
        self._forget(self)


class Call:
    """Something asked: what was asked, and what has come in answer so far."""

    __slots__ = ("_answers", "number", "subject")

    def __init__(self, number: bytes, subject: str) -> None:
        self.number = number
        self.subject = subject
        self._answers: asyncio.Queue[Frame | FleetError] = asyncio.Queue()

    def put(self, answer: Frame | FleetError) -> None:
        """It was answered, or will not be."""
        self._answers.put_nowait(answer)

    async def next(self) -> Frame:
        """The next message in answer. Raises: Disconnected, NotPermitted."""
        answer = await self._answers.get()
        if isinstance(answer, FleetError):
            raise answer
        return answer


class Session:
    """One connection: its client, its calls, and what its subscription numbers mean.

    Args:
        inbox: a subject below which it gets its answers, and no other session.
    """

    def __init__(self, inbox: str) -> None:
        self.ended = asyncio.Event()
        self.client = WireClient(self._on_frame, self._on_refusal)
        self.stands = False
        """Whether it is the one in use: what is pushed to any other is not delivered."""
        self.root = ""
        """What stands before every subject but the inbox on the wire (ADR-030)."""
        self.renew_at: Instant | None = None
        """When a successor with a new login is due."""
        self._inbox = inbox
        self._calls: dict[bytes, Call] = {}
        self._last_call = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._listeners: dict[int, Listener] = {}
        self._sids: dict[Listener, tuple[int, ...]] = {}
        self._last_sid = _INBOX_SID

    def open_inbox(self) -> None:
        """Ask for the answers to calls."""
        self.client.say(messages.subscribe(f"{self._inbox}.*", _INBOX_SID))

    def subscribe(self, listener: Listener) -> None:
        """Ask the server for a subscription's subjects. Raises: TooLarge."""
        first = self._last_sid + 1
        self._last_sid += len(listener.subjects)
        self._sids[listener] = tuple(range(first, self._last_sid + 1))
        listener.refused = None
        for sid, subject in zip(self._sids[listener], listener.subjects, strict=True):
            self._listeners[sid] = listener
            self.client.say(messages.subscribe(self.root + subject, sid, listener.queue))

    def unsubscribe(self, listener: Listener) -> None:
        """Ask for them no more."""
        for sid in self._sids.pop(listener, ()):
            del self._listeners[sid]
            self.client.say(messages.unsubscribe(sid))

    def say(self, line: bytes) -> None:
        """Send a line of the protocol. Raises: Unavailable when too much waits to be sent."""
        if self.client.unsent > MAX_UNSENT:
            raise Unavailable("too much waits to be sent to the bus already")
        self.client.say(line)

    def publish(self, subject: str, payload: bytes) -> None:
        """Send something that wants no answer. Raises: Unavailable, TooLarge."""
        self.say(messages.publish(self.root + subject, "", payload))

    def ask(self, subject: str, payload: bytes, header: bytes) -> Call:
        """Send something that wants an answer; `forget` the call in the end. Raises: Unavailable, TooLarge."""
        self._last_call += 1
        call = Call(b"%d" % self._last_call, subject)
        self.say(messages.publish(self.root + subject, f"{self._inbox}.{self._last_call}", payload, header))
        self._calls[call.number] = call
        self._quiet.clear()
        return call

    def forget(self, call: Call) -> None:
        """Nobody waits for the answer any more."""
        self._calls.pop(call.number, None)
        if not self._calls:
            self._quiet.set()

    async def quiet(self) -> None:
        """Return when no call waits for its answer."""
        await self._quiet.wait()

    def lose(self, error: Disconnected) -> None:
        """No answer will come any more."""
        self.stands = False
        for call in self._calls.values():
            call.put(error)

    async def on_error(self, error: Exception) -> None:
        """What the library reports beside any call: refused subscriptions and publishes, above all."""
        if self.stands:
            _log.warning("the bus reports: %s", error)

    def _on_frame(self, frame: Frame) -> None:
        if frame.sid == _INBOX_SID:
            call = self._calls.get(frame.subject.rpartition(b".")[2])
            if call is not None:  # A late or a second answer, or one that nobody asked for, finds no call.
                call.put(frame)
        elif self.stands and frame.sid in self._listeners:
            self._deliver(self._listeners[frame.sid], frame)

    def _deliver(self, listener: Listener, frame: Frame) -> None:
        if self.root and frame.subject.startswith(self.root.encode()):
            frame = replace(frame, subject=frame.subject[len(self.root) :])
        try:
            listener.on_frame(frame)
        except Exception as error:  # noqa: BLE001 - the loop's handler is told; raising would end the library's read loop
            message = f"a callback of the bus raised {type(error).__name__}"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})

    def _on_refusal(self, text: str) -> None:
        """The server does not permit something: tell whoever waits for it."""
        match messages.forbidden(text):
            case ("publish", wire):
                subject = wire.removeprefix(self.root)
                for call in self._calls.values():
                    if call.subject == subject:
                        call.put(NotPermitted(f"not permitted to publish to {subject}"))
            case ("subscription", wire):
                subject = wire.removeprefix(self.root)
                for listener in self._sids:
                    if subject in listener.subjects:
                        listener.refused = NotPermitted(f"not permitted to subscribe to {subject}")
            case _:
                return

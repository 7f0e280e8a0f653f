"""The auth callout's hands: answer the server in time or not at all, know the enrolments, cut who has to go.

- The server asks once for each connection attempt and waits for `authorization.timeout` (one second). Questions stand
  in a bounded line; one that waited too long is thrown away unanswered and unread, so that a storm costs nothing but
  the logins it delays. With several programs in the server's queue group each question comes to one of them.
- Questions are taken only while this program knows what it says: after it has read every enrolment and the provider's
  keys, and for as long as the last reading of all enrolments is not too old. Otherwise another program is asked.
- Enrolments come by pushes at once, and by a reading of the whole bucket at each session and now and then.
- A revocation is known first and acted upon then: who is cut and comes back is refused. The connections are looked
  through again a little later, for a login that was decided just before, and at every reading of the whole bucket.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field

from fleet.capabilities.bus import Bus, Entry, Subscription
from fleet.capabilities.callout import CalloutWire, LoginRequest
from fleet.capabilities.clock import Clock
from fleet.capabilities.identity import SigningKeys
from fleet.contracts.errors import FleetError, InvalidValue
from fleet.contracts.layout import Bucket, Invalid
from fleet.contracts.time import ZERO, Duration, Instant
from fleet.identity.callout import keys as signing
from fleet.identity.callout.brain import Allow, Refuse, decide, has_to_end
from fleet.identity.callout.complaints import Complaints
from fleet.identity.callout.keys import KeyCache, KeyTimings
from fleet.identity.callout.roster import Roster
from fleet.identity.callout.tokens import TokenRules, UnknownKey, verify

logger = logging.getLogger("fleet.callout")


@dataclass(frozen=True, slots=True)
class CalloutPorts:
    """What the callout needs of the world."""

    clock: Clock
    wire: CalloutWire
    bus: Bus
    keys: SigningKeys


@dataclass(frozen=True, slots=True)
class CalloutTimings:
    """The intervals of the callout.

    The bound of a revocation follows from them: `second_look` and what a listing takes after it is written, if the push
    arrives; `reread` more, if it is lost.
    """

    answer: Duration = Duration.millis(700)
    """A question that has waited for this long is not answered. Less than the server's `authorization.timeout`."""
    line: int = 2048
    """Questions that may wait; beyond, the oldest is dropped, which is the first that would be too old."""
    reread: Duration = Duration.seconds(30)
    """Between two readings of all enrolments."""
    trust: Duration = Duration.minutes(2)
    """Questions are left to others when all enrolments were read longer ago than this."""
    second_look: Duration = Duration.seconds(2)
    """Connections are looked through once more after this, whatever came of it the first time. More than the server's
    `authorization.timeout`: a login that was decided before is a connection by then."""
    retry: Duration = Duration.seconds(2)
    """The pause after a reading of the enrolments that failed."""
    keys: KeyTimings = field(default_factory=KeyTimings)


@dataclass(slots=True)
class CalloutCounts:
    """What the callout has done since it began. For its log, and for whoever measures it."""

    allowed: int = 0
    refused: int = 0
    dropped: int = 0
    cut: int = 0
    longest_line: int = 0

    def __str__(self) -> str:
        return (
            f"{self.allowed} allowed, {self.refused} refused, {self.dropped} dropped unanswered, {self.cut} cut; "
            f"the longest line was {self.longest_line}"
        )


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: LoginRequest
    since: Instant


async def run_callout(
    ports: CalloutPorts,
    rules: TokenRules,
    stop: asyncio.Event,
    timings: CalloutTimings = CalloutTimings(),
    counts: CalloutCounts | None = None,
) -> None:
    """Run until `stop` is set. Whoever made the ports closes them.

    Raises:
        ExceptionGroup: a defect. It ends the process.
    """
    await _Hands(ports, rules, timings, counts or CalloutCounts()).run(stop)


class _Hands:
    def __init__(self, ports: CalloutPorts, rules: TokenRules, timings: CalloutTimings, counts: CalloutCounts) -> None:
        self._clock, self._wire, self._bus, self._provider = ports.clock, ports.wire, ports.bus, ports.keys
        self._rules = rules
        self._timings = timings
        self._counts = counts
        self._roster = Roster()
        self._cache = KeyCache(timings.keys)
        self._line: deque[_Waiting] = deque(maxlen=timings.line)
        self._waiting = asyncio.Event()
        self._parked: deque[_Waiting] = deque(maxlen=timings.line)
        self._serving: Subscription | None = None
        self._read_at: Instant | None = None
        self._pushed: list[Entry] = []
        self._to_read = asyncio.Event()
        self._to_cut = asyncio.Event()
        self._new_keys = asyncio.Event()
        self._complaints = Complaints(logger)
        self._group = asyncio.TaskGroup()

    async def run(self, stop: asyncio.Event) -> None:
        """Start everything, wait for the end, end everything. Raises: ExceptionGroup, with the defect inside."""
        async with self._group as group:
            listening = self._bus.listen(Bucket.IDENTITY, "", self._on_push)
            sessions = self._bus.on_session(self._to_read.set)
            work: tuple[Coroutine[object, object, None], ...] = (
                self._answer_questions(),
                self._read_enrolments(),
                self._read_keys(),
                self._cut_connections(),
                self._watch_the_age(),
            )
            tasks = [group.create_task(item) for item in work]
            try:
                await stop.wait()
            finally:
                self._leave()
                listening.close()
                sessions.close()
                for task in tasks:
                    task.cancel()

    # --- questions

    def _on_question(self, request: LoginRequest) -> None:
        if len(self._line) == self._line.maxlen:
            self._counts.dropped += 1
        self._line.append(_Waiting(request, self._clock.monotonic()))
        self._counts.longest_line = max(self._counts.longest_line, len(self._line))
        self._waiting.set()

    async def _answer_questions(self) -> None:
        while True:
            while self._line:
                self._take(self._line.popleft())
                await self._clock.sleep(ZERO)  # What has arrived meanwhile gets its time of arrival.
            self._waiting.clear()
            await self._waiting.wait()

    def _take(self, waiting: _Waiting) -> None:
        """Answer a question, or throw it away because it is too old for an answer."""
        keys = self._cache.keys
        if keys is None or self._clock.monotonic() - waiting.since >= self._timings.answer:
            self._counts.dropped += 1
            return
        try:
            shown = waiting.request.read()
        except InvalidValue as error:
            self._counts.dropped += 1
            self._say(f"a question could not be read: {error}")
            return
        verification = verify(shown.token, keys, self._rules, self._clock.wall())
        if isinstance(verification, UnknownKey) and self._may_be_new(waiting):
            return
        match decide(verification, self._roster):
            case Allow(admission=admission):
                self._counts.allowed += 1
                waiting.request.allow(admission)
            case Refuse(reason=reason):
                self._counts.refused += 1
                waiting.request.refuse()
                self._say(f"refused {shown.client}: {reason}")

    def _may_be_new(self, waiting: _Waiting) -> bool:
        """Put a question aside until the provider was asked for its keys, unless it was asked just now."""
        if not self._cache.may_ask(self._clock.monotonic()):
            return False
        self._parked.append(waiting)
        self._new_keys.set()
        return True

    def _say(self, text: str) -> None:
        self._complaints.say(text, self._clock.monotonic())

    # --- keys

    async def _read_keys(self) -> None:
        while True:
            await self._fetch_keys()
            self._new_keys.clear()
            self._line.extend(self._parked)
            self._parked.clear()
            self._waiting.set()
            self._decide_to_serve()
            await _within(self._clock, self._cache.next_regular(), self._new_keys)

    async def _fetch_keys(self) -> None:
        try:
            self._cache.answered(signing.parse(await self._provider.fetch()))
        except FleetError as error:
            self._say(f"the provider's keys could not be read, those read last stay in use: {error}")
        finally:
            self._cache.asked(self._clock.monotonic())

    # --- enrolments

    def _on_push(self, entry: Entry) -> None:
        self._pushed.append(entry)
        self._report(self._roster.apply(entry))
        self._to_cut.set()

    async def _read_enrolments(self) -> None:
        while True:
            self._to_read.clear()
            pause = self._timings.reread if await self._read_all() else self._timings.retry
            self._decide_to_serve()
            await _within(self._clock, pause, self._to_read)

    async def _read_all(self) -> bool:
        """Read the whole bucket; what is pushed meanwhile is newer."""
        began = self._clock.monotonic()
        self._pushed.clear()
        try:
            entries = await self._bus.entries(Bucket.IDENTITY)
        except FleetError as error:
            self._say(f"the enrolments could not be read: {error}")
            return False
        self._report(self._roster.replace(entries))
        for entry in self._pushed:
            self._report(self._roster.apply(entry))
        self._read_at = began
        self._to_cut.set()
        return True

    def _report(self, unreadable: tuple[Invalid, ...]) -> None:
        for item in unreadable:
            logger.warning("the enrolment under %r cannot be read, it admits nobody: %s", item.key, item.reason)

    # --- whether to answer

    async def _watch_the_age(self) -> None:
        while True:
            await self._clock.sleep(self._timings.retry)
            self._decide_to_serve()

    def _decide_to_serve(self) -> None:
        now = self._clock.monotonic()
        knows = self._cache.keys is not None and self._read_at is not None
        fresh = self._read_at is not None and now - self._read_at < self._timings.trust
        if knows and fresh and self._serving is None:
            self._serving = self._wire.serve(self._on_question)
            logger.info("answers for %s devices", self._roster.devices)
        elif not fresh and self._serving is not None:
            self._leave()
            logger.warning("leaves questions to others: the enrolments were last read too long ago")

    def _leave(self) -> None:
        if self._serving is not None:
            self._serving.close()
            self._serving = None
        self._line.clear()

    # --- connections

    async def _cut_connections(self) -> None:
        while True:
            await self._to_cut.wait()
            self._to_cut.clear()
            looked = await self._cut()
            await _within(self._clock, self._timings.second_look, self._to_cut)
            if not (looked and await self._cut()):
                self._to_cut.set()

    async def _cut(self) -> bool:
        """End every connection that would not be let in any more."""
        try:
            for connection in await self._wire.connected():
                if has_to_end(connection, self._roster):
                    await self._wire.end(connection)
                    self._counts.cut += 1
                    logger.info("cut a connection of %s", connection.device)
        except FleetError as error:
            self._say(f"the connections could not be looked through: {error}")
            return False
        return True


async def _within(clock: Clock, length: Duration, event: asyncio.Event) -> None:
    """Return when the event is set, or after a length of time."""
    try:
        async with clock.timeout(length):
            await event.wait()
    except TimeoutError:
        return

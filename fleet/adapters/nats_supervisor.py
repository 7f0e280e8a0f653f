"""Keeps a session with a NATS server standing, whatever ends the one before.

A nats-py client can close for good: at most errors the server reports, among them the end of its login; at a PING that
comes early; and when the source of its login raises. So each client is used once, and the next one comes after a pause
with jitter, which nats-py lacks. A session whose login ends is replaced ahead of that by a successor that stands
before the old one goes: when there is none to be had, the old one is used to its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final, assert_never

from nats.errors import Error as NatsError

from fleet.adapters.nats_login import Login, LoginSource, PasswordLogin, TokenLogin
from fleet.adapters.nats_session import Listener, Session
from fleet.capabilities.clock import Chance, Clock
from fleet.contracts.errors import Disconnected, Unavailable
from fleet.contracts.permissions import inbox_prefix
from fleet.contracts.time import ZERO, Duration, Instant

_log = logging.getLogger("fleet.bus")

REFUSAL: Final = "authorization violation"
"""What the server says to a login that it does not accept, and to one that nobody could judge in time."""
_FOR_EVER: Final = 10**9
"""Seconds. The library's own timers are out of use: they would not keep the pace of the clock."""


@dataclass(frozen=True, slots=True)
class NatsTimings:
    """The intervals of a connection, on the program's own clock."""

    answer: Duration = Duration.seconds(5)
    """A call without an answer fails after this."""
    login: Duration = Duration.seconds(30)
    """How long the source of the login may take."""
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
    renew_ahead: Duration = Duration.minutes(1)
    """A session whose login ends is replaced between this and twice this ahead. A login that lasts for less than four
    times this is replaced between a quarter and a half of its time ahead."""


class Supervisor:
    """One session after the other, for the life of a program.

    Args:
        stood: called when a session stands, the first or another.
    """

    def __init__(
        self,
        url: str,
        name: str,
        login: LoginSource,
        clock: Clock,
        chance: Chance,
        timings: NatsTimings,
        stood: Callable[[Session], None],
    ) -> None:
        self._url = url
        self._name = name
        self._login = login
        self._clock = clock
        self._chance = chance
        self._timings = timings
        self._stood = stood
        self._inbox = f"{inbox_prefix(name)}.{chance.token()}"
        self._sessions = 0
        self._opening: Session | None = None
        self._task: asyncio.Task[None] | None = None
        self._retiring: dict[asyncio.Task[None], None] = {}
        self._complained = False
        self.session: Session | None = None
        """The one that stands."""
        self.listeners: dict[Listener, None] = {}

    def start(self) -> None:
        """Begin to connect, and keep at it. Nothing happens when it was started before."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="bus supervisor")

    def subscribe(self, listener: Listener) -> None:
        """Ask for a subscription's subjects in this session and in every later one."""
        self.listeners[listener] = None
        for session in (self.session, self._opening):
            if session is not None:
                session.subscribe(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Ask for them no more. Nothing happens when that was so."""
        if self.listeners.pop(listener, self) is None:
            for session in (self.session, self._opening):
                if session is not None:
                    session.unsubscribe(listener)

    async def close(self) -> None:
        """Leave in order, and connect no more."""
        self.listeners.clear()
        task, self._task = self._task, None
        session = self.session
        if session is not None:
            self._lose(session, "the client was closed")
            await self._leave(session)
        ending = [item for item in (task, *self._retiring) if item is not None]
        for item in ending:
            item.cancel()
        if ending:
            await asyncio.wait(ending)

    # --- one after the other ------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            session = await self._opened()
            while session is not None:
                self._take_over(session)
                successor = await self._kept(session)
                if successor is None:
                    await self._drop(session, "the connection to the bus ended")
                else:
                    self._retire(session)
                session = successor
            await self._clock.sleep(self._pause())

    def _pause(self) -> Duration:
        return self._chance.between(self._timings.backoff_least, self._timings.backoff_most)

    def _take_over(self, session: Session) -> None:
        self._complained = False
        if self.session is not None:
            self.session.stands = False
        self.session, session.stands = session, True
        self._stood(session)

    async def _kept(self, session: Session) -> Session | None:
        """Return when a session has ended, or with the successor that was due because its login will."""
        pinging = asyncio.get_running_loop().create_task(self._ping(session), name="bus pings")
        due = session.renew_at
        try:
            while not await self._ended_before(session, due):
                successor = await self._opened()
                if successor is not None:
                    return successor
                due = self._clock.monotonic() + self._pause()
            return None
        finally:
            pinging.cancel()

    async def _ended_before(self, session: Session, due: Instant | None) -> bool:
        if due is None:
            await session.ended.wait()
            return True
        try:
            async with self._clock.timeout(max(due - self._clock.monotonic(), ZERO)):
                await session.ended.wait()
        except TimeoutError:
            return False
        return True

    def _retire(self, session: Session) -> None:
        """Let a session that was replaced get the answers it waits for, and leave."""
        task = asyncio.get_running_loop().create_task(self._retired(session), name="bus session that was replaced")
        self._retiring[task] = None
        task.add_done_callback(self._retiring.pop)

    async def _retired(self, session: Session) -> None:
        try:
            async with self._clock.timeout(self._timings.answer):
                await session.quiet()
        except TimeoutError:
            pass  # What was not answered in its time fails below.
        finally:
            session.lose(Disconnected("the connection to the bus was replaced"))
        await self._leave(session)

    async def _drop(self, session: Session, why: str) -> None:
        self._lose(session, why)
        session.client.abort()
        await self._leave(session)

    def _lose(self, session: Session, why: str) -> None:
        if session is self.session:
            self.session = None
        session.lose(Disconnected(why))

    # --- one connection -----------------------------------------------------------------------------

    async def _opened(self) -> Session | None:
        """A session that the server has confirmed; None when there is none to be had now, which is said once."""
        self._sessions += 1
        session = self._opening = Session(f"{self._inbox}.{self._sessions}")
        try:
            await self._dial(session)
        except Exception as error:  # noqa: BLE001 - said once per outage; whatever it was, the next client is a new one
            if REFUSAL in str(error).lower():
                self._login.turned_away()
            self._complain(error)
        except BaseException:
            session.client.abort()
            raise
        else:
            return session
        finally:
            self._opening = None
        await self._drop(session, "there was no connection to the bus")
        return None

    async def may_log_in(self) -> bool:
        """Whether a new connection is let in now."""
        session = Session(f"{self._inbox}.trial")
        try:
            await self._connect(session)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is the answer
            _log.info("no second connection to the bus: %s: %s", type(error).__name__, error)
            return False
        finally:
            await self._leave(session)
        return True

    async def _dial(self, session: Session) -> None:
        """Connect, subscribe, and have the server confirm that it has taken both in."""
        await self._connect(session)
        if not session.client.on_deaf(session.ended.set):
            raise Unavailable("the server ended the connection at once")
        session.open_inbox()
        for listener in self.listeners:
            session.subscribe(listener)
        await self._within(session.client.flush(timeout=_FOR_EVER), self._timings.dial)

    async def _connect(self, session: Session) -> None:
        async with self._clock.timeout(self._timings.login):
            login = await self._login.read()
        user, password, token = _credentials(login)
        session.renew_at = self._renewal(login)
        session.root = login.root if isinstance(login, TokenLogin) else ""
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

    def _renewal(self, login: Login) -> Instant | None:
        """When a session with this login is to be replaced; never so soon that it would be no pause at all."""
        match login:
            case PasswordLogin():
                return None
            case TokenLogin(expires=expires):
                now = self._clock.monotonic()
                ahead = min(self._timings.renew_ahead, max(expires - now, ZERO) // 4)
                return max(expires - self._chance.between(ahead, ahead * 2), now + self._pause())
            case _:
                assert_never(login)

    async def _ping(self, session: Session) -> None:
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
        except BaseException:
            task.cancel()
            task.add_done_callback(_forget)  # also of one that ended just now, in the same turn of the loop
            raise
        task.result()

    async def _leave(self, session: Session) -> None:
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
        case _:
            assert_never(login)


def _forget(task: asyncio.Task[None]) -> None:
    """Take note of how an abandoned task ended, so that nobody else has to."""
    if not task.cancelled() and task.exception() is not None:
        _log.debug("an abandoned step of the bus client ended with %s", type(task.exception()).__name__)

"""Logins by token: the server asks a callout, which is a program like any other, somewhere on the network.

As measured on the real server: each connection attempt is one question to one of the programs that serve, and there is
no second try. Without an answer within the server's limit the client is sent away, and cannot tell that from a refusal.
An answer that comes later finds nobody. A connection ends when the token it came with does, and when it is cut; in both
cases the client learns nothing but the end.

A program whose keys are not those that the server was configured with cannot open its question, and its answers are
not believed: the server hears nothing from it. Not modelled: the signatures and seals themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from fleet.capabilities.callout import Admission, Connected, LoginRequest, Shown
from fleet.capabilities.clock import Clock
from fleet.contracts.errors import FleetError, NotPermitted, Refused, TimedOut, Unavailable
from fleet.contracts.time import Duration, Instant
from sim.kernel import Call, Kernel
from sim.nats.pipe import Pipe
from sim.network import Network

T = TypeVar("T")

AUTH_TIMEOUT: Final = Duration.seconds(1)
"""Within this a login is decided: `authorization.timeout` of the configuration."""
ORDER_TIMEOUT: Final = Duration.seconds(5)
"""An order to the server that is not answered has failed after this."""
_QUESTION: Final = 1500
_ANSWER: Final = 2000
"""Bytes on the wire."""


@dataclass(frozen=True, slots=True)
class TokenText:
    """A token as a client shows it. The text never shows in `repr`. `expires` is on the kernel's clock."""

    text: str = field(repr=False)
    expires: Instant


ReadToken = Callable[[], Awaitable[TokenText]]
"""Where a client gets its token, at each connection anew. Raises: FleetError."""


PublicKeys = tuple[str, str]
"""The public halves of the callout's issuer and of its xkey."""
ReadPassword = Callable[[], Awaitable[str]]
"""Where a client gets its password, at each connection anew. Raises: FleetError."""


class Member(Protocol):
    """A connection of the server, as far as its login is concerned."""

    @property
    def open(self) -> bool:
        """Whether it stands."""
        ...

    def end(self) -> None:
        """The server ends it."""
        ...


class Callouts:
    """The server's side: who is asked, and which connections stand by an admission.

    Args:
        host: the server's node.
        clock: the server's time of day.
    """

    def __init__(self, kernel: Kernel, network: Network, host: str, clock: Clock) -> None:
        self.kernel = kernel
        self.network = network
        self.host = host
        self._clock = clock
        self.keys: PublicKeys | None = None
        """What the server was configured with; None: it believes whoever it asks."""
        self._group: list[SimCallout] = []
        self._asked = 0
        self._members: dict[int, tuple[Member, Admission]] = {}
        self._last = 0
        self.questions = 0
        """How many were asked since the world began."""

    def ask(self, client: str, token: str, decided: Callable[[Admission | FleetError], None]) -> None:
        """Ask one of the group, in turn. `decided` is called once, within `AUTH_TIMEOUT`."""
        self.questions += 1
        question = SimQuestion(self, client, token, decided)
        question.limit = self.kernel.after(AUTH_TIMEOUT, question.decide, TimedOut("Authorization Timeout"))
        if self._group:
            self._asked += 1
            self._group[self._asked % len(self._group)].hear(question)

    def admitted(self, member: Member, admission: Admission) -> None:
        """A connection stands by an admission, and ends with it."""
        self._last += 1
        self._members[self._last] = member, admission
        left = Duration(admission.expires - self._clock.wall())
        self.kernel.after(max(left, Duration(0)), self._end, self._last)

    def standing(self) -> tuple[Connected, ...]:
        """The connections that stand by an admission."""
        self._members = {number: item for number, item in self._members.items() if item[0].open}
        return tuple(
            Connected(str(number), admission.device, admission.issued)
            for number, (_, admission) in self._members.items()
        )

    def cut(self, connection: Connected) -> None:
        """End one. Nothing happens when it is gone."""
        self._end(int(connection.connection))

    def is_good(self, admission: Admission) -> bool:
        """Whether it can still be acted upon: the server looks at the end of a login itself."""
        return admission.expires > self._clock.wall()

    def join(self, program: SimCallout) -> None:
        """A program serves from now on."""
        if program not in self._group:
            self._group.append(program)

    def leave(self, program: SimCallout) -> None:
        """It serves no more."""
        if program in self._group:
            self._group.remove(program)

    def _end(self, number: int) -> None:
        found = self._members.pop(number, None)
        if found is not None and found[0].open:
            found[0].end()


class SimQuestion:
    """A LoginRequest: one client that waits to be let in."""

    def __init__(
        self, callouts: Callouts, client: str, token: str, decided: Callable[[Admission | FleetError], None]
    ) -> None:
        self._callouts = callouts
        self._client = client
        self._token = token
        self._decided: Callable[[Admission | FleetError], None] | None = decided
        self.limit: Call | None = None
        self.answer: Callable[[Admission | FleetError], None] | None = None
        """Sends the answer back over the network, once a program has it."""

    def read(self) -> Shown:
        """As the port says."""
        return Shown(self._token, repr(self._client))

    def allow(self, admission: Admission) -> None:
        """As the port says."""
        self._send(admission)

    def refuse(self) -> None:
        """As the port says."""
        self._send(Refused("Authorization Violation"))

    def decide(self, decision: Admission | FleetError) -> None:
        """At the server: it is decided. Nothing happens when it was before."""
        decided, self._decided = self._decided, None
        if decided is None:
            return
        if self.limit is not None:
            self.limit.cancel()
        if isinstance(decision, Admission) and not self._callouts.is_good(decision):
            decision = Refused("Authorization Violation")
        decided(decision)

    def _send(self, decision: Admission | FleetError) -> None:
        answer, self.answer = self.answer, None
        if answer is not None:
            answer(decision)


class Owner(Protocol):
    """The virtual process that the program is."""

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


class SimCallout:
    """The CalloutWire port of one program on one node. Made inside its process.

    Args:
        keys: those that the program has; None where the server asks for none.
    """

    def __init__(
        self,
        callouts: Callouts,
        host: str,
        process: Owner,
        is_up: Callable[[], bool],
        keys: PublicKeys | None = None,
    ) -> None:
        self._keys = keys
        self._callouts = callouts
        self._process = process
        self._is_up = is_up
        self._context = copy_context()
        self._handler: Callable[[LoginRequest], None] | None = None
        self._loop = asyncio.get_running_loop()
        network, kernel = callouts.network, callouts.kernel
        self._to = Pipe(network.route(callouts.host, host), kernel)
        self._back = Pipe(network.route(host, callouts.host), kernel)
        process.on_death(self.close)

    refused: NotPermitted | None = None

    def serve(self, handler: Callable[[LoginRequest], None]) -> SimCallout:
        """As the port says. The subscription is this object."""
        self._handler = handler
        self._callouts.join(self)
        return self

    def close(self) -> None:
        """Serve no more."""
        self._handler = None
        self._callouts.leave(self)

    async def connected(self) -> tuple[Connected, ...]:
        """As the port says."""
        return await self._over(self._callouts.standing)

    async def end(self, connection: Connected) -> None:
        """As the port says."""
        await self._over(lambda: self._callouts.cut(connection))

    def hear(self, question: SimQuestion) -> None:
        """At the server: a question for this program."""
        self._to.send(_QUESTION, self._take, question)

    def _take(self, question: SimQuestion) -> None:
        if self._handler is None or not self._process.alive or self._keys != self._callouts.keys:
            return
        question.answer = lambda decision: self._back.send(_ANSWER, question.decide, decision)
        try:
            self._context.run(self._handler, question)
        except Exception as error:  # noqa: BLE001 - handed on to the process, whose code raised it
            self._process.crash(error)

    async def _over(self, work: Callable[[], T]) -> T:
        """Have the server do something, and wait for its answer. Raises: Unavailable, TimedOut."""
        if not self._is_up():
            raise Unavailable("not connected to the account of the system")
        answer: asyncio.Future[T] = self._loop.create_future()

        def arrived(result: T) -> None:
            if not answer.done() and self._process.alive:
                answer.set_result(result)

        def asked() -> None:
            if self._is_up():
                self._to.send(_ANSWER, arrived, work())

        self._back.send(_QUESTION, asked)
        limit = self._callouts.kernel.after(ORDER_TIMEOUT, _fail, answer)
        try:
            return await answer
        finally:
            limit.cancel()


def _fail(answer: asyncio.Future[T]) -> None:
    if not answer.done():
        answer.set_exception(TimedOut("no answer from the account of the system"))

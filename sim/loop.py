"""An asyncio event loop on virtual time: what production coroutines run on in the simulated world.

The loop has no queue of timers of its own: a timer is an entry of the kernel's queue. One drive loop runs what is
ready until nothing is, then takes the earliest entry and moves the clock to it. Ties run first come, first served.

Differences from a stock loop, all of them deliberate:

- what became ready runs before a timer that is due at the same instant; a stock loop may run the timer in between;
- tasks and futures hash by the order in which they were first hashed, so that a set of them iterates the same way in
  every process (`TaskGroup` and `asyncio.wait` iterate sets);
- an exception that nobody can retrieve any more ends the run, or the virtual process it happened in, instead of
  being logged;
- an executor's work runs at once, on this thread; there are no threads, sockets, subprocesses or signals.
"""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import threading
from asyncio import BaseEventLoop, events
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from heapq import heappop
from itertools import count
from typing import Any, NoReturn, Protocol, TypeVar, TypeVarTuple, Unpack

from fleet.contracts.errors import FleetError, InvalidValue
from sim.kernel import Entry, Kernel

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SAME_INSTANT = 1_000_000
"""Callbacks that may run without time passing before the loop calls it a livelock."""


class Deadlock(FleetError):
    """Nothing is ready, nothing is scheduled, and the run is not over. The message names what waits."""


class Livelock(FleetError):
    """Callbacks went on and on without time passing."""


class Unretrieved(FleetError):
    """The loop was told of a failure that came without an exception, such as a pending task that was lost."""


class Owner(Protocol):
    """What a callback can belong to: a virtual process (`sim.process`)."""

    alive: bool
    """Callbacks of an owner that is not alive are dropped."""

    def adopt(self, task: SimTask) -> None:
        """A task was made in the owner's context."""
        ...

    def crash(self, error: BaseException) -> None:
        """Something of the owner raised an exception that nobody handles."""
        ...


OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)
"""Whose code is running. Carried along by contexts, so everything scheduled from a process belongs to it."""


class SimFuture(asyncio.Future[Any]):
    """A future that hashes by number, not by address."""

    __slots__ = ("_number",)

    def __hash__(self) -> int:
        return _number(self)


class SimTask(asyncio.Task[Any]):
    """A task that hashes by number, and knows whose it is."""

    __slots__ = ("_number", "owner")

    def __hash__(self) -> int:
        return _number(self)


def _number(item: SimFuture | SimTask) -> int:
    """The item's number, drawn when it is hashed for the first time: asyncio does that to a task while making it."""
    try:
        return item._number
    except AttributeError:
        loop = item.get_loop()
        assert isinstance(loop, SimLoop)
        item._number = next(loop.numbers)
        return item._number


class SoonHandle(asyncio.Handle):
    """A callback that runs without time passing. Slim: nothing is kept for debugging."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., object], args: tuple[object, ...], context: Context) -> None:
        self._callback: Callable[..., object] | None = callback
        self._args: tuple[object, ...] | None = args
        self._context = context
        self._cancelled = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._callback}>"

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None


class TimerHandle(Entry, asyncio.TimerHandle):
    """A callback at an instant: an entry of the kernel's queue, and what asyncio knows as a timer handle."""

    __slots__ = ("_kernel",)

    def __init__(  # the fields of the base classes, set without their bookkeeping
        self, loop: SimLoop, when: int, callback: Callable[..., object], args: tuple[object, ...], context: Context
    ) -> None:
        self._loop = loop
        self._kernel = loop.kernel
        self._when = when / 1e9
        self._callback: Callable[..., object] | None = callback
        self._args: tuple[object, ...] | None = args
        self._context = context
        self._cancelled = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._when} {self._callback}>"

    def fire(self) -> None:
        callback, args = self._callback, self._args
        assert callback is not None
        assert args is not None
        self._cancelled = True
        self._callback = self._args = None
        self._loop.run_callback(self._context, callback, args)

    def cancel(self) -> None:
        """Do not call. Nothing happens when it was called or cancelled before."""
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None
            self._kernel.forget()


class SimLoop(BaseEventLoop):
    """The loop. `kernel` is its clock and its one queue of timers."""

    _ready: deque[SoonHandle]
    _stopping: bool
    _thread_id: int | None

    def __init__(self, kernel: Kernel | None = None) -> None:
        super().__init__()
        self.kernel = kernel or Kernel()
        self.numbers: Iterator[int] = count(1)
        self.graveyard: list[SimTask] = []
        """Tasks of dead processes, suspended for ever. Held, because dropping one would run its `finally` blocks."""
        self._ready = deque()
        self._failure: BaseException | None = None

    # --- time ----------------------------------------------------------------------------------------

    def time(self) -> float:
        """Seconds since the world began: for asyncio's own arithmetic. Everything of ours counts in nanoseconds."""
        return self.kernel.now / 1e9

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> SoonHandle:
        """Call without time passing, after what is ready already."""
        if self._closed:
            self._check_closed()
        handle = SoonHandle(callback, args, copy_context() if context is None else context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> SoonHandle:
        """As `call_soon`. Raises: RuntimeError from any other thread: there are no threads in the virtual world."""
        if self._thread_id is not None and self._thread_id != threading.get_ident():
            raise RuntimeError("the virtual world has no threads: nothing may be scheduled from one")
        return self.call_soon(callback, *args, context=context)

    def call_at_ns(
        self, when: int, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> TimerHandle:
        """Call at `when`, in nanoseconds since the world began."""
        if self._closed:
            self._check_closed()
        timer = TimerHandle(self, when, callback, args, copy_context() if context is None else context)
        self.kernel.push(when, timer)
        return timer

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        """Call at `when` seconds, or now if that is past. Raises: InvalidValue for a number that is none (NaN)."""
        if math.isnan(when):
            raise InvalidValue("nan is not a time")
        if math.isinf(when):
            return TimerHandle(self, sys.maxsize, callback, args, context or copy_context())
        return self.call_at_ns(max(round(when * 1e9), self.kernel.now), callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        """Call after `delay` seconds. Raises: InvalidValue, as `call_at`."""
        if math.isnan(delay) or math.isinf(delay):
            return self.call_at(delay, callback, *args, context=context)
        when = self.kernel.now + max(round(delay * 1e9), 0)
        return self.call_at_ns(when, callback, *args, context=context)

    # --- tasks and futures ---------------------------------------------------------------------------

    def create_future(self) -> SimFuture:
        """A future of this loop."""
        return SimFuture(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """A task of this loop. It belongs to the process in whose context it runs."""
        self._check_closed()
        task = SimTask(coro, loop=self, name="" if name is None else str(name), context=context)  # type: ignore[arg-type]  # typeshed wants a str or None
        task.owner = OWNER.get() if context is None else context.get(OWNER)
        if task.owner is not None:
            task.owner.adopt(task)
        return task

    def run_in_executor(  # type: ignore[override]  # typeshed declares the overload that returns a plain Future
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> SimFuture:
        """Run at once, on this thread, in no time."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the awaiting code's, as with a real executor
            future.set_exception(error)
        return future

    async def getaddrinfo(self, *_: object, **__: object) -> NoReturn:
        """Raises: RuntimeError. There are no sockets in the virtual world, and a look-up would leave it."""
        raise RuntimeError("the virtual world has no name service: production code reaches the world by its ports")

    # --- running -------------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """Run until `stop`.

        Raises:
            Deadlock: nothing can happen any more. Livelock: time stands still.
            What a callback outside of every virtual process raised, at once.
        """
        self._check_closed()
        self._check_running()
        hooks = sys.get_asyncgen_hooks()
        self._thread_id = threading.get_ident()
        sys.set_asyncgen_hooks(firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook)
        events._set_running_loop(self)
        try:
            self._drive()
        finally:
            self._stopping = False
            self._thread_id = None
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def _drive(self) -> None:
        ready, kernel = self._ready, self.kernel
        queue = kernel._queue
        budget = SAME_INSTANT
        while True:
            while ready:
                handle = ready.popleft()
                callback, args = handle._callback, handle._args
                if callback is None or args is None:
                    continue
                context = handle._context
                owner = context.get(OWNER)
                if owner is not None and not owner.alive:
                    continue
                try:
                    context.run(callback, *args)
                except BaseException as error:  # noqa: BLE001 - handed on to the process or raised again
                    self._failed(owner, error)
                budget -= 1
                if budget < 0:
                    raise Livelock(f"{SAME_INSTANT} callbacks at {kernel.now} ns; the last one was {callback!r}")
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._stopping:
                return
            if not queue:
                raise Deadlock(self._what_waits())
            when, _, _, entry = queue[0]
            if not isinstance(entry, Entry):
                kernel.step()
                continue
            heappop(queue)
            if entry._cancelled:
                kernel.forgotten()
                continue
            if when != kernel._now:
                kernel._now = when
                budget = SAME_INSTANT
            entry.fire()

    def run_callback(self, context: Context, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        """Run a callback in its context, unless the process it belongs to is dead."""
        owner = context.get(OWNER)
        if owner is not None and not owner.alive:
            return
        try:
            context.run(callback, *args)
        except BaseException as error:  # noqa: BLE001 - handed on to the process or raised again
            self._failed(owner, error)

    def _failed(self, owner: Owner | None, error: BaseException) -> None:
        """A callback raised. Of a process that died meanwhile, nothing is heard any more."""
        if owner is None or isinstance(error, (SystemExit, KeyboardInterrupt)):
            raise error
        if owner.alive:
            owner.crash(error)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Something failed that nobody can be told of: end the process it belongs to, or else the run."""
        error = context.get("exception") or Unretrieved(str(context.get("message")))
        source = context.get("task") or context.get("future")
        owner = source.owner if isinstance(source, SimTask) else OWNER.get()
        if owner is None:
            self._failure = self._failure or error
        elif owner.alive:
            owner.crash(error)

    def close(self) -> None:
        """Close. What is parked in the graveyard is taken apart; whatever dead code says then is nobody's."""
        if self.is_closed():
            return
        super().close()
        for task in self.graveyard:
            coroutine = task.get_coro()
            assert coroutine is not None
            with suppress(BaseException):
                coroutine.close()
        self.graveyard.clear()

    def _what_waits(self) -> str:
        waiting = sorted((task for task in asyncio.all_tasks(self)), key=hash)
        names = [f"{getattr(task.get_coro(), '__qualname__', task)}" for task in waiting if _is_alive(task)]
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        return (
            f"nothing is scheduled at {self.kernel.now} ns and nothing ever will be; what waits: {shown or 'nothing'}"
        )


def _is_alive(task: asyncio.Task[Any]) -> bool:
    owner = task.owner if isinstance(task, SimTask) else None
    return owner is None or owner.alive


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Collect garbage rarely while a world runs: what is imported is frozen, thresholds are high. Restored after."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()

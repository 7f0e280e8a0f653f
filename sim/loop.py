"""An asyncio event loop on virtual time: what production coroutines run on in the simulated world.

The loop has no queue of timers of its own: a timer is an entry of the kernel's queue. One drive loop runs what is
ready until nothing is, then takes the earliest entry and moves the clock to it. Ties run first come, first served.

Differences from a stock loop, all of them deliberate:

- what became ready runs before the next timer that is due at the same instant; a stock loop may run the timer first;
- tasks and futures hash by number, so that a set of them iterates the same way in every process (`sim.tasks`);
- an exception that nobody retrieves ends the run, or the virtual process it happened in, instead of being logged;
- an executor's work runs at once, on this thread; there are no threads, sockets, subprocesses or signals;
- a run in which nothing can happen any more, or in which no time passes, ends with an error that says so.
"""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import threading
from asyncio import BaseEventLoop, events
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context, copy_context
from heapq import heappop
from itertools import count
from typing import Any, NoReturn, TypeVar, TypeVarTuple, Unpack

from fleet.contracts.errors import FleetError, InvalidValue
from sim.generators import OpenGenerators
from sim.handles import Callback, SoonHandle, TimerHandle
from sim.kernel import Entry, Kernel
from sim.tasks import OWNER, Failed, Graveyard, Owner, SimFuture, SimTask, context_of

__all__ = [
    "OWNER",
    "Deadlock",
    "Livelock",
    "Owner",
    "SimFuture",
    "SimLoop",
    "SimTask",
    "Unretrieved",
    "quiet_collector",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SAME_INSTANT = 1_000_000
"""Callbacks that may run without time passing before the loop calls it a livelock."""


class Deadlock(FleetError):
    """Nothing is ready, nothing is scheduled, and the run is not over. The message names what waits."""


class Livelock(FleetError):
    """Callbacks went on and on without time passing. The message names the last one."""


class Unretrieved(FleetError):
    """The loop was told of a failure that came without an exception, such as a pending task that was lost."""


class SimLoop(BaseEventLoop):
    """The loop. `kernel` is its clock and its one queue of timers."""

    # What `BaseEventLoop` has and typeshed does not tell.
    _check_closed: Callable[[], None]
    _check_running: Callable[[], None]
    _closed: bool
    _exception_handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None
    _ready: deque[SoonHandle]
    _stopping: bool
    _thread_id: int | None

    def __init__(self, kernel: Kernel | None = None) -> None:
        super().__init__()
        self.kernel = kernel or Kernel()
        self.graveyard = Graveyard()
        self.generators = OpenGenerators()
        self._ready = deque()
        self._numbers = count(1)
        self._names = count(1)
        self._failed = Failed()
        self._complaints: list[BaseException] = []

    def next_number(self) -> int:
        """The hash of the next task or future that is hashed for the first time."""
        return next(self._numbers)

    # --- scheduling ----------------------------------------------------------------------------------

    def time(self) -> float:
        """Seconds since the world began: for asyncio's own arithmetic. Everything of ours counts in nanoseconds."""
        return self.kernel.now / 1e9

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> SoonHandle:
        """Call without time passing, after what is ready already. Raises: RuntimeError when the loop is closed."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
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

    def call_at_ns(self, when: int, callback: Callback, *args: object, context: Context | None = None) -> TimerHandle:
        """Call at `when`, in nanoseconds since the world began.

        Raises:
            InvalidValue: `when` is not an integer, or is in the past. RuntimeError: the loop is closed.
        """
        if self._closed:
            raise RuntimeError("Event loop is closed")
        timer = TimerHandle(self, when / 1e9, callback, args, copy_context() if context is None else context)
        self.kernel.push(when, timer)
        return timer

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        """Call at `when` seconds, at once if that is past, never at infinity. Raises: InvalidValue for NaN."""
        if math.isnan(when):
            raise InvalidValue("NaN is not a time")
        if when == math.inf:
            return TimerHandle(self, when, callback, args, copy_context() if context is None else context)
        ns = self.kernel.now if when == -math.inf else max(round(when * 1e9), self.kernel.now)
        return self.call_at_ns(ns, callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        """Call after `delay` seconds; as `call_at`, and without its rounding of the time already passed."""
        if not math.isfinite(delay):
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
        """A task of this loop. It belongs to the process in whose context it runs. Its name counts per loop."""
        self._check_closed()
        label = f"Task-{next(self._names)}" if name is None else str(name)
        if context is None:
            context = copy_context()
        task = SimTask(coro, loop=self, name=label, context=context)
        task.owner = owner = context.get(OWNER)
        task.add_done_callback(self._failed.task_ended, context=context)
        if owner is not None:
            owner.adopt(task)
        return task

    def set_task_factory(self, factory: object) -> None:
        """Raises: InvalidValue for any but None: the order of this world hangs on its own kind of task."""
        if factory is not None:
            raise InvalidValue("the virtual world makes its own tasks and takes no task factory")

    def run_in_executor(self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> SimFuture:
        """Run at once, on this thread, in no time."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the awaiting code's, as with a real executor
            future.set_exception(error)
        return future

    def set_default_executor(self, executor: Executor) -> None:
        """Raises: InvalidValue. Work runs at once here, and an executor would bring threads."""
        raise InvalidValue("the virtual world has no threads and takes no executor")

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing to do."""

    async def getaddrinfo(self, *_: object, **__: object) -> NoReturn:
        """Raises: RuntimeError. There are no sockets in the virtual world, and a look-up would leave it."""
        raise RuntimeError("the virtual world has no name service: production code reaches the world by its ports")

    # --- running -------------------------------------------------------------------------------------

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        """Run until `future` is done; its result.

        Raises:
            What it raises; as `run_forever`; and what a task outside of every process raised that nobody retrieved.
        """
        try:
            result: T = super().run_until_complete(future)
        except BaseException as error:
            for unheard in self._unheard():
                error.add_note(f"nobody retrieved this exception either: {unheard!r}")
            raise
        for unheard in self._unheard():
            raise unheard
        return result

    def _unheard(self) -> list[BaseException]:
        complaints, self._complaints = self._complaints, []
        return complaints + self._failed.left_by(None)

    def run_forever(self) -> None:
        """Run until `stop`.

        Raises:
            Deadlock: nothing can happen any more. Livelock: time stands still.
            What a callback or a lost task outside of every virtual process raised, at once.
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
        """Run what is ready until nothing is, then the earliest entry of the queue, and so on.

        One long function on purpose: it runs twice for each thing that happens in the world, and calls cost most.
        """
        ready, kernel, failed = self._ready, self.kernel, self._failed
        queue, popleft = kernel._queue, ready.popleft
        handle: SoonHandle | None
        callback: Callback | None
        budget = SAME_INSTANT
        while not self._stopping:
            if ready:
                number = len(ready)  # what is ready by now, and not what that makes ready, as in a stock loop
                budget -= number
                if budget < 0:
                    raise Livelock(self._what_spins(ready[-1]))
                for _ in range(number):
                    handle = popleft()
                    callback = handle._callback
                    if callback is None:
                        continue
                    context = handle._context
                    owner = context.get(OWNER)
                    if owner is not None and not owner.alive:
                        continue
                    try:
                        context.run(callback, *handle._args)
                    except BaseException as error:  # noqa: BLE001 - handed on to the process or raised again
                        self._callback_failed(owner, error)
            elif failed.fresh:
                handle = callback = None  # they may be all that still holds a task
                self._tell_lost()
            elif not queue:
                raise Deadlock(self._what_waits())
            else:
                when, _, _, entry = queue[0]
                if when != kernel._now:
                    budget = SAME_INSTANT
                elif budget < 0:
                    raise Livelock(self._what_spins(entry))
                if not isinstance(entry, Entry):
                    budget -= 1
                    kernel.step()
                    continue
                heappop(queue)
                if entry._cancelled:
                    kernel.forgotten()
                else:
                    kernel._now = when
                    budget -= 1
                    entry.fire()

    def run_callback(self, context: Context, callback: Callback, args: tuple[object, ...]) -> None:
        """Run a callback in its context, unless the process it belongs to is dead."""
        owner = context.get(OWNER)
        if owner is not None and not owner.alive:
            return
        try:
            context.run(callback, *args)
        except BaseException as error:  # noqa: BLE001 - handed on to the process or raised again
            self._callback_failed(owner, error)

    def _callback_failed(self, owner: Owner | None, error: BaseException) -> None:
        """A callback raised. Of a process that died meanwhile, nothing is heard any more."""
        if owner is None or isinstance(error, KeyboardInterrupt):
            raise error
        if owner.alive:
            owner.crash(error)

    def _tell_lost(self) -> None:
        """End the processes that have lost a failed task, and then the run if one was lost outside of every process."""
        first: BaseException | None = None
        for owner, error in self._failed.lost():
            if owner is None:
                first = first or error
            elif owner.alive:
                owner.crash(error)
        if first is not None:
            raise first

    def unheard_of(self, owner: Owner) -> list[BaseException]:
        """What tasks of an owner raised that nobody retrieved. Not told of again."""
        return self._failed.left_by(owner)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Asyncio has found something wrong, mostly while collecting garbage: told at the end of the run.

        Not at once, because garbage is collected when it is: a run would end at another moment each time. Nothing is
        told of what dead processes leave behind.
        """
        source = context.get("task") or context.get("future")
        if self._closed or (isinstance(source, SimTask) and source.owner is not None and not source.owner.alive):
            return
        if self._exception_handler is not None:
            self._exception_handler(self, context)
        else:
            self._complaints.append(context.get("exception") or Unretrieved(str(context.get("message"))))

    # --- asynchronous generators ---------------------------------------------------------------------

    def _asyncgen_firstiter_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        self.generators.begin(agen, OWNER.get())

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        owner = self.generators.drop(agen)
        if self._closed:
            return
        if owner is not None and not owner.alive:
            self.graveyard.park_generator(agen)
        else:
            self.create_task(agen.aclose(), context=context_of(owner))

    async def shutdown_asyncgens(self) -> None:
        """Close the generators that are still open and not a dead process's, in the order they were begun in."""
        for owner in self.generators.owners():
            if owner is None or owner.alive:
                await self.close_generators(owner)

    async def close_generators(self, owner: Owner | None) -> None:
        """Close the open generators of an owner. Raises: what the first one raises."""
        closing = self.generators.take(owner)
        for result in await asyncio.gather(*(generator.aclose() for generator in closing), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    # --- the end -------------------------------------------------------------------------------------

    def pending_tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks that are not done, oldest first; none of those in the graveyard."""
        return sorted(asyncio.all_tasks(self), key=hash)

    def abandon_processes(self) -> None:
        """End every process without another line of its code, and without telling anybody."""
        for task in self.pending_tasks():
            if isinstance(task, SimTask) and task.owner is not None:
                task.owner.alive = False
                self.graveyard.park(task)

    def close(self) -> None:
        """Close. Processes still alive are abandoned, and what dead ones have left is taken apart."""
        if self._closed:
            return
        self.abandon_processes()
        super().close()
        self.graveyard.release()

    def _what_waits(self) -> str:
        names = [task.where() for task in self.pending_tasks() if isinstance(task, SimTask)]
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        return f"nothing is scheduled at {self.kernel.now} ns, nor ever will be; what waits: {shown or 'nothing'}"

    def _what_spins(self, item: object) -> str:
        callback = getattr(item, "_callback", item)
        task = getattr(callback, "__self__", None)
        name = task.where() if isinstance(task, SimTask) else getattr(callback, "__qualname__", type(callback).__name__)
        return f"{SAME_INSTANT} callbacks without time passing, at {self.kernel.now} ns; the next one is of {name}"


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Collect garbage rarely while a world runs: what exists by now is frozen, thresholds are high. Restored after.

    What the world leaves is collected at the end, while all else is still frozen: to look through the program's own
    objects as well, at each run anew, takes as long as a short run.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    try:
        yield
    finally:
        gc.collect()
        gc.set_threshold(*thresholds)
        gc.unfreeze()

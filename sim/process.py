"""Virtual processes: programs that can be told to end, or killed so that not one more line of them runs.

A process is carried by the context of its code: whatever is scheduled from it belongs to it, and the loop drops
every callback of a dead one. So `kill` is exact: no `finally`, no `except`, no handler of a later callback runs.

A process that is killed from within its own step (a port calls something of the world that cuts the power) goes on to
the next point where it waits, because Python cannot stop it there. Ports fence it: they look at `alive`, or call
`check` where they have an answer to give at once, and do nothing for the dead.
"""

from __future__ import annotations

import asyncio
import traceback
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Final

from sim.loop import OWNER, SimLoop, SimTask
from sim.tasks import context_of

KILLED: Final = -9
"""The exit code of a process that was killed: the negative signal, as `subprocess` has it."""
FAILED: Final = 1
"""The exit code of a process that ended by an exception."""

Main = Callable[["Process"], Coroutine[Any, Any, int]]

_MANY: Final = 16
"""Tasks that a process may have made before it looks which of them are still there."""


class Killed(BaseException):
    """Raised into the code of a dead process. Not an `Exception`: no program handles its own death."""


class Process:
    """One run of a program. Made by `spawn`."""

    def __init__(self, loop: SimLoop, name: str, on_end: Callable[[Process, int], None]) -> None:
        self.name = name
        self.alive = True
        """Nothing of a process that is not alive runs. Ports do nothing for it."""
        self.stop = asyncio.Event()
        """Set by `terminate`: the program's handler of SIGTERM, so to say."""
        self.code: int | None = None
        """The exit code, once it has ended."""
        self.error: BaseException | None = None
        """What the program died of, if it was an exception of its own."""
        self._loop = loop
        self._context = context_of(self)
        self._on_end = on_end
        self._on_death: list[Callable[[], None]] = []
        self._main: asyncio.Task[int] | None = None
        """Held here, as whoever runs a program holds it: one that waits for ever may have no other hold."""
        self._tasks: list[weakref.ref[SimTask]] = []
        self._many = _MANY

    def __repr__(self) -> str:
        return f"<Process {self.name} {'alive' if self.alive else f'ended with {self.code}'}>"

    @property
    def traceback(self) -> str:
        """The story of `error`; empty when there is none."""
        return "" if self.error is None else "".join(traceback.format_exception(self.error))

    def on_death(self, callback: Callable[[], None]) -> None:
        """Call back when the process ends, whichever way, before anybody is told its exit code. Must not raise.

        Called at once when it has ended already. This is how the world takes back what a program held: locks,
        connections, subscriptions.
        """
        if self.alive:
            self._on_death.append(callback)
        else:
            callback()

    def check(self) -> None:
        """For ports with an answer to give at once. Raises: Killed in the code of a dead process."""
        if not self.alive:
            raise Killed(self.name)

    def terminate(self) -> None:
        """SIGTERM. Nothing happens when it is dead."""
        if self.alive:
            self.stop.set()

    def kill(self) -> None:
        """SIGKILL. Nothing happens when it is dead."""
        self._end(KILLED)

    def crash(self, error: BaseException) -> None:
        """End at once, because of an exception that nobody handled: with code 1, or what `sys.exit` was given."""
        if self.alive:
            self._end(self._code_of(error))

    def adopt(self, task: SimTask) -> None:
        """A task was made by the process."""
        if not self.alive:
            self._loop.graveyard.park(task)
            return
        self._tasks.append(weakref.ref(task))
        if len(self._tasks) > self._many:
            self._tasks = [weakref.ref(task) for task in self._pending()]
            self._many = 2 * len(self._tasks) + _MANY

    def begin(self, main: Main) -> None:
        """Run the program. Called once, by `spawn`."""
        coroutine = self._context.run(main, self)
        self._main = task = self._loop.create_task(coroutine, name=self.name, context=self._context)
        task.add_done_callback(self._main_ended, context=self._context)

    def _main_ended(self, task: asyncio.Task[int]) -> None:
        """The program's own coroutine is over: its other tasks are cancelled and waited for, as `asyncio.run` does."""
        error = _error_of(task)
        code = task.result() if error is None else self._code_of(error)
        if not self._pending() and not self._loop.generators.has(self):
            self._end(code)
            return
        closing = self._loop.create_task(self._close_down(), name=f"{self.name}, closing", context=self._context)
        closing.add_done_callback(lambda closed: self._closed_down(closed, code), context=self._context)

    async def _close_down(self) -> None:
        me = asyncio.current_task()
        rest = [task for task in self._pending() if task is not me]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for task in rest:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        await self._loop.close_generators(self)

    def _closed_down(self, closing: asyncio.Task[None], code: int) -> None:
        error = _error_of(closing)
        self._end(code if error is None else self._code_of(error))

    def _code_of(self, error: BaseException) -> int:
        """The exit code for an exception, which is recorded, if it is not just `sys.exit`."""
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            return error.code or 0
        self.error = self.error or error
        return FAILED

    def _pending(self) -> list[SimTask]:
        """The tasks that are not done, oldest first."""
        tasks = (reference() for reference in self._tasks)
        return [task for task in tasks if task is not None and not task.done()]

    def _end(self, code: int) -> None:
        if not self.alive:
            return
        self.alive = False
        for error in self._loop.unheard_of(self):
            if code != KILLED:
                code = code or self._code_of(error)
        self.code = code
        for task in self._pending():
            self._loop.graveyard.park(task)
        self._tasks.clear()
        self._main = None
        callbacks, self._on_death = self._on_death, []
        for callback in callbacks:
            callback()
        self._on_end(self, code)


def spawn(loop: SimLoop, name: str, main: Main, on_end: Callable[[Process, int], None]) -> Process:
    """Start a program: `main(process)` runs as a process of its own, and its answer is the exit code.

    Args:
        name: for people and for messages; need not be unique.
        on_end: told once, when nothing of the process runs any more, with the exit code: that of `main`, 1 after an
            exception that nobody handled (see `Process.error`), or `KILLED`. Must not raise.
    """
    process = Process(loop, name, on_end)
    process.begin(main)
    return process


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:
    return asyncio.CancelledError("the program cancelled itself") if task.cancelled() else task.exception()


def current_process() -> Process | None:
    """The process whose code is running; None for the world's own."""
    owner = OWNER.get()
    return owner if isinstance(owner, Process) else None

"""Virtual processes: programs that can be told to end, or killed so that not one more line of them runs.

A process is carried by the context of its code: whatever is scheduled from it belongs to it, and the loop drops
every callback of a dead one. So `kill` is exact: no `finally`, no `except`, no handler of a later callback runs.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any
from weakref import WeakSet

from sim.loop import OWNER, SimLoop, SimTask

KILLED = -9
"""The exit code of a process that was killed: the negative signal, as `subprocess` has it."""

Main = Callable[["Process"], Coroutine[Any, Any, int]]


class Process:
    """One run of a program. Made by `spawn`."""

    def __init__(self, loop: SimLoop, name: str, on_end: Callable[[Process, int], None]) -> None:
        self.name = name
        self.alive = True
        self.stop = asyncio.Event()
        """Set by `terminate`: the program's handler of SIGTERM, so to say."""
        self.error: BaseException | None = None
        """What the program died of, if it was an exception of its own."""
        self._loop = loop
        self._on_end = on_end
        self._on_death: list[Callable[[], None]] = []
        self._tasks: WeakSet[SimTask] = WeakSet()

    def __repr__(self) -> str:
        return f"<Process {self.name} {'alive' if self.alive else 'dead'}>"

    @property
    def traceback(self) -> str:
        """The story of `error`; empty when there is none."""
        return "" if self.error is None else "".join(traceback.format_exception(self.error))

    def on_death(self, callback: Callable[[], None]) -> None:
        """Call back when the process ends, whichever way, before anybody is told its exit code. Must not raise."""
        self._on_death.append(callback)

    def terminate(self) -> None:
        """SIGTERM. Nothing happens when it is dead."""
        if self.alive:
            self.stop.set()

    def kill(self) -> None:
        """SIGKILL. Nothing happens when it is dead."""
        self._end(KILLED)

    def adopt(self, task: SimTask) -> None:
        """A task was made by the process."""
        self._tasks.add(task)

    def crash(self, error: BaseException) -> None:
        """End with code 1, because of an exception that nobody handled."""
        self.error = error
        self._end(1)

    def main_ended(self, task: asyncio.Task[int]) -> None:
        """The program's own coroutine is over."""
        if task.cancelled():
            self.crash(asyncio.CancelledError("the program cancelled itself"))
            return
        error = task.exception()
        if error is not None:
            self.crash(error)
            return
        self._end(task.result())

    def _end(self, code: int) -> None:
        if not self.alive:
            return
        self.alive = False
        for task in sorted(self._tasks, key=hash):
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own switch, used by its gather
                self._loop.graveyard.append(task)
        callbacks, self._on_death = self._on_death, []
        for callback in callbacks:
            callback()
        self._on_end(self, code)


def spawn(loop: SimLoop, name: str, main: Main, on_end: Callable[[Process, int], None]) -> Process:
    """Start a program: `main(process)` runs as a process of its own, and its answer is the exit code.

    Args:
        on_end: told once, with the exit code: that of `main`, 1 after an exception (see `Process.error`), or `KILLED`.
    """
    process = Process(loop, name, on_end)
    context = copy_context()
    context.run(OWNER.set, process)
    task = loop.create_task(main(process), name=name, context=context)
    task.add_done_callback(process.main_ended, context=context)
    return process

"""Tasks and futures of the virtual world: whose they are, in which order they iterate, and what becomes of them.

asyncio keeps tasks in sets and iterates them, and a set iterates by hash, which is an address by default: another order
in every process. So both types hash by number here. A third thing is what asyncio leaves to the collector of garbage:
noticing a task whose exception nobody can retrieve any more. `Failed` notices at a moment that is always the same.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.tasks import _unregister_task
from collections.abc import AsyncGenerator
from contextvars import Context, ContextVar
from types import CoroutineType
from typing import Any, Final, Protocol


class Owner(Protocol):
    """What code can belong to: a virtual process (`sim.process`)."""

    alive: bool
    """Nothing of an owner that is not alive runs."""

    def adopt(self, task: SimTask) -> None:
        """A task was made in the owner's context."""
        ...

    def crash(self, error: BaseException) -> None:
        """Something of the owner raised an exception that nobody handles."""
        ...


OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)
"""Whose code is running. Carried along by contexts, so everything scheduled from a process belongs to it."""


def context_of(owner: Owner | None) -> Context:
    """An empty context, but for the owner."""
    context = Context()
    if owner is not None:
        context.run(OWNER.set, owner)
    return context


class _Numbering(Protocol):
    """A loop that hands out numbers."""

    def next_number(self) -> int: ...


class SimFuture(asyncio.Future[Any]):
    """A future that hashes by number."""

    __slots__ = ("_number",)

    _number: int

    def __hash__(self) -> int:
        return _number(self)


class SimTask(asyncio.Task[Any]):
    """A task that hashes by number, and knows whose it is."""

    __slots__ = ("_number", "owner")

    _number: int
    owner: Owner | None

    def __hash__(self) -> int:
        return _number(self)

    @property
    def has_failed_unheard(self) -> bool:
        """Whether it ended with an exception that nobody has retrieved."""
        return self._log_traceback

    def where(self) -> str:
        """What it is, and where it stands, for people."""
        coroutine = self.get_coro()
        name = getattr(coroutine, "__qualname__", "?")
        frames = [frame for inner in _chain(self) if (frame := inner.cr_frame) is not None]
        if not frames:
            return f"{self.get_name()} ({name})"
        frame = frames[-1]
        file = frame.f_code.co_filename.rpartition("/")[2]
        return f"{self.get_name()} ({name}, at {file}:{frame.f_lineno} in {frame.f_code.co_name})"


def _number(item: SimFuture | SimTask) -> int:
    """The item's number, drawn when it is hashed for the first time: asyncio does that to a task while making it."""
    try:
        return item._number
    except AttributeError:
        loop: _Numbering = item.get_loop()  # type: ignore[assignment]  # only `SimLoop` makes these
        item._number = loop.next_number()
        return item._number


def _references(items: list[Any]) -> list[int]:
    """How many references there are to each item, those of the list and of counting included."""
    return [sys.getrefcount(item) for item in items]


_OURS: Final = _references([object()])[0]
"""References to an item that nobody but the list holds."""


class Failed:
    """The tasks that ended with an exception while nobody has retrieved it.

    asyncio logs such an exception when the task is collected as garbage, whenever that is. Here, a task is lost as soon
    as nobody but this watch holds it, which is looked at each time that another task fails and everything ready has
    run; one that somebody still holds is asked for when its process or the run ends.
    """

    __slots__ = ("_tasks", "fresh")

    def __init__(self) -> None:
        self._tasks: list[SimTask] = []
        self.fresh = False
        """Whether a task has failed since the last look."""

    def task_ended(self, task: asyncio.Task[Any]) -> None:
        """The done callback of every task."""
        assert isinstance(task, SimTask)
        if task.has_failed_unheard:
            self._tasks.append(task)
            self.fresh = True

    def lost(self) -> list[tuple[Owner | None, BaseException]]:
        """The exceptions that nobody can retrieve any more, oldest first. They are not told of again."""
        self.fresh = False
        return self._take([references <= _OURS for references in _references(self._tasks)])

    def left_by(self, owner: Owner | None) -> list[BaseException]:
        """The exceptions that an owner leaves behind at its end, oldest first. They are not told of again."""
        return [error for _, error in self._take([task.owner is owner for task in self._tasks])]

    def _take(self, wanted: list[bool]) -> list[tuple[Owner | None, BaseException]]:
        taken: list[tuple[Owner | None, BaseException]] = []
        kept: list[SimTask] = []
        for task, is_wanted in zip(self._tasks, wanted, strict=True):
            if task.has_failed_unheard and is_wanted:
                error = task.exception()
                assert error is not None
                taken.append((task.owner, error))
            elif task.has_failed_unheard:
                kept.append(task)
        self._tasks = kept
        return taken


_ROUNDS: Final = 100
"""Times that a coroutine is asked to end before it is left alone for ever."""

_undying: list[object] = []
"""Coroutines that refused to end. Dropping one would only make the interpreter ask it once more, and complain."""


class Graveyard:
    """What dead processes leave suspended, kept as it is, so that not a line of it runs: no `finally` in particular.

    Python runs the `finally` blocks of a coroutine that is dropped, and there is no way round it. So everything is held
    until the loop closes, when the world is over. What is run then belongs to a dead owner, finds no running loop and
    every port fenced, and has nobody left to tell of an error.
    """

    def __init__(self) -> None:
        self._tasks: list[SimTask] = []
        self._generators: list[AsyncGenerator[Any, Any]] = []

    def park(self, task: SimTask) -> None:
        """Keep a pending task. asyncio forgets it: it is in no `all_tasks` any more."""
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own switch, used by its `gather`
        _unregister_task(task)
        self._tasks.append(task)

    def park_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Keep an asynchronous generator that a dead process has let go of."""
        self._generators.append(generator)

    def __len__(self) -> int:
        return len(self._tasks)

    def release(self) -> None:
        """Take everything apart. The loop is closed by now: a generator's finaliser does nothing any more."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            context = context_of(task.owner)
            for coroutine in reversed(_chain(task)):
                if not _has_ended(context, coroutine):
                    _undying.append(coroutine)
        self._generators.clear()


def _chain(task: SimTask) -> list[CoroutineType[Any, Any, Any]]:
    """The coroutines of a task, from the outermost to the one that waits."""
    chain: list[CoroutineType[Any, Any, Any]] = []
    inner: object = task.get_coro()
    while isinstance(inner, CoroutineType):
        chain.append(inner)
        inner = inner.cr_await
    return chain


def _has_ended(context: Context, coroutine: CoroutineType[Any, Any, Any]) -> bool:
    """Whether a coroutine could be made to end."""
    for _ in range(_ROUNDS):
        try:
            context.run(coroutine.close)
        except KeyboardInterrupt:
            raise
        except RuntimeError as error:
            if "ignored GeneratorExit" not in str(error):
                return True
        except BaseException:  # noqa: BLE001 - dead code speaks, and it is over now; see `Graveyard`
            return True
        else:
            return True
    return False

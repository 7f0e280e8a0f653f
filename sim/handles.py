"""Callbacks on their way to being called: what asyncio knows as handles, without what it keeps to debug."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Protocol

from sim.kernel import Entry, Kernel

Callback = Callable[..., object]


class SoonHandle(asyncio.Handle):
    """A callback that runs without time passing."""

    __slots__ = ()

    _args: tuple[object, ...]
    _callback: Callback | None

    def __init__(self, callback: Callback, args: tuple[object, ...], context: Context) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._callback!r}>"

    def cancel(self) -> None:
        """Do not call. Nothing happens when it was called or cancelled before."""
        self._cancelled = True
        self._callback = None
        self._args = ()


class Runs(Protocol):
    """A loop, as far as its timers know it."""

    @property
    def kernel(self) -> Kernel: ...

    def run_callback(self, context: Context, callback: Callback, args: tuple[object, ...]) -> None: ...


class TimerHandle(Entry, asyncio.TimerHandle):
    """A callback at an instant: an entry of the kernel's queue."""

    __slots__ = ("_runs",)

    _args: tuple[object, ...]
    _callback: Callback | None

    def __init__(  # sets the fields of asyncio's handles itself
        self, loop: Runs, when: float, callback: Callback, args: tuple[object, ...], context: Context
    ) -> None:
        self._runs = loop
        self._when = when
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._when} {self._callback!r}>"

    def fire(self) -> None:
        """Call."""
        callback, args = self._callback, self._args
        assert callback is not None
        self._cancelled = True
        self._callback = None
        self._args = ()
        self._runs.run_callback(self._context, callback, args)

    def cancel(self) -> None:
        """Do not call. Nothing happens when it was called or cancelled before."""
        if not self._cancelled:
            self._cancelled = True
            self._callback = None
            self._args = ()
            self._runs.kernel.forget()

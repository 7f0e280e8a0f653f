"""The child processes of one device: started in sessions of their own, reaped here, impossible to leave behind.

The supervisor is a subreaper, so every descendant that loses its parent becomes its child and is found again; and
each direct child asks the kernel for its own death should the supervisor be killed. Standard library only, one
thread: that is what makes the hook between fork and exec safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


class Children:
    """Starts processes and tells of their ends. At most one of these in a process."""

    def __init__(self) -> None:
        self._me = os.getpid()
        self._known: dict[int, tuple[subprocess.Popen[bytes], Callable[[int], None]]] = {}
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def start(
        self,
        arguments: tuple[str, ...],
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        on_end: Callable[[int], None],
    ) -> int:
        """Start a process; `on_end` gets its exit code, negative for a signal. The answer is its pid.

        Raises:
            OSError: it cannot be started.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,
                preexec_fn=self._tie,
            )
        self._known[process.pid] = (process, on_end)
        return process.pid

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to one child. Nothing happens when it was reaped: until then, its pid is its own."""
        if pid in self._known:
            os.kill(pid, number)

    def kill_group(self, leader: int) -> None:
        """kill -9 for the process group that a child leads."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)

    def kill_orphans(self) -> None:
        """kill -9 for what was left to us by processes that ended, with their groups."""
        for pid in descendants(self._me, deep=False):
            if pid not in self._known:
                self.kill_group(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def kill_all(self) -> None:
        """kill -9 for every descendant, until there is none. Tells nobody."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        while pids := descendants(self._me, deep=True):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        for process, _ in self._known.values():
            process.returncode = -signal.SIGKILL
        self._known.clear()

    def _tie(self) -> None:
        """Runs in the child before its program: die with the supervisor."""
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._me:
            os._exit(1)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            known = self._known.pop(pid, None)
            if known is not None:
                process, on_end = known
                process.returncode = os.waitstatus_to_exitcode(status)
                on_end(process.returncode)


def descendants(ancestor: int, *, deep: bool) -> list[int]:
    """The pids below `ancestor`, zombies left out; only its children when not `deep`."""
    below: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            parent = _living_parent(int(entry.name))
            if parent is not None:
                below.setdefault(parent, []).append(int(entry.name))
    found = list(below.get(ancestor, ()))
    if deep:
        for pid in found:
            found.extend(below.get(pid, ()))
    return found


def _living_parent(pid: int) -> int | None:
    """The parent of a process; None when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state in "ZX" else int(parent)

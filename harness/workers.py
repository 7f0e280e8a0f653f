"""The worker processes of a command end when it does, also when it was killed: what they run then ends in order."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the process that started this one is gone. Linux alone offers it."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
        if os.getppid() == 1:
            sys.exit("the process that started this one is gone")


def worker_pool(jobs: int, *, tasks_each: int | None = None) -> ProcessPoolExecutor:
    """Fresh interpreters for `jobs` tasks at a time, replaced after `tasks_each` tasks; none outlives this process."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, spawn, end_with_parent, max_tasks_per_child=tasks_each)

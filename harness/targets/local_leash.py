"""Runs a program that dies with the process that started it, even when that one is killed.

A script of its own and not a hook between fork and exec: such hooks are unsafe beside threads. Called as
`python local_leash.py <pid of the starter> <program> [<argument> …]`; the program keeps this process's pid.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then become the program."""
    starter, program = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"could not tie this process to its parent: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != starter:
        sys.exit("the process that started this one is gone")
    os.execv(program[0], program)


if __name__ == "__main__":
    main()

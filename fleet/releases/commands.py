"""Running the packers (pip, shiv) to their end, with a time limit and their last words in the error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from fleet.contracts.errors import Refused, TimedOut
from fleet.contracts.time import Duration

_LAST_LINES: Final = 12


def run_module(
    arguments: tuple[str, ...],
    purpose: str,
    limit: Duration,
    extra: Mapping[str, str] | None = None,
    *,
    bare: bool = False,
) -> None:
    """Run `python -m <arguments>` in this interpreter's environment.

    Args:
        arguments: the module and what it is given.
        purpose: words the error: "could not <purpose>".
        limit: killed after this.
        extra: added to the environment.
        bare: with the standard library alone, whatever is installed beside it.

    Raises:
        Refused: it ended with another code than 0; carries its last lines. TimedOut.
    """
    command = (sys.executable, *(("-S", "-P") if bare else ()), "-m", *arguments)
    environment = {**os.environ, **(extra or {})}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=limit.in_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimedOut(f"could not {purpose}: {arguments[0]} was still running after {limit}") from error
    if done.returncode != 0:
        lines = done.stdout.decode("utf-8", "replace").strip().splitlines()[-_LAST_LINES:]
        raise Refused(f"could not {purpose}: {arguments[0]} ended with code {done.returncode}\n" + "\n".join(lines))

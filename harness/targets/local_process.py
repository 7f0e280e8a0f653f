"""A child process of a run on real parts: output to a file, own session, and no way to outlive the harness."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from fleet.capabilities.clock import Clock
from fleet.contracts.errors import Unavailable
from fleet.contracts.time import Duration

_PORTS: Final = range(10_000, 32_000)
_TRIES: Final = 100
_LEASH = Path(__file__).with_name("local_leash.py")


def free_port() -> int:
    """A port of the loopback that nobody listens on now, and that stays free while a program is down.

    It lies below those that the kernel gives to connections by itself: one of them could take it meanwhile.

    Raises:
        Unavailable: none was found.
    """
    for _ in range(_TRIES):
        port = _PORTS.start + int.from_bytes(os.urandom(4)) % len(_PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise Unavailable(f"no port between {_PORTS.start} and {_PORTS.stop} is free")


class Child:
    """A running program. Its own session keeps a Ctrl-C for the harness away from it: it is ended in order."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, program: tuple[str, ...], log: Path, environment: Mapping[str, str]) -> Child:
        """Start `program` (its first word an absolute path); append its output to `log`."""
        leash = (sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()))
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *leash,
                *program,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        return cls(process)

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether its end has not been seen yet."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait for its end. The answer is its exit code; negative is the signal that ended it."""
        return await self._process.wait()

    def kill(self) -> None:
        """kill -9. Nothing happens when it has ended."""
        if self.alive:
            self._process.send_signal(signal.SIGKILL)

    async def stop(self, clock: Clock, grace: Duration) -> int:
        """Terminate, then kill after `grace`. Returns when it is gone, as `wait` does."""
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with clock.timeout(grace):
                return await self.wait()
        except TimeoutError:
            self.kill()
            return await self.wait()

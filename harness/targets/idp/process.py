"""A stand-in for the identity provider as a child of the harness: started, stopped, killed and started again."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet.capabilities.clock import Clock
from fleet.contracts.errors import Unavailable
from fleet.contracts.time import Duration
from harness.targets.idp.install import program
from harness.targets.local_process import Child

_START: Final = Duration.seconds(30)
_GRACE: Final = Duration.seconds(5)
_POLL: Final = Duration.millis(20)


@dataclass(frozen=True, slots=True)
class Provider:
    """What a stand-in says of itself.

    Args:
        client: the id of the native app that people sign in through.
        person: a user that is no machine.
        admin_key_file: the administrator's key file, private.
    """

    issuer: str
    organization: str
    project: str
    client: str
    person: str
    admin_key_file: Path


class IdpProcess:
    """One stand-in below a folder. Not started by being made. Keeps its port and its users over restarts.

    Args:
        engine: `node` or `go`.
        token_life: of access tokens.
    """

    def __init__(
        self, engine: str, folder: Path, clock: Clock, token_life: Duration = Duration.minutes(12 * 60)
    ) -> None:
        self._engine = engine
        self._folder = folder
        self._clock = clock
        self._life = token_life
        self._child: Child | None = None
        self._port = 0

    async def start(self) -> Provider:
        """Install it if need be, start it, and wait until it is ready.

        Raises:
            Unavailable: it did not start. NotFound, Refused, TimedOut: as `install.program`.
        """
        command = await asyncio.to_thread(program, self._engine)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = self._folder / "idp.log"
        begin = log.stat().st_size if log.exists() else 0
        options = ("--state", str(self._folder / "state"), "--port", str(self._port))
        life = ("--token-life", str(int(self._life) // 10**9))
        self._child = await Child.start((*command, *options, *life), log, {"HOME": str(self._folder)})
        try:
            async with self._clock.timeout(_START):
                provider = await self._ready(self._child, log, begin)
        except TimeoutError:
            await self.kill()
            raise Unavailable(f"the identity provider did not start in {_START}: see {log.name}") from None
        self._port = int(provider.issuer.rpartition(":")[2])
        return provider

    async def stop(self) -> None:
        """End it in order. Nothing happens when it does not run."""
        if self._child is not None:
            await self._child.stop(self._clock, _GRACE)
            self._child = None

    async def kill(self) -> None:
        """kill -9."""
        if self._child is not None:
            self._child.kill()
            await self._child.wait()
            self._child = None

    async def _ready(self, child: Child, log: Path, begin: int) -> Provider:
        while True:
            for line in log.read_bytes()[begin:].splitlines(keepends=True):
                if line.startswith(b"{") and line.endswith(b"\n"):
                    return provider_in(line)
            if not child.alive:
                raise Unavailable(f"the identity provider ended at once: see {log.name}")
            await self._clock.sleep(_POLL)


def provider_in(line: bytes) -> Provider:
    """What the line that a stand-in prints says."""
    told = json.loads(line)
    return Provider(**{**told, "admin_key_file": Path(told["admin_key_file"])})


def command_line(engine: str, state: Path, port: int) -> tuple[str, ...]:
    """The documented command, as a program of its own."""
    return (sys.executable, "-m", "harness.targets.idp", engine, "--state", str(state), "--port", str(port))

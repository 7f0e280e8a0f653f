"""Runs an external program to its end and leaves nothing of it behind, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fleet.contracts.errors import TimedOut, Unavailable
from fleet.contracts.time import Duration

OUTPUT_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ended:
    """A program ended by itself. Output and errors are cut at the limit that was asked for."""

    code: int
    output: bytes
    errors: bytes

    @property
    def complaint(self) -> str:
        """The last line of what it said of itself, for people."""
        lines = self.errors.decode(errors="replace").strip().splitlines()
        return lines[-1][:500] if lines else f"exit code {self.code}"


class _Collector(asyncio.Protocol):
    """Keeps the beginning of a stream and reads the rest away, so that the writer never blocks."""

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._kept: list[bytes] = []
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._kept.append(data[: self._room])
        self._room -= len(self._kept[-1])

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    @property
    def kept(self) -> bytes:
        return b"".join(self._kept)


@asynccontextmanager
async def _collecting(limit: int) -> AsyncIterator[tuple[BinaryIO, _Collector]]:
    """A pipe whose writing end is for a child; the writing end has to be closed here once the child has it."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", buffering=0) as end:
        transport, collector = await asyncio.get_running_loop().connect_read_pipe(
            lambda: _Collector(limit), os.fdopen(reading, "rb", buffering=0)
        )
        try:
            yield end, collector
        finally:
            transport.close()


async def run_to_end(
    arguments: tuple[str, ...],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    limit: int = OUTPUT_LIMIT,
) -> Ended:
    """Start a program in a session of its own, wait for its end, then kill what is left of its process group.

    Cancelled, it kills the whole group and leaves when the program is gone. Pipes of our own and not asyncio's,
    because a grandchild that holds one open would keep `Process.wait` waiting.

    Raises:
        OSError: the program could not be started.
    """
    async with _collecting(limit) as (output_end, output), _collecting(limit) as (errors_end, errors):
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output_end,
            stderr=errors_end,
            env=None if environment is None else dict(environment),
            cwd=folder,
            start_new_session=True,
        )
        output_end.close()
        errors_end.close()
        try:
            code = await process.wait()
        finally:
            _kill_group(process.pid)
            await process.wait()
        await asyncio.wait([output.closed, errors.closed], timeout=1)
        return Ended(code, output.kept, errors.kept)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


async def run_within(arguments: tuple[str, ...], length: Duration, environment: Mapping[str, str] | None) -> Ended:
    """Run a tool of the host, with a limit in wall time: no pace of ours makes a foreign tool faster.

    Raises:
        TimedOut: it was still running, and was killed.
        Unavailable: it could not be started.
    """
    try:
        async with asyncio.timeout(length.in_seconds):  # noqa: TID251 - wall time on purpose, as the docstring says
            return await run_to_end(arguments, environment=environment, limit=16 * 2**20)
    except TimeoutError as error:
        raise TimedOut(f"{arguments[0]} {arguments[1]} took longer than {length}") from error
    except OSError as error:
        raise Unavailable(f"{arguments[0]} cannot be started: {error.strerror}") from error

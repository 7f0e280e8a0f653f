"""A line holds bytes back while it is cut, one way or both, and is as slow as it was told to be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from fleet.adapters.clock import WallClock
from fleet.contracts.time import Duration
from harness.faults import Direction
from harness.targets.local_link import Line, Proxy, Slowness
from harness.targets.local_peers import has_socket, parse, socket_of

pytestmark = pytest.mark.real

LONG = 10.0
SHORT = 0.15


class Echo:
    """Answers every line in capitals, and remembers what came."""

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self.begins = self.ends = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.begins += 1
        try:
            while line := await reader.readline():
                self.came.append(line)
                writer.write(line.upper())
        except ConnectionError:
            pass
        self.ends += 1
        writer.close()


class Wire:
    """A line with an echo at its end."""

    def __init__(self, line: Line, echo: Echo, port: int) -> None:
        self.line, self.echo, self.port = line, echo, port
        self.up = True
        self.dialled: list[asyncio.StreamWriter] = []

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.dialled.append(writer)
        return reader, writer

    async def close(self) -> None:
        for writer in self.dialled:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def wire(pace: float = 1.0) -> AsyncIterator[Wire]:
    echo, line = Echo(), Line(WallClock(pace))
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made: list[Wire] = []

    def upstream() -> int:
        if not made[0].up:
            raise ConnectionRefusedError
        found: int = port
        return found

    proxy = Proxy(upstream, lambda _: line)
    made.append(Wire(line, echo, await proxy.start()))
    try:
        yield made[0]
    finally:
        await proxy.stop()
        await made[0].close()
        server.close()
        await until(lambda: echo.ends == echo.begins)


def run(main: Callable[[Wire], Awaitable[None]], pace: float = 1.0) -> None:
    async def whole() -> None:
        async with asyncio.timeout(LONG), wire(pace) as made:
            await main(made)

    asyncio.run(whole())


async def silent(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(SHORT):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_bytes_go_both_ways_and_the_end_is_passed_on() -> None:
    async def main(made: Wire) -> None:
        reader, writer = await made.dial()
        writer.write(b"one\n" + b"x" * 30_000 + b"\n")
        assert await reader.readline() == b"ONE\n"
        assert await reader.readline() == b"X" * 30_000 + b"\n"
        writer.write_eof()
        assert await reader.read() == b""
        assert made.echo.ends == 1

    run(main)


@pytest.mark.parametrize("direction", list(Direction))
def test_a_cut_holds_one_way_back_and_a_heal_lets_it_go_on(direction: Direction) -> None:
    async def main(made: Wire) -> None:
        reader, writer = await made.dial()
        writer.write(b"before\n")
        assert await reader.readline() == b"BEFORE\n"
        made.line.cut(direction)
        writer.write(b"during\n")
        assert await silent(reader)
        arrives = direction is Direction.TO_DEVICE
        assert (b"during\n" in made.echo.came) is arrives
        made.line.heal(direction)
        assert await reader.readline() == b"DURING\n"

    run(main)


def test_a_way_that_was_cut_twice_is_healed_twice() -> None:
    async def main(made: Wire) -> None:
        reader, writer = await made.dial()
        made.line.cut(Direction.BOTH)
        made.line.cut(Direction.TO_DEVICE)
        made.line.heal(Direction.BOTH)
        writer.write(b"a\n")
        assert await silent(reader)
        made.line.heal(Direction.TO_DEVICE)
        assert await reader.readline() == b"A\n"

    run(main)


def test_a_connection_that_one_side_gave_up_in_a_cut_is_reset_for_the_other_and_loses_what_was_held() -> None:
    async def main(made: Wire) -> None:
        reader, writer = await made.dial()
        writer.write(b"before\n")
        await reader.readline()
        made.line.cut(Direction.BOTH)
        writer.write(b"lost\n")
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(SHORT)
        assert made.echo.ends == 0
        made.line.heal(Direction.BOTH)
        await until(lambda: made.echo.ends == 1)
        assert made.echo.came == [b"before\n"]

    run(main)


def test_new_connections_hang_while_it_is_cut() -> None:
    async def main(made: Wire) -> None:
        made.line.cut(Direction.TO_DEVICE)
        reader, writer = await made.dial()
        writer.write(b"a\n")
        assert await silent(reader)
        assert made.echo.came == []
        made.line.heal(Direction.TO_DEVICE)
        assert await reader.readline() == b"A\n"

    run(main)


def test_where_nothing_listens_a_connection_is_reset() -> None:
    async def main(made: Wire) -> None:
        made.up = False
        reader, _ = await made.dial()
        with pytest.raises(ConnectionResetError):
            await reader.read()

    run(main)


def test_a_slow_line_takes_its_time_at_the_pace_of_the_run() -> None:
    async def main(made: Wire) -> None:
        reader, writer = await made.dial()
        slow = Slowness(bandwidth=20_000, latency=Duration.seconds(1))
        made.line.slow_down(slow)
        began = asyncio.get_running_loop().time()
        writer.write(b"x" * 20_000 + b"\n")
        await reader.readline()
        took = asyncio.get_running_loop().time() - began
        assert 0.39 <= took < 2  # four seconds of the run, ten times as fast; timers may end a few milliseconds early
        made.line.speed_up(slow)
        began = asyncio.get_running_loop().time()
        writer.write(b"y" * 20_000 + b"\n")
        await reader.readline()
        assert asyncio.get_running_loop().time() - began < 0.3

    run(main, pace=10)


def test_the_process_behind_a_connection_is_found() -> None:
    async def main(made: Wire) -> None:

        _, writer = await made.dial()
        inode = socket_of(writer.get_extra_info("sockname")[1])
        assert inode is not None
        assert has_socket(os.getpid(), inode)
        assert not has_socket(os.getppid(), inode)

    run(main)


def test_sockets_without_an_owner_are_nobodys() -> None:
    line = "   1: 0100007F:9C40 0100007F:1F90 06 00000000:00000000 03:00001770 00000000     0        0 {} 3 0000"
    assert parse([line.format(4711)], 0x9C40) == 4711
    assert parse([line.format(0)], 0x9C40) is None
    assert parse([line.format(4711)], 0x9C41) is None

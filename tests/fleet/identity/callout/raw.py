"""A client that says whatever it likes, byte for byte: no library stands between a hostile device and the server."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from fleet.contracts.time import Duration
from tests.fleet.identity.callout.stage import CLOCK

LIMIT = Duration.seconds(10)


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back: errors of the server, and messages as subject and content with headers."""

    errors: tuple[str, ...]
    messages: tuple[tuple[bytes, bytes], ...]
    ended: bool

    @property
    def content(self) -> bytes:
        """Everything that was delivered, in one piece."""
        return b"\n".join(subject + b" " + body for subject, body in self.messages)


class RawClient:
    """One connection."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self._ended = True
        self.turned_away_with: tuple[str, ...] = ()
        self._errors: list[str] = []
        self._messages: list[tuple[bytes, bytes]] = []
        self._pongs = 0
        self._news = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether the server has closed the connection."""
        return self._ended

    async def open(self) -> RawClient:
        """Connect, and have the server confirm it."""
        assert await self.tried(), self.turned_away_with
        return self

    async def tried(self) -> bool:
        """Try to connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._ended = False
        self._reading = asyncio.create_task(self._read())
        options = {
            "auth_token": self._token,
            "headers": True,
            "no_responders": True,
            "verbose": False,
            "pedantic": False,
            "name": "hostile",
        }
        self.say(b"CONNECT " + json.dumps(options).encode() + b"\r\n")
        heard = await self.settled()
        if heard.ended:
            self.turned_away_with = heard.errors
            self.close()
            return False
        return True

    def say(self, frames: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(frames)

    async def settled(self) -> Heard:
        """Everything that has come since the last time, when all that was said has been acted on."""
        for _ in range(2):  # What JetStream does goes over queues of its own: a second round comes after them.
            await self._round()
            await CLOCK.sleep(Duration.millis(2))
        heard = Heard(tuple(self._errors), tuple(self._messages), self._ended)
        self._errors.clear()
        self._messages.clear()
        return heard

    def close(self) -> None:
        """End it."""
        if self._reading is not None:
            self._reading.cancel()
            self._writer.close()

    async def _round(self) -> None:
        before = self._pongs
        self.say(b"PING\r\n")
        async with CLOCK.timeout(LIMIT):
            while self._pongs == before and not self._ended:
                self._news.clear()
                await self._news.wait()

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                await self._take(line)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._ended = True
            self._news.set()

    async def _take(self, line: bytes) -> None:
        match line.split():
            case [b"MSG" | b"HMSG", subject, *_, size]:
                body = await self._reader.readexactly(int(size) + 2)
                self._messages.append((subject, body))
            case [b"-ERR", *_]:
                self._errors.append(line.decode("utf-8", "replace").strip())
            case [b"PING"]:
                self.say(b"PONG\r\n")
            case [b"PONG"]:
                self._pongs += 1
        self._news.set()


def pub(subject: str, body: bytes = b"", reply: str = "", headers: tuple[str, ...] = ()) -> bytes:
    """The frame of a message."""
    to = f"{subject} {reply} " if reply else f"{subject} "
    if not headers:
        return f"PUB {to}{len(body)}\r\n".encode() + body + b"\r\n"
    head = b"NATS/1.0\r\n" + b"".join(f"{line}\r\n".encode() for line in headers) + b"\r\n"
    return f"HPUB {to}{len(head)} {len(head) + len(body)}\r\n".encode() + head + body + b"\r\n"

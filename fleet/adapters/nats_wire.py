"""nats-py's client with its hands washed: messages come as the bytes they are, whatever a hostile writer put into them.

Some traps of nats-py 2.16 make this necessary, each of them measured. A subject or a status line that is not UTF-8
raises inside the read loop, which then ends without a word until pings go missing. A vertical tab in a subject counts
as a separator, which is a protocol error and costs the connection. And messages go through one queue per subscription,
which loses their order between subscriptions and drops them when it is full. What the client may not do is reported in
lower case, so that the subject is lost. And a PING that comes before the answer to CONNECT, as it does when an auth
callout takes its time, ends the client for good. So this subclass reads the frames itself and hands each message over
at once, and answers early PINGs; authentication, later pings and sending stay the library's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nats.aio.client import Client
from nats.errors import ProtocolError

_MAX_LINE: Final = 1024 * 1024
"""An INFO line is the longest that may come."""
_END: Final = b"\r\n"


@dataclass(frozen=True, slots=True)
class Frame:
    """One message as it came: `header` is empty, or begins with `NATS/1.0` and ends with an empty line."""

    sid: int
    subject: bytes
    reply: bytes
    header: bytes
    payload: bytes


class Headers:
    """The headers of a frame. The server appends its own, so of several with one name the last is the server's."""

    __slots__ = ("_lines", "status")

    def __init__(self, raw: bytes) -> None:
        first, *lines = raw.split(_END)
        self._lines = lines
        self.status = first[9:12].decode("ascii", "replace") if first.startswith(b"NATS/1.0 ") else ""

    def last(self, name: bytes) -> str | None:
        """The last value of a header; bytes that are not UTF-8 are surrogate-escaped."""
        for line in reversed(self._lines):
            found, colon, value = line.partition(b":")
            if colon and found == name:
                return value.strip(b" ").decode("utf-8", "surrogateescape")
        return None

    def number(self, name: bytes) -> int | None:
        """The last value of a header as a number; None when it is missing or none."""
        text = self.last(name)
        return int(text) if text is not None and text.isascii() and text.isdigit() else None


class WireClient(Client):
    """One connection, for once: it does not reconnect.

    Args:
        on_frame: told of each message. Must not raise.
        on_refusal: told of each error of the server, as it words it, before the library is. Must not raise.
    """

    def __init__(self, on_frame: Callable[[Frame], None], on_refusal: Callable[[str], None]) -> None:
        super().__init__()
        self._ps = _Frames(self, on_frame, on_refusal)  # type: ignore[assignment]  # stands in for the library's own parser

    def say(self, line: bytes) -> None:
        """Send what follows from the protocol, in order with everything said before. Does not wait."""
        self._pending.append(line)
        self._pending_data_size += len(line)
        if self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    async def _process_connect_init(self) -> None:
        """The library's handshake, in which it takes a PING of the server for the answer to its own."""
        transport = self._transport
        assert transport is not None, "the library connects first"
        readline = transport.readline

        async def answering_pings() -> bytes:
            line: bytes = await readline()
            while line.strip() == b"PING":
                transport.write(b"PONG\r\n")
                line = await readline()
            return line

        transport.readline = answering_pings  # type: ignore[method-assign]  # for this connection, which is used once
        await super()._process_connect_init()

    @property
    def unsent(self) -> int:
        """Bytes that wait to be handed to the operating system."""
        return self._pending_data_size

    def on_deaf(self, callback: Callable[[], None]) -> bool:
        """Call back when nothing is read any more, for whatever reason. False when that is so already."""
        reading = self._reading_task
        if reading is None or reading.done():
            return False
        reading.add_done_callback(lambda _: callback())
        return True

    def abort(self) -> None:
        """Drop the connection at once, with what was not sent. `close` would wait for a peer that is not there."""
        writer = getattr(self._transport, "_io_writer", None)
        if isinstance(writer, asyncio.StreamWriter):
            writer.transport.abort()


class _Frames:
    """Cuts what arrives into frames. Stands in for nats-py's parser, whose name in the client is `_ps`."""

    def __init__(
        self, client: WireClient, on_frame: Callable[[Frame], None], on_refusal: Callable[[str], None]
    ) -> None:
        self._client = client
        self._on_frame = on_frame
        self._on_refusal = on_refusal
        self._buffer = bytearray()

    def reset(self) -> None:
        """Forget what came of the last connection."""
        self._buffer.clear()

    async def parse(self, data: bytes = b"") -> None:
        """Take in what arrived. Raises: ProtocolError, on which nats-py ends the connection."""
        self._buffer += data
        while (size := await self._next()) > 0:
            del self._buffer[:size]

    async def _next(self) -> int:
        """Act on the first frame, if it is complete; its size in bytes."""
        end = self._buffer.find(_END)
        if end < 0:
            if len(self._buffer) > _MAX_LINE:
                raise ProtocolError("nats: a line without an end")
            return 0
        line = bytes(self._buffer[:end])
        verb, _, rest = line.partition(b" ")
        match verb:
            case b"MSG" | b"HMSG":
                return self._message(verb, rest, end + 2)
            case b"PING":
                await self._client._process_ping()
            case b"PONG":
                await self._client._process_pong()
            case b"INFO":
                await self._client._process_info(_info(rest))
            case b"-ERR":
                text = rest.decode("utf-8", "replace")
                self._on_refusal(text)
                await self._client._process_err(text.lower())
            case b"+OK":
                pass
            case _:
                raise ProtocolError("nats: unknown protocol")
        return end + 2

    def _message(self, verb: bytes, rest: bytes, start: int) -> int:
        header_size, size, sid, subject, reply = _control(verb, rest)
        end = start + size + 2
        if len(self._buffer) < end:
            return 0
        body = bytes(self._buffer[start : end - 2])
        self._on_frame(Frame(sid, subject, reply, body[:header_size], body[header_size:]))
        return end


def _control(verb: bytes, rest: bytes) -> tuple[int, int, int, bytes, bytes]:
    """Header size, total size, subscription, subject and reply subject of a message's control line."""
    words = rest.split(b" ")
    try:
        size = int(words.pop())
        header_size = int(words.pop()) if verb == b"HMSG" else 0
        reply = words.pop() if len(words) == 3 else b""
        subject, sid = words
        return header_size, size, int(sid), subject, reply
    except (ValueError, IndexError):
        raise ProtocolError("nats: malformed message") from None


def _info(text: bytes) -> dict[str, object]:
    try:
        info = json.loads(text)
    except ValueError:
        raise ProtocolError("nats: malformed INFO") from None
    if not isinstance(info, dict):
        raise ProtocolError("nats: malformed INFO")
    return info

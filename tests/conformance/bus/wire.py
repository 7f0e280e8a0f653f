"""Raw writes to the real server: what the port cannot say, past every check of a client library.

Each goes over a connection of its own, because the server answers some with its end.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

from fleet.adapters import nats_messages as messages
from fleet.adapters.nats_wire import Frame
from fleet.contracts.errors import Disconnected, FleetError, NotPermitted, TooLarge, Unknown

_INBOX: Final = "_INBOX_{user}.raw"
_PLAIN: Final = {"verbose": False, "pedantic": False}
_TOO_LONG: Final = ("maximum control line", "maximum payload")


async def publish(
    port: int, user: str, password: str, subject: bytes, lines: tuple[bytes, ...], payload: bytes
) -> Frame:
    """Publish, and return what the server answers.

    Args:
        lines: of the header, as they are; no header without any.

    Raises:
        NotPermitted, TooLarge: the server said so. Disconnected: it said nothing.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        inbox = _INBOX.format(user=user).encode()
        options = {"user": user, "pass": password, "headers": True, "no_responders": True, **_PLAIN}
        writer.write(b"CONNECT " + json.dumps(options).encode() + b"\r\nSUB " + inbox + b" 1\r\n")
        writer.write(_message(subject, inbox, lines, payload))
        return await _answer(reader)
    except OSError as error:
        raise Disconnected(f"the server ended the connection: {type(error).__name__}") from error
    finally:
        writer.close()


def _message(subject: bytes, inbox: bytes, lines: tuple[bytes, ...], payload: bytes) -> bytes:
    if not lines:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, inbox, len(payload), payload)
    head = b"NATS/1.0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, inbox, len(head), len(head) + len(payload), head, payload)


async def _answer(reader: asyncio.StreamReader) -> Frame:
    while line := await reader.readline():
        verb, *words = line.split()
        if verb == b"-ERR":
            raise _error(line[5:].strip().decode("utf-8", "replace"))
        if verb in (b"MSG", b"HMSG"):
            size = int(words[-1])
            body = await reader.readexactly(size + 2)
            cut = int(words[-2]) if verb == b"HMSG" else 0
            return Frame(1, words[0], b"", body[:cut], body[cut:size])
    raise Disconnected("the server ended the connection without a word")


def _error(text: str) -> FleetError:
    if messages.forbidden(text) is not None or text.startswith("'Permissions Violation"):
        return NotPermitted("not permitted")
    if text.strip("'").lower().startswith(_TOO_LONG):
        return TooLarge(text.strip("'").lower())
    return Unknown(text)

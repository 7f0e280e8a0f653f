"""Which keys the project writes. Whatever stands in a bucket can have any other; it is read, never written."""

from __future__ import annotations

import re
from typing import Final

from fleet.contracts.errors import Refused, TooLarge
from fleet.contracts.layout import MAX_KEY_BYTES, MAX_VALUE_BYTES

MAX_MESSAGE_BYTES: Final = MAX_VALUE_BYTES + 1024
"""What a bucket takes: the largest value and the headers of its message, which the server counts as well."""
_SHOWN: Final = 100
"""Characters of a key that a person gets to see. The longest key the project writes is shorter by far."""
_KEY: Final = re.compile(r"[-/_=a-zA-Z0-9]+(?:\.[-/_=a-zA-Z0-9]+)*")


def check_key(key: str) -> None:
    """Refuse a key that a program may not name.

    Wildcards would read or wipe what others wrote, and a key of 4,096 bytes ends the connection for good.

    Raises:
        TooLarge: longer than `MAX_KEY_BYTES`. Refused: not dot-separated tokens of letters, digits, `-`, `/`, `_`, `=`.
    """
    if len(key) > MAX_KEY_BYTES:
        raise TooLarge(f"a key of {len(key)} characters: {MAX_KEY_BYTES} are the most")
    if _KEY.fullmatch(key) is None:
        raise Refused(f"{key!r} is not a key: use dot-separated tokens of letters, digits, '-', '/', '_' and '='")


def check_subject(subject: str) -> None:
    """Refuse a subject that a program may not name; the server ends the connection at some of them.

    Raises:
        TooLarge, Refused: as `check_key`; `$` may stand in a token as well.
    """
    check_key(subject.replace("$", "-"))


def shown(key: str) -> str:
    """A key for people and logs: quoted, in ASCII, and of bounded length, because anything can stand as a key."""
    if len(key) <= _SHOWN:
        return f"{key!a}"
    return f"{key[:_SHOWN]!a}… ({len(key)} characters)"


def check_value(value: bytes) -> None:
    """Refuse a value over `MAX_VALUE_BYTES`. Raises: TooLarge."""
    if len(value) > MAX_VALUE_BYTES:
        raise TooLarge(f"a value of {len(value)} bytes: {MAX_VALUE_BYTES} are the most")

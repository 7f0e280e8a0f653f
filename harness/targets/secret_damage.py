"""What becomes of the content of a secret's file, the same on every target."""

from __future__ import annotations

from typing import assert_never

from harness.faults import SecretDamage

_FIELD = b'"value": "'


def damaged(content: bytes, how: SecretDamage) -> bytes:
    """The content after the damage. What concerns the file and not its content changes nothing here."""
    match how:
        case SecretDamage.TRUNCATED:
            return content[: len(content) // 2]
        case SecretDamage.BIT_FLIPPED:
            return _flipped(content)
        case SecretDamage.EMPTY:
            return b""
        case SecretDamage.WRONG_MODE | SecretDamage.WRONG_OWNER:
            return content
        case _:
            assert_never(how)


def _flipped(content: bytes) -> bytes:
    """One bit of the first character of the value. Either way it is a letter: only a checksum can tell."""
    place = content.index(_FIELD) + len(_FIELD)
    return content[:place] + bytes([content[place] ^ 0x20]) + content[place + 1 :]

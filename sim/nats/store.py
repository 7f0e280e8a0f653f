"""One KV bucket: one sequence, a bounded history per key, compare-and-swap, delete markers, a tail that can be lost.

The server validates no key and no value: any bytes are stored (keys come surrogate-escaped), literal `*` and `>`
included. Only a subject that the protocol cannot carry (an empty token, a space, a tab, a line feed) and a size over
the limit are refused.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final

from fleet.capabilities.bus import Deleted, Entry, Stored
from fleet.contracts.errors import Conflict, InvalidValue, Refused, TooLarge
from fleet.contracts.ids import Revision
from fleet.contracts.keys import MAX_MESSAGE_BYTES
from fleet.contracts.layout import BucketSpec
from sim.nats.headers import Lines, is_marker, refusal, size_of
from sim.nats.subjects import matches

MAX_SUBJECT_BYTES: Final = 4000
"""Control lines are limited to 4,096 bytes, verb and sizes included."""
MAX_LOST_TAIL: Final = 4096
"""Writes that a loss of power can take back at most."""
_UNSTORABLE = re.compile(r"^\.|\.\.|\.$|[ \t\n]|^$")


class KvStore:
    """The entries of one bucket."""

    def __init__(self, spec: BucketSpec) -> None:
        self.spec = spec
        self._sequence = 0
        self._entries: dict[str, tuple[Entry, ...]] = {}
        self._by_token: dict[str, dict[str, None]] = {}
        self._undo: deque[tuple[str, tuple[Entry, ...]]] = deque(maxlen=MAX_LOST_TAIL)

    @property
    def sequence(self) -> int:
        """The revision of the newest write; 0 before the first."""
        return self._sequence

    @property
    def remembered(self) -> int:
        """How many writes `lose_tail` can take back."""
        return len(self._undo)

    def write(self, key: str, value: bytes | None, expected: int | None = None) -> Entry:
        """Accept a write (None: a delete marker), if the key's newest message has the revision `expected` (0: none).

        Raises:
            Conflict, TooLarge; Refused for a key that no subject can carry.
        """
        before = self._entries.get(key, ())
        if not before:
            _check(key)
        if expected is not None and expected != (before[-1].revision if before else 0):
            raise Conflict(f"wrong last sequence: {before[-1].revision if before else 0}")
        if value is not None and len(value) > MAX_MESSAGE_BYTES:
            raise TooLarge("message size exceeds maximum allowed")
        return self._accept(key, value, before)

    def write_raw(self, key: str, lines: Lines, value: bytes) -> Entry:
        """Accept a write with a header of any lines.

        Raises:
            Conflict, TooLarge, Refused: as the header says, or as `write`.
        """
        before = self._entries.get(key, ())
        if not before:
            _check(key)
        if size_of(lines) + len(value) > MAX_MESSAGE_BYTES:
            raise TooLarge("message size exceeds maximum allowed")
        error = refusal(lines, self.spec.bucket, self._sequence, self._newest_taken_for(key))
        if error is not None:
            raise error
        return self._accept(key, None if is_marker(lines) else value, before)

    def _newest_taken_for(self, key: str) -> int:
        """What an expected revision is compared with: here alone, a key with wildcards is taken for a pattern."""
        if not any(token in ("*", ">") for token in key.split(".")):
            newest = self.newest(key)
            return newest.revision if newest is not None else 0
        return max((entries[-1].revision for name, entries in self._entries.items() if matches(key, name)), default=0)

    def _accept(self, key: str, value: bytes | None, before: tuple[Entry, ...]) -> Entry:
        self._sequence += 1
        revision = Revision(self._sequence)
        entry: Entry = (
            Deleted(self.spec.bucket, key, revision)
            if value is None
            else Stored(self.spec.bucket, key, revision, value)
        )
        if not before:
            self._by_token.setdefault(key.partition(".")[0], {})[key] = None
        self._entries[key] = (entry,) if self.spec.history == 1 else (*before, entry)[-self.spec.history :]
        self._undo.append((key, before))
        return entry

    def newest(self, key: str) -> Entry | None:
        """The newest entry of a key."""
        entries = self._entries.get(key)
        return entries[-1] if entries else None

    def history(self, key: str) -> tuple[Entry, ...]:
        """What is kept of a key, oldest first."""
        return self._entries.get(key, ())

    def list(self, prefix: str) -> tuple[Entry, ...]:
        """The newest entry of each key under a prefix of whole tokens, in revision order."""
        if not prefix:
            found = [entries[-1] for entries in self._entries.values() if entries]
        else:
            below = prefix + "."
            keys = self._by_token.get(prefix.partition(".")[0], {})
            found = [self._entries[key][-1] for key in keys if key == prefix or key.startswith(below)]
        return tuple(sorted(found, key=_revision))

    def lose_tail(self, count: int) -> tuple[str, ...]:
        """Take back the newest `count` writes, acknowledged as they were; later writes reuse their revisions.

        Returns:
            The keys whose newest write is another one now.

        Raises:
            InvalidValue: the model does not remember that many.
        """
        if not 0 <= count <= len(self._undo):
            raise InvalidValue(f"{count} writes cannot be lost: {len(self._undo)} are remembered")
        keys: dict[str, None] = {}
        for _ in range(count):
            key, before = self._undo.pop()
            keys[key] = None
            self._sequence -= 1
            if before:
                self._entries[key] = before
            else:
                self._forget(key)
        return tuple(keys)

    def _forget(self, key: str) -> None:
        del self._entries[key]
        token = key.partition(".")[0]
        del self._by_token[token][key]
        if not self._by_token[token]:
            del self._by_token[token]


def is_subject(key: str) -> bool:
    """Whether a subject can carry a key."""
    return _UNSTORABLE.search(key) is None


def _check(key: str) -> None:
    if len(key.encode("utf-8", "surrogateescape")) > MAX_SUBJECT_BYTES:
        raise TooLarge("maximum control line exceeded")
    if not is_subject(key):
        raise Refused("no subject can carry this key: an empty token, a space, a tab or a line feed")


def _revision(entry: Entry) -> int:
    return entry.revision

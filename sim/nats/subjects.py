"""Subjects: matching, what a client may do by them, and the index from a subject to who listens to it.

Stored keys may hold `*` and `>` as literal tokens, so a subject is never mistaken for a pattern: patterns come
from permissions and subscriptions alone.
"""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar

from fleet.contracts.errors import InvalidValue
from fleet.contracts.layout import Bucket
from fleet.contracts.permissions import Permissions

_NOT_DELIVERED: Final = re.compile(r"[ \t\r\n\f]|(?:^|\.)[*>](?:\.|$)")
"""The server republishes no write to such a key, though it stores it."""
_MAX_REMEMBERED: Final = 100_000
"""Subjects whose listeners are remembered; a hostile writer must not make the index grow for ever."""


def value_subject(bucket: Bucket, key: str) -> str:
    """What a write to a key is published on."""
    return f"$KV.{bucket}.{key}"


def direct_get_subject(bucket: Bucket, key: str) -> str:
    """What a direct get of one key is requested on."""
    return f"$JS.API.DIRECT.GET.KV_{bucket}.$KV.{bucket}.{key}"


def listing_subject(bucket: Bucket) -> str:
    """What a direct get of many keys is requested on. The filter is in its body, where no permission reaches."""
    return f"$JS.API.DIRECT.GET.KV_{bucket.value}"


def republished_patterns(bucket: Bucket, prefix: str) -> tuple[str, ...]:
    """What to subscribe to for the accepted writes under `prefix`, the key that is exactly `prefix` included."""
    if not prefix:
        return (f"fleet.{bucket.value}.>",)
    return (f"fleet.{bucket.value}.{prefix}", f"fleet.{bucket.value}.{prefix}.>")


def matches(pattern: str, subject: str) -> bool:
    """Whether a pattern (`*`: one token, a last `>`: one or more) covers a literal subject."""
    if pattern == subject:
        return True
    if "*" not in pattern:
        return pattern == ">" or (pattern.endswith(".>") and subject.startswith(pattern[:-1]))
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
    elif len(tokens) != len(wanted):
        return False
    return all(want in ("*", token) for want, token in zip(wanted, tokens, strict=False))


def covers(pattern: str, subscription: str) -> bool:
    """Whether everything a subscription could receive is covered by a pattern."""
    if subscription.endswith(">") and not pattern.endswith(">"):
        return False
    return matches(pattern, subscription)


def may_publish(permissions: Permissions, subject: str) -> bool:
    """Whether a publish or request on this subject is let through."""
    return any(matches(pattern, subject) for pattern in permissions.publish)


def may_subscribe(permissions: Permissions, subscription: str) -> bool:
    """Whether a subscription is accepted."""
    return any(covers(pattern, subscription) for pattern in permissions.subscribe)


T = TypeVar("T")


class Interest(Generic[T]):
    """Who listens to what. A look-up costs one dictionary access once a subject was seen.

    Patterns are literal, or end in `*` or `>`; other wildcards are not modelled.
    """

    def __init__(self) -> None:
        self._literal: dict[str, list[T]] = {}
        self._one: dict[str, list[T]] = {}
        self._many: dict[str, list[T]] = {}
        self._remembered: dict[str, tuple[T, ...]] = {}

    def add(self, pattern: str, listener: T) -> None:
        """Listen. Raises: InvalidValue for a wildcard anywhere but in the last token."""
        self._remembered.clear()
        table, key = self._place(pattern)
        table.setdefault(key, []).append(listener)

    def remove(self, pattern: str, listener: T) -> None:
        """Listen no more. Nothing happens when it did not."""
        self._remembered.clear()
        table, key = self._place(pattern)
        listeners = table.get(key, [])
        if listener in listeners:
            listeners.remove(listener)
        if not listeners:
            table.pop(key, None)

    def of(self, subject: str) -> tuple[T, ...]:
        """The listeners to a literal subject, one entry per matching pattern."""
        found = self._remembered.get(subject)
        if found is None:
            found = self._find(subject)
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[subject] = found
        return found

    def _place(self, pattern: str) -> tuple[dict[str, list[T]], str]:
        head, _, last = pattern.rpartition(".")
        if "*" in head.split(".") or ">" in head.split("."):
            raise InvalidValue(f"{pattern!r}: the model knows wildcards in the last token only")
        match last:
            case ">":
                return self._many, head
            case "*":
                return self._one, head
            case _:
                return self._literal, pattern

    def _find(self, subject: str) -> tuple[T, ...]:
        if _NOT_DELIVERED.search(subject):
            return ()
        found = list(self._literal.get(subject, ()))
        head, _, _ = subject.rpartition(".")
        found += self._one.get(head, ())
        while head:
            found += self._many.get(head, ())
            head, _, _ = head.rpartition(".")
        found += self._many.get("", ())
        return tuple(found)

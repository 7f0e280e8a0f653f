"""`fleet secret list`: which secrets there are, how old they are, and what is wrong with them. Never a value."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fleet.capabilities.secrets import SecretSeen, SecretStore, SecretUnreadable
from fleet.contracts.ids import ObjectName
from fleet.contracts.time import ZERO, Duration, Instant
from fleet.secrets.registry import GENERATED

_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


@dataclass(frozen=True, slots=True)
class SecretMissing:
    """A secret of the registry that was not made yet."""

    name: ObjectName


Line = SecretSeen | SecretUnreadable | SecretMissing


@dataclass(frozen=True, slots=True)
class SecretList:
    """What a store holds, and what it lacks, sorted by name.

    Args:
        now: what ages are counted to.
    """

    lines: tuple[Line, ...]
    now: Instant

    @property
    def is_whole(self) -> bool:
        """Whether every secret stands and can be read."""
        return all(isinstance(line, SecretSeen) for line in self.lines)

    def to_json(self) -> str:
        """One object: `secrets`, a list with a `state` each, and ages in whole seconds."""
        return json.dumps({"secrets": [self._as_json(line) for line in self.lines]}, indent=2)

    def age(self, made: Instant) -> Duration:
        """How long ago that was; nothing when the clock that saw it ran ahead."""
        return max(self.now - made, ZERO)

    def _as_json(self, line: Line) -> dict[str, str | int]:
        match line:
            case SecretSeen(name, version, made):
                seconds = self.age(made) // 10**9
                return {
                    "name": name,
                    "state": "ready",
                    "version": version,
                    "made": made.utc(),
                    "age_seconds": int(seconds),
                }
            case SecretUnreadable(name, reason):
                return {"name": name, "state": "unreadable", "reason": reason}
            case SecretMissing(name):
                return {"name": name, "state": "missing"}


async def collect(store: SecretStore, now: Instant) -> SecretList:
    """Read the names and versions of a store, and compare them with the registry."""
    seen = await store.seen()
    there = {line.name for line in seen}
    missing = tuple(SecretMissing(item.name) for item in GENERATED if item.name not in there)
    return SecretList(tuple(sorted((*seen, *missing), key=lambda line: line.name)), now)


def show(listed: SecretList, console: Console) -> None:
    """Print it for people."""
    table = Table("secret", "version", "made", "age", box=None, pad_edge=False, header_style="bold")
    for row in _rows(listed):
        table.add_row(*row)
    console.print(table)
    for line in listed.lines:
        if isinstance(line, SecretUnreadable):
            console.print(f"[red]{line.name}[/]: {escape(line.reason)}", soft_wrap=True)


def _rows(listed: SecretList) -> Iterable[tuple[str, str, str, str]]:
    for line in listed.lines:
        match line:
            case SecretSeen(name, version, made):
                yield name, str(version), made.utc(), _rounded(listed.age(made))
            case SecretUnreadable(name, _):
                yield name, "[red]unreadable[/]", "", ""
            case SecretMissing(name):
                yield name, "[yellow]missing[/]", "", ""


def _rounded(age: Duration) -> str:
    """The age in its largest unit, rounded down."""
    seconds = int(age) // 10**9
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return "0s"

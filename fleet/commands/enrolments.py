"""`fleet device list`: which user of the provider each device is, and whether it is let in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import assert_never

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fleet.contracts.records import Admitted, Enrolment, Revoked
from fleet.identity.enrolments import Enrolments


@dataclass(frozen=True, slots=True)
class EnrolmentList:
    """Every record, by device. `unreadable`: key and reason of what is none."""

    records: tuple[Enrolment, ...]
    unreadable: tuple[tuple[str, str], ...]

    def to_json(self) -> str:
        """One object."""
        unreadable = [{"key": key, "reason": reason} for key, reason in self.unreadable]
        records = [record.model_dump(mode="json") for record in self.records]
        return json.dumps({"devices": records, "unreadable": unreadable}, indent=2)


async def collect(enrolments: Enrolments) -> EnrolmentList:
    """Read everything once. Raises: Unavailable, TimedOut, Disconnected, NotPermitted."""
    return EnrolmentList(*await enrolments.all())


def show(seen: EnrolmentList, console: Console) -> None:
    """Print it for people."""
    table = Table("device", "user", "standing", "since", "reason", box=None, pad_edge=False, header_style="bold")
    for record in seen.records:
        table.add_row(record.device, record.user, *(escape(text) for text in standing(record)))
    for key, reason in seen.unreadable:
        table.add_row(escape(key), "", "[red]unreadable[/]", "", escape(reason))
    if table.row_count:
        console.print(table)
    else:
        console.print("no device is enrolled")


def standing(record: Enrolment) -> tuple[str, str, str]:
    """The standing, since when, and why."""
    match record.standing:
        case Admitted(tokens_from=since):
            return "admitted", since.utc(), ""
        case Revoked(at=at, reason=reason):
            return "revoked", at.utc(), reason
        case _:
            assert_never(record.standing)

"""What `fleet device list` and `fleet device reconcile` show: who is which device, and whether it is let in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import assert_never

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fleet.contracts.records import Admitted, Enrolment, Revoked
from fleet.identity.enrolments import Enrolments
from fleet.identity.reconcile import Admit, Finding, Reconciled, Refuse, Unclear


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


def show_reconciled(seen: Reconciled, only_looked: bool, console: Console) -> None:
    """Print what was found, and what was made of it."""
    table = Table("device", "found", "done", box=None, pad_edge=False, header_style="bold")
    for finding in seen.findings:
        found, done = _told(finding)
        table.add_row(finding.device, found, "nothing: only looked" if only_looked else done)
    for key, reason in seen.unreadable:
        table.add_row(escape(key), f"[red]unreadable[/]: {escape(reason)}", "nothing: delete it or repair it")
    if table.row_count:
        console.print(table)
    console.print(f"{seen.agreed} devices stand on the bus as they do at the provider")


def _told(finding: Finding) -> tuple[str, str]:
    match finding:
        case Admit():
            return "the provider lets it in, the bus does not know it", "admitted, with tokens from now on"
        case Refuse():
            return "the provider has it deactivated, the bus does not say so", "revoked"
        case Unclear(advice=advice):
            return escape(advice), "nothing"
        case _:
            assert_never(finding)


def standing(record: Enrolment) -> tuple[str, str, str]:
    """The standing, since when, and why."""
    match record.standing:
        case Admitted(tokens_from=since):
            return "admitted", since.utc(), ""
        case Revoked(at=at, reason=reason):
            return "revoked", at.utc(), reason
        case _:
            assert_never(record.standing)

"""What `fleet rollout status NAME` shows: the rollout, its groups, and the devices that did not make it, with reasons.

The counts are the operator's, from the rollout's status. The reasons are the devices' own words, from their reports:
the status has room for a few examples only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fleet.capabilities.bus import Bus, Stored
from fleet.capabilities.objects import Objects
from fleet.contracts import layout
from fleet.contracts.ids import ObjectName
from fleet.contracts.layout import Bucket, Valid
from fleet.contracts.objects import AgentRollout, RunState
from fleet.contracts.records import (
    DeferredUpgrade,
    InProgress,
    RefusedUpgrade,
    RolledBack,
    Succeeded,
    UpgradePhase,
    UpgradeState,
)


@dataclass(frozen=True, slots=True)
class RolloutView:
    """A rollout, and the newest report of each device whose attempt is one of its own and has not succeeded."""

    rollout: AgentRollout
    reports: tuple[UpgradeState, ...]


async def collect(name: ObjectName, bus: Bus, objects: Objects) -> RolloutView:
    """Read everything once. Raises: NotFound, InvalidValue, Unavailable, TimedOut, Disconnected."""
    rollout = await objects.get(AgentRollout, name)
    prefix = f"{name}-{rollout.status.sequence}-"
    found: list[UpgradeState] = []
    for entry in await bus.entries(Bucket.STATE):
        if not isinstance(entry, Stored):
            continue
        read = layout.read(entry.bucket, entry.key, entry.value, entry.revision)
        record = read.record if isinstance(read, Valid) else None
        if isinstance(record, UpgradeState) and record.attempt.startswith(prefix):
            found += [] if isinstance(record.status, Succeeded) else [record]
    return RolloutView(rollout, tuple(sorted(found, key=lambda report: report.device)))


def show(seen: RolloutView, console: Console) -> None:
    """Print it for people."""
    item, now = seen.rollout, seen.rollout.status
    release = item.spec.artefacts[0].release
    counts = f"{now.upgraded} of {now.total} upgraded, {now.failed} failed"
    console.print(f"rollout {item.name}: [bold]{now.phase}[/], {release}, {counts}")
    if now.observed_generation != item.metadata.generation:
        console.print("the operator has not taken note of the newest change yet")
    if item.spec.run is not RunState.RUNNING:
        console.print(f"asked to be {item.spec.run}")
    if now.message:
        console.print(escape(now.message))
    console.print()
    _print(console, ("group", "phase", "upgraded", "failed", "offline"), _groups(item))
    _print(console, ("device", "status", "phase", "reason"), (_device(report) for report in seen.reports))


def _groups(item: AgentRollout) -> Iterable[Sequence[str]]:
    for group in item.status.groups:
        yield group.name, group.phase, f"{group.upgraded}/{group.total}", str(group.failed), str(group.offline)


def _device(report: UpgradeState) -> Sequence[str]:
    status = report.status
    match status:
        case InProgress():
            waits = status.phase is UpgradePhase.LOCKING
            return report.device, "waits for a slot" if waits else "under way", status.phase, ""
        case RolledBack() | RefusedUpgrade() | DeferredUpgrade():
            return report.device, status.status, status.phase, escape(status.reason)
        case Succeeded():
            return report.device, status.status, "", ""
        case _:
            assert_never(status)


def _print(console: Console, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*heads, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    if table.row_count:
        console.print(table)
        console.print()

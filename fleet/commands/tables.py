"""`fleet status` as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fleet.commands.status import FleetStatus
from fleet.contracts.objects import DevicePhase

_COLOURS = {DevicePhase.READY: "green", DevicePhase.STALE: "red", DevicePhase.PENDING: "yellow"}


def show(status: FleetStatus, console: Console) -> None:
    """Print it. Empty tables are left out, the line of totals never is."""
    _print(console, ("rollout", "phase", "upgraded", "failed", "message"), _rollouts(status))
    _print(console, ("deployment", "ready"), _deployments(status))
    _print(console, ("device", "phase", "release", "since"), _devices(status))
    _print(console, ("where", "unreadable", "reason"), _problems(status))
    ready = sum(device.status.phase is DevicePhase.READY for device in status.devices)
    cloned = sum(device.status.cloned is not None for device in status.devices)
    extra = f", {cloned} devices with two machines under one identity" if cloned else ""
    console.print(f"{ready} of {len(status.devices)} devices ready, {len(status.problems)} unreadable entries{extra}")


def _print(console: Console, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*heads, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    if table.row_count:
        console.print(table)
        console.print()


def _rollouts(status: FleetStatus) -> Iterable[Sequence[str]]:
    for item in status.rollouts:
        now = item.status
        yield item.name, now.phase.value, f"{now.upgraded}/{now.total}", str(now.failed), escape(now.message)


def _deployments(status: FleetStatus) -> Iterable[Sequence[str]]:
    for item in status.deployments:
        yield item.name, f"{item.status.ready}/{item.status.desired}"


def _devices(status: FleetStatus) -> Iterable[Sequence[str]]:
    for item in status.devices:
        now = item.status
        phase = f"[{_COLOURS[now.phase]}]{now.phase.value}[/]" + (" [red]cloned[/]" if now.cloned is not None else "")
        release = "" if now.release is None else str(now.release)
        yield item.name, phase, release, "" if now.since is None else now.since.utc()


def _problems(status: FleetStatus) -> Iterable[Sequence[str]]:
    for problem in status.problems:
        yield problem.where, escape(problem.name), escape(problem.reason)

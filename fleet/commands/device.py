"""What `fleet device show NAME` shows: everything the fleet knows of one device, for somebody who has it in trouble.

Read straight from the objects and the buckets, so that it works while no operator runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fleet.capabilities.bus import Bus, Stored
from fleet.capabilities.objects import Objects
from fleet.commands.enrolments import standing
from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue, NotFound
from fleet.contracts.ids import DeploymentName, DeviceId, ObjectName, Slot
from fleet.contracts.layout import Bucket, Invalid, Valid
from fleet.contracts.objects import Device
from fleet.contracts.records import (
    ContainerCondition,
    DesiredAgent,
    DesiredWorkloads,
    DeviceInfo,
    Enrolment,
    Heartbeat,
    InProgress,
    Record,
    Succeeded,
    UpgradeState,
    WorkloadState,
)


@dataclass(frozen=True, slots=True)
class DeviceView:
    """The object, and every readable record under the device's keys. `unreadable`: key and reason of the others."""

    device: DeviceId
    object: Device | None
    records: tuple[Record, ...]
    unreadable: tuple[tuple[str, str], ...]

    def to_json(self) -> str:
        """One JSON object; records by their type."""
        return json.dumps(
            {
                "device": self.device,
                "object": None if self.object is None else self.object.model_dump(mode="json", by_alias=True),
                "records": [
                    {"record": type(record).__name__, **record.model_dump(mode="json")} for record in self.records
                ],
                "unreadable": [{"key": key, "reason": reason} for key, reason in self.unreadable],
            },
            indent=2,
        )


async def collect(device: DeviceId, bus: Bus, objects: Objects) -> DeviceView:
    """Read everything once.

    Raises:
        NotFound: neither an object nor a single key of that device exists.
        Unavailable, TimedOut, Disconnected.
    """
    records: list[Record] = []
    unreadable: list[tuple[str, str]] = []
    for bucket in (Bucket.IDENTITY, Bucket.INFO, Bucket.DESIRED, Bucket.STATE, Bucket.HEARTBEAT):
        for entry in await bus.entries(bucket, device):
            if not isinstance(entry, Stored):
                continue
            read = layout.read(entry.bucket, entry.key, entry.value, entry.revision)
            match read:
                case Valid(record):
                    records.append(record)
                case Invalid(key=key, reason=reason):
                    unreadable.append((f"{bucket}/{ascii(key)[1:-1]}", reason))
    item = await _object(device, objects, unreadable)
    if item is None and not records and not unreadable:
        raise NotFound(f"no device {device} is known: `fleet status` lists them")
    return DeviceView(device, item, tuple(records), tuple(unreadable))


async def _object(device: DeviceId, objects: Objects, unreadable: list[tuple[str, str]]) -> Device | None:
    try:
        return await objects.get(Device, ObjectName(device))
    except NotFound:
        return None
    except InvalidValue as error:
        unreadable.append((f"object Device {device}", str(error)))
        return None


def show(seen: DeviceView, console: Console) -> None:
    """Print it for people."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for head, text in _facts(seen):
        table.add_row(head, escape(text))
    console.print(table)
    for heads, rows in (
        (("slot", "release", "role", "heartbeat", "up for", "start"), _instances(seen)),
        (("workload", "container", "condition", "detail"), _workloads(seen)),
        (("unreadable", "reason"), seen.unreadable),
    ):
        _print(console, heads, rows)


def _facts(seen: DeviceView) -> Iterable[tuple[str, str]]:
    item = seen.object
    yield "device", seen.device
    yield "phase", "no object: run `fleet device create`" if item is None else _phase(item)
    if item is not None and item.status.cloned is not None:
        boots = " and ".join(item.status.cloned.boots)
        yield "cloned", f"two machines have its identity since {item.status.cloned.since.utc()}, with boots {boots}"
    for record in seen.records:
        match record:
            case Enrolment():
                how, since, reason = standing(record)
                yield "identity", f"{how} as user {record.user} since {since}{f': {reason}' if reason else ''}"
            case DeviceInfo():
                yield "hardware", f"{record.hardware}, {record.operating_system}, {record.architecture}"
                yield "machine id", record.machine_id
                yield "releases on disk", ", ".join(str(release) for release in record.releases_on_disk)
            case DesiredAgent():
                yield "desired release", f"{record.artefact.release} by attempt {record.attempt}"
                yield "upgrade slot", "not given" if record.granted is None else f"given {record.granted.utc()}"
                yield "confirmed", "nobody" if record.confirmed is None else str(record.confirmed)
            case UpgradeState():
                yield "upgrade", f"{_status(record)}, reported by {record.reporter}"
            case DesiredWorkloads():
                yield "desired workloads", ", ".join(record.deployments) or "none"
            case _:
                continue


def _phase(item: Device) -> str:
    since = "" if item.status.since is None else f" since {item.status.since.utc()}"
    return f"{item.status.phase}{since}"


def _status(report: UpgradeState) -> str:
    told = f"attempt {report.attempt} to {report.release}: {report.status.status}"
    match report.status:
        case Succeeded():
            return told
        case InProgress(phase=phase):
            return f"{told} ({phase})"
        case status:
            return f"{told} ({status.phase}): {status.reason}"


def _instances(seen: DeviceView) -> Iterable[Sequence[str]]:
    beats = {record.slot: record for record in seen.records if isinstance(record, Heartbeat)}
    for slot in Slot:
        if slot in beats:
            beat = beats[slot]
            yield slot, str(beat.release), beat.role, beat.sent.utc(), str(beat.uptime), str(beat.instance.start)


def _workloads(seen: DeviceView) -> Iterable[Sequence[str]]:
    told: dict[DeploymentName, WorkloadState] = {}
    for record in seen.records:
        if isinstance(record, WorkloadState):
            told[record.deployment] = record
    for name, state in sorted(told.items()):
        for report in state.containers:
            colour = "green" if report.condition is ContainerCondition.RUNNING else "red"
            yield name, report.name, f"[{colour}]{report.condition}[/]", escape(report.detail)


def _print(console: Console, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*heads, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    if table.row_count:
        console.print()
        console.print(table)

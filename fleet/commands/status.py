"""What `fleet status` shows: devices, deployments, rollouts, and everything that cannot be read.

Read straight from the objects and the buckets, so that it works while no operator runs, and shows exactly what an
operator would trip over.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from fleet.capabilities.bus import Bus, Stored
from fleet.capabilities.objects import InvalidObject, Objects
from fleet.contracts import layout
from fleet.contracts.layout import Bucket, Invalid
from fleet.contracts.objects import AgentRollout, Deployment, Device


@dataclass(frozen=True, slots=True)
class Problem:
    """An entry or object that cannot be read. The name is made printable."""

    where: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """The fleet at a glance."""

    devices: tuple[Device, ...]
    deployments: tuple[Deployment, ...]
    rollouts: tuple[AgentRollout, ...]
    problems: tuple[Problem, ...]

    def to_json(self) -> str:
        """One JSON object; objects by their wire names."""
        return json.dumps(
            {
                "devices": [item.model_dump(mode="json", by_alias=True) for item in self.devices],
                "deployments": [item.model_dump(mode="json", by_alias=True) for item in self.deployments],
                "rollouts": [item.model_dump(mode="json", by_alias=True) for item in self.rollouts],
                "problems": [
                    {"where": problem.where, "name": problem.name, "reason": problem.reason}
                    for problem in self.problems
                ],
            },
            indent=2,
        )


async def collect(bus: Bus, objects: Objects) -> FleetStatus:
    """Read everything once. Raises: Unavailable, TimedOut, Disconnected."""
    devices = await objects.list(Device)
    deployments = await objects.list(Deployment)
    rollouts = await objects.list(AgentRollout)
    unreadable = [*devices.invalid, *deployments.invalid, *rollouts.invalid]
    problems = [_of_object(bad) for bad in unreadable]
    for bucket in (Bucket.DESIRED, Bucket.STATE, Bucket.INFO, Bucket.HEARTBEAT):
        for entry in await bus.entries(bucket):
            if isinstance(entry, Stored):
                read = layout.read(entry.bucket, entry.key, entry.value, entry.revision)
                problems += [_of_entry(read)] if isinstance(read, Invalid) else []
    return FleetStatus(devices.items, deployments.items, rollouts.items, tuple(problems))


def _of_object(bad: InvalidObject) -> Problem:
    return Problem(bad.kind, _printable(bad.name), bad.reason)


def _of_entry(bad: Invalid) -> Problem:
    return Problem(bad.bucket.value, _printable(bad.key), bad.reason)


def _printable(name: str) -> str:
    return name if name.isascii() and name.isprintable() else ascii(name)

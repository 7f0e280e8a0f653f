"""The deployments: which workloads each device shall run, and how far each deployment is. Pure.

An object that cannot be read decides nothing: workloads that an unreadable deployment has placed stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

from fleet.contracts import layout
from fleet.contracts.ids import DeploymentName, ObjectName
from fleet.contracts.objects import Deployment, DeploymentStatus
from fleet.contracts.podman import PodmanScore
from fleet.contracts.records import DesiredWorkload, DesiredWorkloads
from fleet.operator.events import Delete, Update
from fleet.operator.fleet_state import NOTHING, DeviceView, Kept


class Placement:
    """All deployments."""

    def __init__(self) -> None:
        self.deployments: dict[ObjectName, Deployment] = {}
        self.unreadable: dict[ObjectName, None] = {}
        self.dirty: dict[ObjectName, None] = {}
        """Deployments whose status has to be looked at."""

    def put(self, item: Deployment) -> bool:
        """Take a deployment in; answers whether workloads have to be placed again."""
        known = self.deployments.get(item.name)
        self.deployments[item.name] = item
        self.deployments = dict(sorted(self.deployments.items()))
        was_unreadable = self.unreadable.pop(item.name, False) is None
        self.dirty[item.name] = None
        return was_unreadable or known is None or known.spec != item.spec

    def drop(self, name: ObjectName) -> bool:
        """Forget a deployment that was deleted; answers whether workloads have to be placed again."""
        was_unreadable = self.unreadable.pop(name, False) is None
        self.dirty.pop(name, None)
        return self.deployments.pop(name, None) is not None or was_unreadable

    def blur(self, name: ObjectName) -> None:
        """The deployment is there but cannot be read."""
        self.deployments.pop(name, None)
        self.dirty.pop(name, None)
        self.unreadable[name] = None

    def touch(self, view: DeviceView) -> None:
        """Something of a device changed that its deployments count."""
        for name in self.wanted(view):
            self.dirty[ObjectName(name)] = None

    def touch_all(self) -> None:
        """A device came, went or was relabelled."""
        self.dirty = dict.fromkeys(self.deployments)

    def wanted(self, view: DeviceView) -> dict[DeploymentName, PodmanScore]:
        """What a device shall run, by name."""
        if view.object is None:
            return {}
        labels = view.object.metadata.labels
        chosen = (item for item in self.deployments.values() if item.spec.selector.matches(labels))
        return {DeploymentName(item.name): item.spec.score for item in chosen}

    def instructions(self, view: DeviceView) -> list[Update | Delete]:
        """What has to be written for a device. Nothing while its own object cannot be read."""
        if view.unreadable:
            return []
        wanted = self.wanted(view)
        kept = {name: slot for name, slot in view.workloads.items() if ObjectName(name) in self.unreadable}
        writes: list[Update | Delete] = []
        for name, score in wanted.items():
            record = DesiredWorkload(device=view.device, deployment=name, score=score)
            slot = view.workloads.get(name, Kept())
            if not (slot.stands and slot.record == record):
                writes.append(Update(layout.desired_workload(view.device, name).key, record, slot.last))
        for name, slot in sorted(view.workloads.items()):
            if name not in wanted and name not in kept and not slot.untouched:
                writes.append(Delete(layout.desired_workload(view.device, name).key, slot.last))
        standing = [name for name, slot in kept.items() if not slot.untouched]
        return writes + _index(view, [*wanted, *standing])

    def status(self, name: ObjectName, views: Iterable[DeviceView]) -> DeploymentStatus:
        """The status as it shall be written now."""
        item = self.deployments[name]
        selected = [
            view
            for view in views
            if view.object is not None and item.spec.selector.matches(view.object.metadata.labels)
        ]
        ready = sum(_is_ready(view, DeploymentName(name), item.spec.score) for view in selected)
        return DeploymentStatus(observed_generation=item.metadata.generation, desired=len(selected), ready=ready)


def _index(view: DeviceView, names: list[DeploymentName]) -> list[Update | Delete]:
    record = DesiredWorkloads(device=view.device, deployments=tuple(sorted(names)))
    if view.index.stands and view.index.record == record:
        return []
    if not names and view.index.untouched:
        return []
    return [Update(layout.desired_workloads(view.device).key, record, view.index.last)]


def _is_ready(view: DeviceView, name: DeploymentName, score: PodmanScore) -> bool:
    slot, (_, report) = view.workloads.get(name), view.reports.get(name, (NOTHING, None))
    if slot is None or report is None or not slot.stands or not isinstance(slot.record, DesiredWorkload):
        return False
    return slot.record.score == score and report.desired == slot.revision and report.healthy

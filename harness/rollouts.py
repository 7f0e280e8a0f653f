"""Which devices belong to a group of a rollout, by their labels: shared by whoever judges rollouts."""

from __future__ import annotations

from fleet.contracts.ids import AttemptId, DeviceId
from fleet.contracts.objects import AgentRollout, RolloutGroup
from harness.scenario import Cast


class Groups:
    """The members of groups, for the devices of a scenario."""

    def __init__(self, cast: Cast) -> None:
        self._labels = dict(zip(cast.devices, cast.plan.labels, strict=True))
        self._known: dict[tuple[str, int, str], list[DeviceId]] = {}

    def members(self, rollout: AgentRollout, group: RolloutGroup) -> list[DeviceId]:
        """The devices of a group, in the order of the scenario."""
        key = (rollout.name, rollout.metadata.generation, group.name)
        if key not in self._known:
            self._known[key] = [device for device in self._labels if self.group(rollout, device) == group]
        return self._known[key]

    def group(self, rollout: AgentRollout, device: DeviceId) -> RolloutGroup | None:
        """The first group that selects the device."""
        labels = self._labels.get(device)
        if labels is None:
            return None
        return next((group for group in rollout.spec.groups if group.selector.matches(labels)), None)


def is_of(attempt: AttemptId, rollout: AgentRollout) -> bool:
    """The attempt belongs to the rollout's present beginning."""
    return attempt.startswith(f"{rollout.name}-{rollout.status.sequence}-")

"""The interpreter of `PodmanScore`: a workload for every selected device. The Score itself is part of the contracts."""

from __future__ import annotations

from fleet.capabilities.objects import Objects
from fleet.contracts.ids import ObjectName
from fleet.contracts.objects import Deployment, DeploymentSpec, Metadata, Selector
from fleet.contracts.podman import PodmanScore
from fleet.scores.outcome import Changed, Created, Unchanged, ensure

PodmanOutcome = Created[Deployment] | Changed[Deployment] | Unchanged[Deployment]


async def interpret(score: PodmanScore, name: ObjectName, selector: Selector, objects: Objects) -> PodmanOutcome:
    """Deploy the workload under a name to the selected devices.

    Raises: as `fleet.scores.outcome.ensure`.
    """
    spec = DeploymentSpec(selector=selector, score=score)
    return await ensure(objects, Deployment(metadata=Metadata(name=name), spec=spec))

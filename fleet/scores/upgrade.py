"""An agent upgrade as a Score: a release for groups of devices. Rolling back is the same Score with another release."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from fleet.capabilities.objects import Objects
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import Frozen, ObjectName
from fleet.contracts.objects import AgentRollout, Metadata, RolloutGroup, RolloutSpec
from fleet.contracts.records import Artefact
from fleet.scores.outcome import Changed, Created, Unchanged, ensure


class AgentUpgradeScore(Frozen):
    """Devices shall run a release of the agent.

    Args:
        name: of the rollout. The same name again changes that rollout; another name makes a later one, which wins.
        artefacts: the release, one file per architecture, all of one version.
        groups: devices in the order of their turns.

    Raises:
        InvalidValue: several versions, two artefacts for one architecture, or two groups of one name.
    """

    name: ObjectName
    artefacts: Annotated[tuple[Artefact, ...], Field(min_length=1)]
    groups: Annotated[tuple[RolloutGroup, ...], Field(min_length=1)] = (RolloutGroup(name=ObjectName("all")),)

    @model_validator(mode="after")
    def _is_consistent(self) -> AgentUpgradeScore:
        versions = {artefact.release.version for artefact in self.artefacts}
        if len(versions) > 1:
            raise InvalidValue(f"the artefacts are of several versions: {', '.join(sorted(versions))}")
        _no_repeats("artefacts for", [artefact.architecture.value for artefact in self.artefacts])
        _no_repeats("groups named", [group.name for group in self.groups])
        return self


def _no_repeats(what: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidValue(f"there are two {what} {', '.join(repeated)}")


UpgradeOutcome = Created[AgentRollout] | Changed[AgentRollout] | Unchanged[AgentRollout]


async def interpret(score: AgentUpgradeScore, objects: Objects) -> UpgradeOutcome:
    """Ask the operator for the upgrade. It goes on from there; its progress is the rollout's status.

    Raises: as `fleet.scores.outcome.ensure`.
    """
    spec = RolloutSpec(artefacts=score.artefacts, groups=score.groups)
    return await ensure(objects, AgentRollout(metadata=Metadata(name=score.name), spec=spec))

"""What the user's steps write: objects, and nothing else. Tries again where the store says that this is safe."""

from __future__ import annotations

from typing import TypeVar

from fleet.contracts.errors import Conflict, NotFound, Unavailable, Unknown
from fleet.contracts.ids import ObjectName, Percent
from fleet.contracts.objects import (
    AgentRollout,
    Deployment,
    DeploymentSpec,
    MaxUnavailable,
    Metadata,
    RolloutGroup,
    RolloutSpec,
    Selector,
)
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.time import Duration
from harness.scenario import Cast
from harness.schema_steps import ContainerSpec, Deploy, Share, Undeploy, Upgrade
from harness.targets.port import Session

RETRY = Duration.seconds(1)
TRIES = 60

O = TypeVar("O", Deployment, AgentRollout)  # noqa: E741 - the one-letter name of the type variable, as in the ports


async def deploy(session: Session, cast: Cast, step: Deploy) -> None:
    """Write the `Deployment`."""
    score = PodmanScore(containers=tuple(_container(spec) for spec in step.containers))
    spec = DeploymentSpec(selector=_selector(cast, step.group), score=score)
    await _apply(session, Deployment(metadata=Metadata(name=ObjectName(step.name)), spec=spec))


async def undeploy(session: Session, step: Undeploy) -> None:
    """Delete the `Deployment`."""
    for left in reversed(range(TRIES)):
        try:
            await session.objects.delete(Deployment, ObjectName(step.name))
        except NotFound:
            return  # deleted, now or by an earlier try whose answer was lost
        except (Unavailable, Unknown):
            if not left:
                raise
            await session.clock.sleep(RETRY)
        else:
            return


async def upgrade(session: Session, cast: Cast, step: Upgrade) -> None:
    """Write the `AgentRollout`; one of that name gets another plan."""
    groups = tuple(
        RolloutGroup(
            name=ObjectName(name), selector=_selector(cast, name), max_unavailable=_share(step.max_unavailable)
        )
        for name in step.groups
    )
    spec = RolloutSpec(artefacts=session.artefacts(step.to), groups=groups)
    await _apply(session, AgentRollout(metadata=Metadata(name=step.name), spec=spec))


def _container(spec: ContainerSpec) -> Container:
    environment = tuple(sorted(spec.environment.items()))
    return Container(name=spec.name, image=spec.image, command=spec.command, environment=environment)


def _selector(cast: Cast, group: str) -> Selector:
    return Selector(match_labels=cast.labels_of(group))


def _share(share: Share) -> MaxUnavailable:
    return MaxUnavailable(count=share.count, percent=None if share.percent is None else Percent(share.percent))


async def _apply(session: Session, item: O) -> None:
    """Create the object, or give the one of that name this spec."""
    for left in reversed(range(TRIES)):
        try:
            await _write(session, item)
        except (Conflict, NotFound, Unavailable, Unknown):
            if not left:
                raise
            await session.clock.sleep(RETRY)
        else:
            return


async def _write(session: Session, item: O) -> None:
    kind: type[O] = type(item)
    try:
        present = await session.objects.get(kind, item.name)
    except NotFound:
        await session.objects.create(item)
        return
    if present.spec != item.spec:
        await session.objects.replace(present.changed(spec=item.spec))

"""The brain of workload reconciliation: desired workloads and container facts in, actions out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from fleet.capabilities.containers import ContainerFact
from fleet.contracts.ids import DeploymentName, Revision
from fleet.contracts.podman import Container
from fleet.contracts.records import ContainerCondition, ContainerReport, DesiredWorkload


@dataclass(frozen=True, slots=True)
class Wanted:
    """A desired workload and the revision at which it was written."""

    workload: DesiredWorkload
    revision: Revision


@dataclass(frozen=True, slots=True)
class Run:
    """Pull the image, create the container and start it.

    `replaces`: one of that name is there and is removed in between, after the pull, so that it is missed as briefly as
    possible, and not at all when there is no image.
    """

    deployment: DeploymentName
    container: Container
    fingerprint: str
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Start a container that is there and does not run."""

    deployment: DeploymentName
    name: DeploymentName


@dataclass(frozen=True, slots=True)
class Remove:
    """Stop a container and remove it."""

    deployment: DeploymentName
    name: DeploymentName


Action = Run | Start | Remove
_Key = tuple[DeploymentName, DeploymentName]


def fingerprint(container: Container) -> str:
    """What a container was made from, in 64 hexadecimal digits: another one is another container.

    Defaults are left out: a release that knows one field more must not take every running container for another one.
    """
    return sha256(container.model_dump_json(exclude_defaults=True).encode()).hexdigest()


def plan(wanted: Mapping[DeploymentName, Wanted], present: tuple[ContainerFact, ...]) -> tuple[Action, ...]:
    """What to do, removals first. Nothing for a container that runs and is what it should be."""
    desired = _desired(wanted)
    there = {(fact.deployment, fact.name): fact for fact in present}
    removals = [Remove(*key) for key in there if key not in desired]
    starts: list[Action] = []
    for key, container in desired.items():
        fact, wished = there.get(key), fingerprint(container)
        if fact is None or fact.fingerprint != wished:
            starts.append(Run(key[0], container, wished, replaces=fact is not None))
        elif not fact.running:
            starts.append(Start(*key))
    return (*removals, *starts)


def report(
    wanted: Wanted, present: tuple[ContainerFact, ...], problems: Mapping[_Key, str]
) -> tuple[ContainerReport, ...]:
    """How the containers of one workload are; `problems` says why one could not be brought up."""
    deployment = wanted.workload.deployment
    there = {fact.name: fact for fact in present if fact.deployment == deployment}
    return tuple(
        _report(container, there.get(container.name), problems.get((deployment, container.name), ""))
        for container in wanted.workload.score.containers
    )


def _report(container: Container, fact: ContainerFact | None, problem: str) -> ContainerReport:
    if fact is not None and fact.running and fact.fingerprint == fingerprint(container):
        condition = ContainerCondition.RUNNING
    elif problem:
        condition = ContainerCondition.FAILED
    else:
        condition = ContainerCondition.STARTING
    detail = problem[:1000] if condition is ContainerCondition.FAILED else ""
    return ContainerReport(name=container.name, image=container.image, condition=condition, detail=detail)


def _desired(wanted: Mapping[DeploymentName, Wanted]) -> dict[_Key, Container]:
    return {
        (name, container.name): container
        for name in sorted(wanted)
        for container in wanted[name].workload.score.containers
    }

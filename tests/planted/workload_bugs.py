"""Bugs in what an agent does with containers, and in what it says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent import workloads
from agent.reconcile import Reconciler
from agent.reports import Reports
from agent.workloads import Action, Run, Wanted
from fleet.capabilities.containers import ContainerFact
from fleet.contracts.ids import AttemptId, DeploymentName
from fleet.contracts.podman import Container
from fleet.contracts.records import ContainerCondition, ContainerReport, Record, WorkloadState
from fleet.contracts.time import Duration
from tests.planted.plant import CHECK, STUCK, Bug, Patch
from tests.planted.stories import CHANGED, REMOVED, SILENT_ENGINE


def old_image_kept(patch: Patch) -> None:
    plan, report = workloads.plan, workloads._report

    def lazy(wanted: Mapping[DeploymentName, Wanted], present: tuple[ContainerFact, ...]) -> tuple[Action, ...]:
        return tuple(item for item in plan(wanted, present) if not (isinstance(item, Run) and item.replaces))

    def content(container: Container, fact: ContainerFact | None, problem: str) -> ContainerReport:
        if fact is None or not fact.running:
            return report(container, fact, problem)
        return ContainerReport(name=container.name, image=container.image, condition=ContainerCondition.RUNNING)

    patch.setattr(workloads, "plan", lazy)
    patch.setattr(workloads, "_report", content)


def new_image_not_pulled(patch: Patch) -> None:

    act = Reconciler._act

    async def cheap(reconciler: Reconciler, action: Action) -> None:
        if isinstance(action, Run) and action.replaces:
            return
        await act(reconciler, action)

    patch.setattr(Reconciler, "_act", cheap)


def drained_while_the_engine_is_silent(patch: Patch) -> None:
    async def at_once(reconciler: Reconciler, owner: AttemptId, deadline: Duration) -> str:
        reconciler.hold(owner)
        return ""

    patch.setattr(Reconciler, "drain", at_once)


def health_reported_blindly(patch: Patch) -> None:
    want = Reports.want

    def hopeful(reports: Reports, record: Record) -> None:
        if isinstance(record, WorkloadState):
            well = tuple(
                item.model_copy(update={"condition": ContainerCondition.RUNNING, "detail": ""})
                for item in record.containers
            )
            record = record.model_copy(update={"containers": well})
        want(reports, record)

    async def nothing(reconciler: Reconciler, action: Action) -> None:
        return

    patch.setattr(Reports, "want", hopeful)
    patch.setattr(Reconciler, "_act", nothing)


def removed_containers_left(patch: Patch) -> None:
    plan = workloads.plan

    def keep(wanted: Mapping[DeploymentName, Wanted], present: tuple[ContainerFact, ...]) -> tuple[Action, ...]:
        return tuple(item for item in plan(wanted, present) if not isinstance(item, workloads.Remove))

    patch.setattr(workloads, "plan", keep)


BUGS: Final = (
    Bug(
        "old image kept",
        "a device says that it runs the new image, and runs the old one",
        CHANGED,
        (STUCK,),
        old_image_kept,
    ),
    Bug(
        "changed container not made again",
        "a workload never comes to what is desired of it",
        CHANGED,
        (STUCK,),
        new_image_not_pulled,
    ),
    Bug(
        "drained while the engine is silent",
        "nobody knows how the workloads are, and the upgrade goes on",
        SILENT_ENGINE,
        (CHECK,),
        drained_while_the_engine_is_silent,
    ),
    Bug(
        "health reported blindly",
        "a workload is called ready that was never started",
        CHANGED,
        (STUCK,),
        health_reported_blindly,
    ),
    Bug(
        "containers of removed workloads left",
        "what nobody wants any more runs on",
        REMOVED,
        (STUCK, CHECK),
        removed_containers_left,
    ),
)

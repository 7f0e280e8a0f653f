"""What is done to containers, and what is left alone."""

from __future__ import annotations

from agent.workloads import Remove, Run, Start, Wanted, fingerprint, plan, report
from fleet.capabilities.containers import ContainerFact
from fleet.contracts.ids import DeploymentName, DeviceId, Revision
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.records import ContainerCondition, DesiredWorkload

WEB, FRONT, BACK = DeploymentName("web"), DeploymentName("front"), DeploymentName("back")


def box(name: DeploymentName = FRONT, image: str = "x:1") -> Container:
    return Container(name=name, image=image)


def wanted(*containers: Container) -> dict[DeploymentName, Wanted]:
    score = PodmanScore(containers=containers)
    desired = DesiredWorkload(device=DeviceId("dev-1"), deployment=WEB, score=score)
    return {WEB: Wanted(desired, Revision(3))}


def fact(container: Container, *, running: bool = True, deployment: DeploymentName = WEB) -> ContainerFact:
    return ContainerFact(deployment, container.name, container.image, fingerprint(container), running)


def test_a_missing_container_is_run() -> None:
    assert plan(wanted(box()), ()) == (Run(WEB, box(), fingerprint(box())),)


def test_what_runs_as_it_should_is_left_alone() -> None:
    assert plan(wanted(box()), (fact(box()),)) == ()


def test_a_stopped_container_is_started_and_not_made_anew() -> None:
    assert plan(wanted(box()), (fact(box(), running=False),)) == (Start(WEB, FRONT),)


def test_a_changed_container_is_replaced_after_its_image_is_there() -> None:
    new = box(image="x:2")
    assert plan(wanted(new), (fact(box()),)) == (Run(WEB, new, fingerprint(new), replaces=True),)


def test_orphans_are_removed_first_and_the_neighbour_is_left_alone() -> None:
    orphan = fact(box(), deployment=DeploymentName("gone"))
    actions = plan(wanted(box(), box(BACK)), (orphan, fact(box()), fact(box(name=DeploymentName("old")))))
    assert actions == (
        Remove(DeploymentName("gone"), FRONT),
        Remove(WEB, DeploymentName("old")),
        Run(WEB, box(BACK), fingerprint(box(BACK))),
    )


def test_every_part_of_a_container_is_in_its_fingerprint() -> None:
    variants = [
        box(),
        box(BACK),
        box(image="x:2"),
        Container(name=FRONT, image="x:1", command=("run",)),
        Container(name=FRONT, image="x:1", environment=(("a", "b"),)),
    ]
    assert len({fingerprint(variant) for variant in variants}) == len(variants)


def test_a_report_tells_running_starting_and_failed_apart() -> None:
    item = wanted(box(), box(BACK), box(DeploymentName("last")))[WEB]
    told = report(item, (fact(box()),), {(WEB, BACK): "no image" * 500})
    conditions = [one.condition for one in told]
    assert conditions == [ContainerCondition.RUNNING, ContainerCondition.FAILED, ContainerCondition.STARTING]
    assert told[1].detail.startswith("no image")
    assert len(told[1].detail) <= 1024
    assert told[0].detail == ""


def test_a_container_of_another_fingerprint_does_not_count_as_running() -> None:
    told = report(wanted(box(image="x:2"))[WEB], (fact(box()),), {})
    assert told[0].condition is ContainerCondition.STARTING

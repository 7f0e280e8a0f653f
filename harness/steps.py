"""What the user's steps write: objects, and nothing else. Tries again where the store says that this is safe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import assert_never

from fleet.contracts.errors import Conflict, NotFound, Unavailable, Unknown
from fleet.contracts.ids import DeviceId, ObjectName, Percent
from fleet.contracts.objects import (
    Deployment,
    DeploymentSpec,
    HaltOnly,
    MaxFailed,
    MaxUnavailable,
    Metadata,
    OnHalt,
    RollBackGroup,
    RolloutGroup,
    RunState,
    Selector,
)
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.time import Duration
from fleet.scores.upgrade import AgentUpgradeScore, interpret, retry, set_run_state
from harness.faults import SecretDamage
from harness.scenario import Cast
from harness.schema_fault_blocks import CorruptSecret
from harness.schema_faults import AnyFault
from harness.schema_steps import (
    Abort,
    AnyStep,
    ContainerSpec,
    Deploy,
    Install,
    Pause,
    Reconcile,
    ReEnroll,
    Resume,
    Retry,
    Revoke,
    RotateKey,
    RotateSecret,
    Share,
    Tolerance,
    Undeploy,
    Upgrade,
)
from harness.targets.port import Need, Session

RETRY = Duration.seconds(1)
TRIES = 60


async def deploy(session: Session, cast: Cast, step: Deploy) -> None:
    """Write the `Deployment`."""
    score = PodmanScore(containers=tuple(_container(spec) for spec in step.containers))
    spec = DeploymentSpec(selector=_selector(cast, step.group), score=score)
    item = Deployment(metadata=Metadata(name=ObjectName(step.name)), spec=spec)
    await _patiently(session, lambda: _write(session, item))


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
            name=ObjectName(name),
            selector=_selector(cast, name),
            max_unavailable=_share(step.max_unavailable),
            soak=step.soak,
        )
        for name in step.groups
    )
    back = step.rollback_to
    on_halt: OnHalt = HaltOnly() if back is None else RollBackGroup(artefacts=session.artefacts(back))
    score = AgentUpgradeScore(
        name=step.name,
        artefacts=session.artefacts(step.to),
        groups=groups,
        max_failed=_tolerance(step.max_failed),
        on_halt=on_halt,
        windows=step.maintenance,
    )
    await _patiently(session, lambda: interpret(score, session.objects))


async def steer(session: Session, step: Pause | Resume | Abort | Retry) -> None:
    """Pause, resume, abort or retry a rollout, as the commands do."""
    await _patiently(session, lambda: _steered(session, step))


async def _steered(session: Session, step: Pause | Resume | Abort | Retry) -> object:
    match step:
        case Pause():
            return await set_run_state(step.rollout, RunState.PAUSED, session.objects)
        case Resume():
            return await set_run_state(step.rollout, RunState.RUNNING, session.objects)
        case Abort():
            return await set_run_state(step.rollout, RunState.ABORTED, session.objects)
        case Retry():
            return await retry(step.rollout, session.objects)
        case _:
            assert_never(step)


async def identity(session: Session, step: Revoke | ReEnroll | RotateKey | Reconcile) -> None:
    """Revoke a device, enrol it again, give it a new key, or look after all enrolments, as the commands do."""
    await _patiently(session, lambda: _identity(session, step))


async def _identity(session: Session, step: Revoke | ReEnroll | RotateKey | Reconcile) -> None:
    desk = session.identities
    match step:
        case Revoke():
            await desk.revoke(DeviceId(step.device))
        case ReEnroll():
            await desk.re_enroll(DeviceId(step.device))
        case RotateKey():
            await desk.rotate_key(DeviceId(step.device))
        case Reconcile():
            await desk.reconcile()
        case _:
            assert_never(step)


async def secrets(session: Session, step: Install | RotateSecret) -> None:
    """Install again, or rotate a secret, as the commands do."""
    await _patiently(session, lambda: _secrets(session, step))


async def _secrets(session: Session, step: Install | RotateSecret) -> None:
    match step:
        case Install():
            await session.secrets.install(step.at_once)
        case RotateSecret():
            await session.secrets.rotate(ObjectName(step.secret))
        case _:
            assert_never(step)


def needs(item: AnyStep | AnyFault) -> tuple[Need, ...]:
    """What a step or a fault needs of a target that not every one has."""
    match item:
        case Upgrade() if item.windows:
            return (Need.TIME_OF_DAY,)
        case CorruptSecret(how=SecretDamage.WRONG_OWNER):
            return (Need.OTHER_OWNERS,)
        case _:
            return ()


def _container(spec: ContainerSpec) -> Container:
    environment = tuple(sorted(spec.environment.items()))
    return Container(name=spec.name, image=spec.image, command=spec.command, environment=environment)


def _selector(cast: Cast, group: str) -> Selector:
    return Selector(match_labels=cast.labels_of(group))


def _share(share: Share) -> MaxUnavailable:
    return MaxUnavailable(count=share.count, percent=None if share.percent is None else Percent(share.percent))


def _tolerance(spec: Tolerance | None) -> MaxFailed | None:
    if spec is None:
        return None
    return MaxFailed(count=spec.count, percent=None if spec.percent is None else Percent(spec.percent))


async def _patiently(session: Session, work: Callable[[], Awaitable[object]]) -> None:
    """Do it, again where the store says that this is safe, or that it did not happen."""
    for left in reversed(range(TRIES)):
        try:
            await work()
        except (Conflict, NotFound, Unavailable, Unknown):
            if not left:
                raise
            await session.clock.sleep(RETRY)
        else:
            return


async def _write(session: Session, item: Deployment) -> None:
    try:
        present = await session.objects.get(Deployment, item.name)
    except NotFound:
        await session.objects.create(item)
        return
    if present.spec != item.spec:
        await session.objects.replace(present.changed(spec=item.spec))

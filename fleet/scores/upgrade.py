"""An agent upgrade as a Score: a release for groups of devices. Rolling back is the same Score with another release.

Beside it the ways of steering a rollout that is under way. Each of them writes the object's spec and nothing else; the
operator does the rest, and its progress is the rollout's status.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field, model_validator

from fleet.capabilities.objects import Objects
from fleet.contracts.errors import Conflict, InvalidValue, NotFound
from fleet.contracts.ids import Frozen, ObjectName
from fleet.contracts.objects import (
    ENDED,
    AgentRollout,
    HaltOnly,
    MaxFailed,
    Metadata,
    OnHalt,
    RollBackGroup,
    RolloutGroup,
    RolloutPhase,
    RolloutSpec,
    RunState,
)
from fleet.contracts.records import Artefact
from fleet.contracts.windows import MaintenanceWindows
from fleet.scores.outcome import Changed, Created, Unchanged

_TRIES = 5


class AgentUpgradeScore(Frozen):
    """Devices shall run a release of the agent.

    Args:
        name: of the rollout. The same name again changes that rollout. Another name makes another one, which is refused
            while it names devices of one that has not ended.
        artefacts: the release, one file per architecture, all of one version.
        groups: devices in the order of their turns.
        max_failed: more failures in one group halt the rollout; None: no number of them does.
        on_halt: whether the halted group is rolled back, and to what.
        windows: when slots may be given; None: at any time.

    Raises:
        InvalidValue: several versions, two artefacts for one architecture, two groups of one name, or a way back to the
            very release that is rolled out.
    """

    name: ObjectName
    artefacts: Annotated[tuple[Artefact, ...], Field(min_length=1)]
    groups: Annotated[tuple[RolloutGroup, ...], Field(min_length=1)] = (RolloutGroup(name=ObjectName("all")),)
    max_failed: MaxFailed | None = None
    on_halt: OnHalt = HaltOnly()
    windows: MaintenanceWindows | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> AgentUpgradeScore:
        _one_release(self.artefacts)
        _no_repeats("groups named", [group.name for group in self.groups])
        if isinstance(self.on_halt, RollBackGroup):
            _one_release(self.on_halt.artefacts)
            brought = {artefact.release for artefact in self.artefacts}
            if any(artefact.release in brought for artefact in self.on_halt.artefacts):
                raise InvalidValue("a halted group cannot be rolled back to the release that is rolled out")
        return self

    def spec(self, run: RunState = RunState.RUNNING, retry: int = 0) -> RolloutSpec:
        """What the rollout's object asks for."""
        return RolloutSpec(
            artefacts=self.artefacts,
            groups=self.groups,
            max_failed=self.max_failed,
            on_halt=self.on_halt,
            windows=self.windows,
            run=run,
            retry=retry,
        )


def _one_release(artefacts: tuple[Artefact, ...]) -> None:
    versions = {artefact.release.version for artefact in artefacts}
    if len(versions) > 1:
        raise InvalidValue(f"the artefacts are of several versions: {', '.join(sorted(versions))}")
    _no_repeats("artefacts for", [artefact.architecture.value for artefact in artefacts])


def _no_repeats(what: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidValue(f"there are two {what} {', '.join(repeated)}")


UpgradeOutcome = Created[AgentRollout] | Changed[AgentRollout] | Unchanged[AgentRollout]


async def interpret(score: AgentUpgradeScore, objects: Objects) -> UpgradeOutcome:
    """Ask the operator for the upgrade. It goes on from there; its progress is the rollout's status.

    A rollout of that name keeps its count of retries, and stays paused; one that was aborted stays so, unless another
    release is asked for.

    Raises: as `fleet.scores.outcome.ensure`.
    """

    def replanned(stands: AgentRollout) -> RolloutSpec:
        another = stands.spec.artefacts != score.artefacts
        again = another and stands.spec.run is RunState.ABORTED
        return score.spec(RunState.RUNNING if again else stands.spec.run, stands.spec.retry)

    for _ in range(_TRIES):
        try:
            return await _altered(score.name, replanned, objects)
        except NotFound:
            try:
                wanted = AgentRollout(metadata=Metadata(name=score.name), spec=score.spec())
                return Created(await objects.create(wanted))
            except Conflict:
                continue
    raise Conflict(f"rollout {score.name} is being written and deleted by others")


async def set_run_state(
    name: ObjectName, state: RunState, objects: Objects
) -> Changed[AgentRollout] | Unchanged[AgentRollout]:
    """Pause a rollout, let it go on, or abort it.

    Raises:
        InvalidValue: it has ended, or was aborted.
        NotFound: there is none of that name.
        Conflict, Unavailable, TimedOut, Disconnected: running it again is safe.
    """

    def steered(stands: AgentRollout) -> RolloutSpec:
        if stands.spec.run is state:
            return stands.spec
        if stands.spec.run is RunState.ABORTED:
            raise InvalidValue(f"rollout {name} was aborted; a retry begins it again")
        phase = _ended(stands)
        if phase is not None:
            raise InvalidValue(f"rollout {name} has ended ({phase}): there is nothing to change about its run")
        return stands.spec.model_copy(update={"run": state})

    return await _altered(name, steered, objects)


async def retry(name: ObjectName, objects: Objects) -> Changed[AgentRollout] | Unchanged[AgentRollout]:
    """Ask for another try of the devices that failed, quarantined or not. Lifts a halt, a pause, and an abort.

    Raises:
        InvalidValue: it is complete, and no device failed.
        NotFound, Conflict, Unavailable, TimedOut, Disconnected: as `set_run_state`.
    """

    def raised(stands: AgentRollout) -> RolloutSpec:
        if _ended(stands) is RolloutPhase.COMPLETE and not stands.status.failed:
            raise InvalidValue(f"rollout {name} is complete, and no device failed: there is nothing to try again")
        return stands.spec.model_copy(update={"run": RunState.RUNNING, "retry": stands.spec.retry + 1})

    return await _altered(name, raised, objects)


def _ended(stands: AgentRollout) -> RolloutPhase | None:
    current = stands.status.observed_generation == stands.metadata.generation
    return stands.status.phase if current and stands.status.phase in ENDED else None


async def _altered(
    name: ObjectName, alter: Callable[[AgentRollout], RolloutSpec], objects: Objects
) -> Changed[AgentRollout] | Unchanged[AgentRollout]:
    """Give a rollout another spec, made from the one that stands there when it is written."""
    for left in reversed(range(_TRIES)):
        stands = await objects.get(AgentRollout, name)
        spec = alter(stands)
        if spec == stands.spec:
            return Unchanged(stands)
        try:
            return Changed(await objects.replace(stands.changed(spec=spec)))
        except Conflict:
            if not left:
                raise
    raise AssertionError("the last try answers or raises")

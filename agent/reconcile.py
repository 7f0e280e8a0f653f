"""The hands of workload reconciliation: look at the containers, do what the brain says, report what came of it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, assert_never

from agent import workloads
from agent.desired import Desired
from agent.ports import AgentTimings
from agent.reports import Reports
from agent.store import KeptWorkload, KeptWorkloads, Store
from agent.workloads import Action, Remove, Run, Start, Wanted
from fleet.capabilities.clock import Clock
from fleet.capabilities.containers import ContainerFact, Containers
from fleet.contracts import layout
from fleet.contracts.errors import Definite, Unknown
from fleet.contracts.ids import AttemptId, DeploymentName, DeviceId
from fleet.contracts.records import WorkloadState
from fleet.contracts.time import Duration

_log = logging.getLogger(__name__)
_Key = tuple[DeploymentName, DeploymentName]
_Workloads = dict[DeploymentName, Wanted]

_LOOK: Final = Duration.seconds(1)
"""How often a drain looks whether it is over."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What the reconciler works with."""

    device: DeviceId
    containers: Containers
    clock: Clock
    timings: AgentTimings
    store: Store
    reports: Reports


class Reconciler:
    """Keeps the containers at what is desired, while this instance manages and is not at rest.

    While draining, what was desired at its beginning is brought to its end, and nothing newer is taken up. Rest has an
    owner: the attempt that asked for it last. Only that one ends it, and nothing of it outlives the process.
    """

    def __init__(self, shop: Workshop, desired: Desired, kept: KeptWorkloads | None) -> None:
        self._shop = shop
        self._desired = desired
        self._kept = kept
        self._reported = dict.fromkeys(kept.reported if kept is not None else ())
        self._kicked = asyncio.Event()
        self._passes = 0
        self._busy = False
        self._owner: AttemptId | None = None
        self._frozen: _Workloads | None = None
        self._resting = False
        self._problems: dict[_Key, str] = {}
        self._engine_silent = False
        self._states: dict[DeploymentName, WorkloadState] = {}
        self._counts: tuple[int, int] | None = None
        self._settled: tuple[ContainerFact, ...] | None = None
        self._managing = False

    def manage(self) -> None:
        """This instance holds the host lock from now on."""
        self._managing = True
        self.kick()

    def kick(self) -> None:
        """Something changed: look now."""
        self._counts = self._settled = None
        self._kicked.set()

    def counts(self) -> tuple[int, int]:
        """The number of desired workloads this instance manages, and how many of them are healthy."""
        if self._counts is None:
            wanted = self._desired.workloads if self._managing else {}
            self._counts = len(wanted), sum(self._healthy(name, item) for name, item in wanted.items())
        return self._counts

    def hold(self, owner: AttemptId) -> None:
        """Touch nothing until this owner's `undrain`."""
        self._owner, self._resting = owner, True

    def undrain(self, owner: AttemptId) -> None:
        """Go on, unless somebody else asked for rest meanwhile. What was stopped or broken before stays what it was."""
        if owner != self._owner:
            _log.info("attempt %s has brought nothing to rest, %s has", owner, self._owner)
            return
        self._owner, self._resting, self._frozen = None, False, None
        self.kick()

    async def drain(self, owner: AttemptId, deadline: Duration) -> str:
        """Come to rest: nothing under way, everything healthy. Answers why not, when that took too long, else "".

        Whatever the answer, only the owner's `undrain` ends it. A later owner takes over from an earlier one.
        """
        self._owner, self._resting, self._frozen = owner, False, None
        try:
            async with self._shop.clock.timeout(deadline):
                while not self._desired.known:  # An empty list would be taken for the wish to remove everything.
                    await self._shop.clock.sleep(_LOOK)
                self._frozen = dict(self._desired.workloads)
                before = self._passes
                self.kick()
                while self._passes == before or self._busy or self._engine_silent or self._unhealthy():
                    await self._shop.clock.sleep(_LOOK)
        except TimeoutError:
            return f"not drained within {deadline}: {self._trouble()}"
        if self._owner == owner:
            self.hold(owner)
        return ""

    async def run(self) -> None:
        """For ever: a pass whenever something changed, and after one that met trouble, another one a little later."""
        while True:
            await self._kicked.wait()
            self._kicked.clear()
            if not self._managing or not self._desired.known or self._resting:
                continue
            self._busy = True
            try:
                await self._pass()
            finally:
                self._busy = False
            self._passes += 1
            if self._problems or self._engine_silent:
                await self._shop.clock.sleep(self._shop.timings.retry)
                self._kicked.set()

    async def look_for_drift(self) -> None:
        """For ever: a pass now and then, although nothing is known to have changed."""
        while True:
            await self._shop.clock.sleep(self._shop.timings.drift)
            self._kicked.set()

    # --- one pass ----------------------------------------------------------------------------------------

    async def _pass(self) -> None:
        wanted = dict(self._desired.workloads) if self._frozen is None else self._frozen
        try:
            present = await self._shop.containers.present()
            if present == self._settled:
                return  # Nothing has changed, here or there, since there was nothing to do.
            self._settled, self._problems = None, {}
            await self._keep(wanted)
            actions = workloads.plan(wanted, present)
            for action in actions:
                await self._act(action)
            if actions:
                present = await self._shop.containers.present()
        except (Definite, Unknown) as error:
            _log.warning("the container engine does not answer: %s", error)
            self._engine_silent = True
            return
        self._engine_silent = False
        gone = await self._withdraw(wanted, present)
        self._report(wanted, present)
        if gone and not actions and not self._kicked.is_set():
            self._settled = present

    async def _act(self, action: Action) -> None:
        containers = self._shop.containers
        name = action.container.name if isinstance(action, Run) else action.name
        try:
            match action:
                case Run(deployment, container, fingerprint, replaces):
                    await containers.pull(container.image)
                    if replaces:
                        await containers.remove(deployment, container.name)
                    await containers.run(deployment, container, fingerprint)
                case Start(deployment, name):
                    await containers.start(deployment, name)
                case Remove(deployment, name):
                    await containers.remove(deployment, name)
                case _:
                    assert_never(action)
        except (Definite, Unknown) as error:
            _log.warning("container %s of %s: %s", name, action.deployment, error)
            self._problems[(action.deployment, name)] = str(error)

    async def _keep(self, wanted: _Workloads) -> None:
        """Remember what is wanted before acting on it."""
        self._reported.update(dict.fromkeys(wanted))
        items = tuple(KeptWorkload(revision=wanted[name].revision, desired=wanted[name].workload) for name in wanted)
        kept = KeptWorkloads(workloads=items, reported=tuple(self._reported))
        if kept == self._kept:
            return
        try:
            await self._shop.store.keep(kept)
            self._kept = kept
        except (Definite, Unknown) as error:
            _log.warning("the workloads cannot be remembered: %s", error)

    async def _withdraw(self, wanted: _Workloads, present: tuple[ContainerFact, ...]) -> bool:
        """Take back what was reported of workloads that are gone. Whether nothing is left to take back."""
        running = {fact.deployment for fact in present}
        left = [name for name in self._reported if name not in wanted]
        for name in left if self._desired.read_once else ():
            self._states.pop(name, None)
            address = layout.workload_state(self._shop.device, name)
            if self._shop.reports.is_withdrawn(address):
                del self._reported[name]
            elif name not in running:
                self._shop.reports.withdraw(address)
        await self._keep(wanted)
        return all(name in wanted for name in self._reported)

    def _report(self, wanted: _Workloads, present: tuple[ContainerFact, ...]) -> None:
        self._counts = None
        for name, item in wanted.items():
            state = WorkloadState(
                device=self._shop.device,
                deployment=name,
                desired=item.revision,
                containers=workloads.report(item, present, self._problems),
            )
            if self._states.get(name) != state:
                self._states[name] = state
                self._shop.reports.want(state)

    # --- how it is -----------------------------------------------------------------------------------------

    def _healthy(self, name: DeploymentName, wanted: Wanted) -> bool:
        state = self._states.get(name)
        return state is not None and state.desired == wanted.revision and state.healthy

    def _unhealthy(self) -> list[str]:
        if not self._desired.known:
            return ["what is desired is not known yet"]
        wanted = self._desired.workloads if self._frozen is None else self._frozen
        return [name for name, item in sorted(wanted.items()) if not self._healthy(name, item)]

    def _trouble(self) -> str:
        if self._engine_silent:
            return "the container engine does not answer"
        return "work was still under way" if self._busy else f"not healthy: {', '.join(self._unhealthy())}"

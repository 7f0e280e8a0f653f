"""The hands of workload reconciliation: look at the containers, do what the brain says, report what came of it."""

from __future__ import annotations

import asyncio
import logging
from typing import assert_never

from agent import workloads
from agent.desired import Desired
from agent.ports import AgentPorts, AgentTimings
from agent.reports import Reports
from agent.workloads import Action, Remove, Run, Start
from fleet.capabilities.containers import ContainerFact
from fleet.contracts import layout
from fleet.contracts.errors import Definite, Unknown
from fleet.contracts.ids import DeploymentName, DeviceId
from fleet.contracts.records import WorkloadState
from fleet.contracts.time import Duration

_log = logging.getLogger(__name__)
_Key = tuple[DeploymentName, DeploymentName]
_LOOK: Duration = Duration.seconds(1)
"""How often a drain looks whether it is over."""


class Reconciler:
    """Keeps the containers at what is desired, while this instance manages and is not draining."""

    def __init__(
        self, device: DeviceId, ports: AgentPorts, timings: AgentTimings, desired: Desired, reports: Reports
    ) -> None:
        self._device = device
        self._containers = ports.containers
        self._clock = ports.clock
        self._timings = timings
        self._desired = desired
        self._reports = reports
        self._kicked = asyncio.Event()
        self._busy = False
        self._problems: dict[_Key, str] = {}
        self._states: dict[DeploymentName, WorkloadState] = {}
        self._counts: tuple[int, int] | None = None
        self._settled: tuple[ContainerFact, ...] | None = None
        self.managing = False
        self.draining = False

    def kick(self) -> None:
        """Something changed: look now."""
        self._counts = self._settled = None
        self._kicked.set()

    def counts(self) -> tuple[int, int]:
        """The number of desired workloads this instance manages, and how many of them are healthy."""
        if self._counts is None:
            wanted = self._desired.workloads if self.managing else {}
            self._counts = len(wanted), sum(self._healthy(name) for name in wanted)
        return self._counts

    async def run(self) -> None:
        """For ever."""
        while True:
            pause = self._timings.retry if self._problems else self._timings.drift
            try:
                async with self._clock.timeout(pause):
                    await self._kicked.wait()
            except TimeoutError:
                pass  # Nothing changed that we know of: look for drift.
            self._kicked.clear()
            if self.managing and self._desired.known and not self.draining:
                await self._once()

    async def drain(self, deadline: Duration) -> str:
        """Begin nothing new; return when nothing is under way and everything is healthy. Answers why not, or ""."""
        self.draining = True
        try:
            async with self._clock.timeout(deadline):
                while self._busy or self._unhealthy():
                    await self._clock.sleep(_LOOK)
        except TimeoutError:
            what = "a reconcile was still under way" if self._busy else f"not healthy: {', '.join(self._unhealthy())}"
            return f"not drained within {deadline}: {what}"
        return ""

    def undrain(self) -> None:
        """Go on."""
        self.draining = False
        self.kick()

    async def _once(self) -> None:
        self._busy = True
        try:
            present = await self._containers.present()
            if present == self._settled:
                return  # Nothing has changed, here or there, since there was nothing to do.
            wanted = dict(self._desired.workloads)
            self._problems = {}
            self._settled = None
            actions = workloads.plan(wanted, present)
            for action in actions:
                await self._act(action)
            if actions:
                present = await self._containers.present()
        except (Definite, Unknown) as error:
            _log.warning("the container engine does not answer: %s", error)
            self._problems = {(DeploymentName("engine"), DeploymentName("engine")): str(error)}
            return
        finally:
            self._busy = False
        self._report(wanted, present)
        if not actions and not self._kicked.is_set():
            self._settled = present

    async def _act(self, action: Action) -> None:
        name = action.container.name if isinstance(action, Run) else action.name
        try:
            match action:
                case Run(deployment, container, fingerprint):
                    await self._containers.pull(container.image)
                    await self._containers.run(deployment, container, fingerprint)
                case Start(deployment, name):
                    await self._containers.start(deployment, name)
                case Remove(deployment, name):
                    await self._containers.remove(deployment, name)
                case _:
                    assert_never(action)
        except (Definite, Unknown) as error:
            _log.warning("container %s of %s: %s", name, action.deployment, error)
            self._problems[(action.deployment, name)] = str(error)

    def _report(self, wanted: dict[DeploymentName, workloads.Wanted], present: tuple[ContainerFact, ...]) -> None:
        self._counts = None
        for name in [name for name in self._states if name not in wanted]:
            del self._states[name]
            self._reports.withdraw(layout.workload_state(self._device, name))
        for name, item in wanted.items():
            state = WorkloadState(
                device=self._device,
                deployment=name,
                desired=item.revision,
                containers=workloads.report(item, present, self._problems),
            )
            if self._states.get(name) != state:
                self._states[name] = state
                self._reports.want(state)

    def _healthy(self, name: DeploymentName) -> bool:
        state = self._states.get(name)
        return state is not None and state.desired == self._desired.workloads[name].revision and state.healthy

    def _unhealthy(self) -> list[str]:
        if not self._desired.known:
            return ["the desired workloads are not known yet"]
        return [name for name in sorted(self._desired.workloads) if not self._healthy(name)]

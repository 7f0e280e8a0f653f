"""Values that the tests of the agent speak about."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.events import AttemptRecord, Condemned
from agent.states import Found, Me
from agent.upgrade import Upgrade
from fleet.contracts.ids import (
    Architecture,
    AttemptId,
    BootId,
    DeviceId,
    InstanceId,
    Release,
    Sha256,
    Slot,
    Version,
)
from fleet.contracts.records import Artefact, DesiredAgent, StopRequest
from fleet.contracts.time import Duration


class Values:
    """A device, two boots, and how to make the rest."""

    device = DeviceId("dev-1")
    boot = BootId("boot-1")
    later_boot = BootId("boot-2")
    deadline = Duration.minutes(5)

    def release(self, number: int, digit: str | None = None) -> Release:
        """Release 1.<number>.0; its sha256 repeats one digit."""
        return Release(version=Version(f"1.{number}.0"), sha256=Sha256((digit or str(number)) * 64))

    def instance(self, release: Release, start: int, boot: BootId | None = None) -> InstanceId:
        """A process."""
        return InstanceId(device=self.device, version=release.version, boot=boot or self.boot, start=start)

    def desired(
        self,
        release: Release,
        attempt: str = "a-1",
        *,
        confirmed: InstanceId | None = None,
        architecture: Architecture = Architecture.AARCH64,
    ) -> DesiredAgent:
        """A desired release."""
        url = f"http://127.0.0.1/{release.sha256}"
        artefact = Artefact(release=release, architecture=architecture, size=10, url=url)
        return DesiredAgent(device=self.device, attempt=AttemptId(attempt), artefact=artefact, confirmed=confirmed)

    def record(
        self,
        release: Release,
        previous: Release,
        attempt: str = "a-1",
        *,
        origin: Slot = Slot.A,
        boot: BootId | None = None,
    ) -> AttemptRecord:
        """An attempt on disk that has not ended."""
        return AttemptRecord(
            attempt=AttemptId(attempt), release=release, previous=previous, origin=origin, boot=boot or self.boot
        )

    def stop(self, instance: InstanceId, successor: InstanceId, attempt: str = "a-1") -> StopRequest:
        """The operator's stop."""
        return StopRequest(device=self.device, instance=instance, successor=successor, attempt=AttemptId(attempt))


@pytest.fixture(scope="session")
def values() -> Values:
    """The values."""
    return Values()


@pytest.fixture
def brain(values: Values) -> Callable[..., Upgrade]:
    """Makes a brain: `brain(release, slot=…, boot=…, **found)`, which has begun."""

    def make(
        release: Release, *, slot: Slot = Slot.A, boot: BootId | None = None, start: int = 2, **found: object
    ) -> Upgrade:
        me = Me(values.instance(release, start, boot), release, slot, Architecture.AARCH64)
        marks = found.get("condemned")
        if isinstance(marks, dict):  # a reason alone stands for a mark that does not say which attempt set it
            found["condemned"] = {
                sha: Condemned(mark) if isinstance(mark, str) else mark for sha, mark in marks.items()
            }
        known = Found(**{"verified": release, **found})  # type: ignore[arg-type]  # whatever a test says is found
        return Upgrade(me, known, values.deadline)

    return make

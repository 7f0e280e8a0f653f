"""The hands of the leader election: carry out the steps of `fleet.operator.lease`, one at a time, for ever."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import assert_never

from fleet.capabilities.clock import Clock
from fleet.capabilities.objects import Objects
from fleet.contracts.errors import Conflict, FleetError, InvalidValue, NotFound
from fleet.contracts.ids import ObjectName
from fleet.contracts.lease import OPERATOR_LEASE, Lease
from fleet.operator.lease import (
    Create,
    Elector,
    LeaseEvent,
    LeaseRefused,
    LeaseSeen,
    LeaseWritten,
    Leave,
    Look,
    Replace,
    Rest,
    Rested,
    Step,
    StoreSilent,
)
from fleet.operator.ports import OperatorTimings

logger = logging.getLogger("fleet.operator")


class Election:
    """One replica's part in it.

    Args:
        on_rest: called whenever there is nothing to do for a while: it leads then, or waits.
    """

    def __init__(
        self,
        clock: Clock,
        objects: Objects,
        timings: OperatorTimings,
        replica: ObjectName,
        token: str,
        on_rest: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._objects = objects
        self._request = timings.request
        self._elector = Elector(replica, token, timings)
        self._on_rest = on_rest
        self._resigned = False
        self._complained = False

    @property
    def leads(self) -> bool:
        """See `Elector.leads`."""
        return self._elector.leads

    @property
    def acts(self) -> bool:
        """Whether something may be sent now."""
        return not self._resigned and self._elector.acts(self._clock.monotonic())

    @property
    def exposed_in(self) -> int:
        """Nanoseconds until another replica may act; not positive when one may now."""
        return self._elector.exposed - self._clock.monotonic()

    async def run(self) -> None:
        """Take part. Returns when the lease was lost: this process has to end then."""
        step: Step = self._elector.begin()
        while not isinstance(step, Leave):
            step = self._elector.next(await self._carry_out(step))
            if isinstance(step, Rest):
                self._on_rest()
        logger.warning("the lease went to %s: leaving", step.holder or "nobody")

    def resign(self) -> None:
        """Send nothing any more, whoever holds the lease."""
        self._resigned = True

    async def release(self) -> None:
        """Give the lease back, after `run` was cancelled and nothing that was sent is still under way.

        When that fails the next one has to wait until it has run out.
        """
        if not self.leads:
            return
        try:
            async with self._clock.timeout(self._request):
                held = await self._objects.get(Lease, OPERATOR_LEASE)
                given_back = self._elector.released(held, self._clock.wall())
                if given_back is not None:
                    await self._objects.replace(given_back)
        except (FleetError, TimeoutError) as error:
            logger.info("the lease could not be given back: %r", error)

    # --- steps

    async def _carry_out(self, step: Look | Create | Replace | Rest) -> LeaseEvent:
        match step:
            case Rest(length=length):
                await self._clock.sleep(length)
                return Rested(self._clock.monotonic(), self._clock.wall())
            case Look():
                return await self._look()
            case Create() | Replace():
                return await self._write(step)
            case _:
                assert_never(step)

    async def _look(self) -> LeaseEvent:
        found: Lease | None
        try:
            async with self._clock.timeout(self._request):
                found = await self._objects.get(Lease, OPERATOR_LEASE)
        except NotFound:
            found = None
        except InvalidValue as error:
            if not self._complained:
                logger.error("nobody can lead before someone deletes the unreadable lease: %s", error)
            self._complained = True
            return StoreSilent(self._clock.monotonic(), self._clock.wall())
        except (FleetError, TimeoutError) as error:
            logger.info("the lease could not be read: %r", error)
            return StoreSilent(self._clock.monotonic(), self._clock.wall())
        return LeaseSeen(found, self._clock.monotonic(), self._clock.wall())

    async def _write(self, step: Create | Replace) -> LeaseEvent:
        sent = self._clock.monotonic()
        try:
            async with self._clock.timeout(self._request):
                written = await self._send(step)
        except (Conflict, NotFound) as error:
            logger.info("the lease was not written: %s", error)
            return LeaseRefused(self._clock.monotonic(), self._clock.wall())
        except (FleetError, TimeoutError) as error:
            logger.info("the lease may not have been written: %r", error)
            return StoreSilent(self._clock.monotonic(), self._clock.wall())
        return LeaseWritten(written, sent, self._clock.monotonic(), self._clock.wall())

    async def _send(self, step: Create | Replace) -> Lease:
        match step:
            case Create(lease=lease):
                return await self._objects.create(lease)
            case Replace(lease=lease):
                return await self._objects.replace(lease)
            case _:
                assert_never(step)

"""Heartbeats: the proof that an instance is alive, and the one thing a fleet does all day."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from agent.ports import AgentBoot, AgentPorts, AgentTimings
from fleet.contracts import layout
from fleet.contracts.errors import Refused, Unavailable
from fleet.contracts.ids import InstanceId
from fleet.contracts.layout import Bucket
from fleet.contracts.records import Health, Heartbeat, Role

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Vitals:
    """What a heartbeat says beyond being one. Kept up to date by whoever knows."""

    role: Role
    health: Callable[[], Health]


class Heart:
    """Beats at the jittered interval, and at once when there is a connection again."""

    def __init__(
        self, ports: AgentPorts, timings: AgentTimings, boot: AgentBoot, me: InstanceId, vitals: Vitals
    ) -> None:
        self._bus = ports.bus
        self._clock = ports.clock
        self._chance = ports.chance
        self._least = timings.heartbeat - timings.heartbeat_jitter
        self._most = timings.heartbeat + timings.heartbeat_jitter
        self._boot = boot
        self._me = me
        self._vitals = vitals
        self._key = layout.heartbeat(me.device, boot.slot).key
        self._began = ports.clock.monotonic()
        self._connected = asyncio.Event()
        ports.bus.on_session(self._connected.set)

    async def run(self) -> None:
        """For ever."""
        while True:
            while not self._bus.is_connected():
                self._connected.clear()
                await self._connected.wait()
            self.beat()
            await self._clock.sleep(self._chance.between(self._least, self._most))

    def beat(self) -> None:
        """Once, now. One that does not get through is not repeated: the next one comes by itself."""
        heartbeat = Heartbeat(
            instance=self._me,
            slot=self._boot.slot,
            release=self._boot.release,
            sent=self._clock.wall(),
            uptime=self._clock.monotonic() - self._began,
            role=self._vitals.role,
            health=self._vitals.health(),
        )
        try:
            self._bus.post(Bucket.HEARTBEAT, self._key, layout.encode(heartbeat))
        except Unavailable:
            return
        except Refused as error:  # Says something of this device's rights, nothing of this release: live on.
            _log.error("a heartbeat was refused: %s", error)

"""The `Services` port over `systemctl`: the two units of the agent, as systemd runs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent.linux.command import Ended, run_within
from agent.linux.units import unit_name
from fleet.capabilities.host import Failing, Running, Stopped, UnitState
from fleet.contracts.errors import Refused, Unavailable
from fleet.contracts.ids import Slot
from fleet.contracts.time import Duration

LIMIT: Final = Duration.seconds(90)
"""For every call, in wall time: stopping a unit takes its grace period of ten seconds at most."""
PROPERTIES: Final = ("ActiveState", "SubState", "NRestarts", "Result", "ExecMainStatus")


class Systemd:
    """The service manager, reached by the `systemctl` that `environment` finds on its PATH (the process's own if None).

    Besides the port's errors, every method raises `Unavailable` when `systemctl` itself fails, and `TimedOut`.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = environment

    async def start(self, slot: Slot) -> None:
        """See `Services.start`."""
        ended = await self._run("start", unit_name(slot))
        if ended.code != 0:
            raise Refused(f"{unit_name(slot)} does not start: {ended.complaint}")

    async def stop(self, slot: Slot) -> None:
        """See `Services.stop`."""
        ended = await self._run("stop", unit_name(slot))
        if ended.code != 0:
            raise Unavailable(f"{unit_name(slot)} does not stop: {ended.complaint}")
        forgiven = await self._run("reset-failed", unit_name(slot))
        if forgiven.code != 0 and b"not loaded" not in forgiven.errors:
            raise Unavailable(f"the failures of {unit_name(slot)} cannot be reset: {forgiven.complaint}")

    async def state(self, slot: Slot) -> UnitState:
        """See `Services.state`."""
        ended = await self._run("show", "--property", ",".join(PROPERTIES), unit_name(slot))
        if ended.code != 0:
            raise Unavailable(f"{unit_name(slot)} cannot be looked at: {ended.complaint}")
        return parse_state(ended.output.decode(errors="replace"))

    async def _run(self, *arguments: str) -> Ended:
        return await run_within(("systemctl", *arguments), LIMIT, self._environment)


def parse_state(text: str) -> UnitState:
    """Read what `systemctl show` prints.

    Raises:
        Unavailable: it is not the answer that was asked for.
    """
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    try:
        active, sub, restarts = fields["ActiveState"], fields["SubState"], int(fields["NRestarts"])
    except (KeyError, ValueError) as error:
        raise Unavailable(f"systemctl answered something else: {text[:200]!r}") from error
    if active == "failed":
        return Failing(max(1, restarts), gave_up=True)
    if sub.startswith("auto-restart"):
        # A restart counts when it is carried out, so the exit that is waited after is one more.
        return Failing(restarts + 1, gave_up=False)
    return Stopped() if active == "inactive" else Running()

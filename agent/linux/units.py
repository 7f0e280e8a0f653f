"""The systemd unit of the agent, rendered from its typed settings: what enrolment installs on a device.

`Services` promises exactly what stands here: restarts after a bad end, within a limit; none after exit code 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from agent import paths
from fleet.contracts.ids import Slot
from fleet.contracts.time import Duration

TEMPLATE = "fleet-agent@.service"
"""File name of the unit, in `/etc/systemd/system`. Instances are the slots; only slot A is enabled."""
PYTHON: Final = PurePosixPath("/usr/bin/python3")
RESTART_AFTER: Final = Duration.seconds(5)
START_WINDOW: Final = Duration.seconds(60)
STOP_GRACE: Final = Duration.seconds(10)


def unit_name(slot: Slot) -> str:
    """The name of a slot's unit."""
    return f"fleet-agent@{slot.value}.service"


@dataclass(frozen=True, slots=True)
class AgentUnit:
    """The settings of the unit. The defaults are the production values."""

    python: PurePosixPath = PYTHON
    launcher: PurePosixPath = paths.LAUNCHER
    restart_after: Duration = RESTART_AFTER
    start_limit: int = 5
    start_window: Duration = START_WINDOW
    stop_grace: Duration = STOP_GRACE

    def render(self) -> str:
        """The text of the unit file.

        The unit does not wait for the network: an agent has to bear being without one. `KillMode=mixed` ends a
        self-test that still runs; containers are safe from it, because Podman moves each into a scope of its own.
        """
        return "\n".join(
            (
                "[Unit]",
                "Description=Harmony Fleet agent (slot %i)",
                f"StartLimitIntervalSec={_seconds(self.start_window)}",
                f"StartLimitBurst={self.start_limit}",
                "",
                "[Service]",
                "Type=exec",
                f"ExecStart={self.python} {self.launcher} %i",
                "Restart=on-failure",
                f"RestartSec={_seconds(self.restart_after)}",
                "KillMode=mixed",
                f"TimeoutStopSec={_seconds(self.stop_grace)}",
                "",
                "[Install]",
                "WantedBy=multi-user.target",
                f"DefaultInstance={Slot.A.value}",
                "",
            )
        )


def _seconds(length: Duration) -> str:
    """As systemd reads it: whole seconds when they are whole."""
    seconds, rest = divmod(int(length), 10**9)
    return f"{seconds}s" if rest == 0 else f"{int(length) // 10**6}ms"

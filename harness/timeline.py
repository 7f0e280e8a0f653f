"""The story of a run on one page: phases, steps, faults, and how each group of each rollout went on, in counts.

For people who ask what happened when. A fleet of five hundred devices has as many lines as one of five: a line is
written when a rollout or a group enters a phase, and when another twentieth of a rollout's devices is done.
"""

from __future__ import annotations

from typing import Final

from fleet.contracts.ids import DeviceId
from fleet.contracts.objects import AgentRollout, GroupStatus
from fleet.contracts.time import Instant
from harness.view import FleetView
from sim.journal import (
    FaultHealed,
    FaultInjected,
    InstallRefused,
    Journal,
    OperatorEnded,
    OperatorStarted,
    PhaseEntered,
    SecretsInstalled,
    StepDone,
)

PARTS: Final = 20
"""A line is written when one part of so many of a rollout's devices has come to an end."""
LONGEST: Final = 400
"""Lines that are kept: more is no page any more."""

_Stand = tuple[str, str, tuple[str, ...], int]


class Timeline:
    """Folds the journal into lines."""

    def __init__(self, view: FleetView, journal: Journal) -> None:
        self.lines: list[str] = []
        self._view = view
        self._stands: dict[str, _Stand] = {}
        self._left_out = 0
        view.on_change(self._changed)
        journal.subscribe(PhaseEntered, lambda event: self._add(event.at, event.phase))
        journal.subscribe(StepDone, lambda event: self._add(event.at, f"step {event.index}: {event.text}"))
        journal.subscribe(FaultInjected, lambda event: self._add(event.at, f"fault: {event.text} on {event.subject}"))
        journal.subscribe(FaultHealed, lambda event: self._add(event.at, f"healed: {event.text} on {event.subject}"))
        journal.subscribe(OperatorStarted, lambda event: self._add(event.at, f"operator {event.replica} starts"))
        journal.subscribe(OperatorEnded, lambda event: self._add(event.at, f"operator {event.replica} ends"))
        journal.subscribe(SecretsInstalled, lambda event: self._add(event.at, _installed(event)))
        journal.subscribe(
            InstallRefused, lambda event: self._add(event.at, f"installation {event.number}: {event.reason}")
        )

    def finished(self) -> tuple[str, ...]:
        """All lines, and how many were left out."""
        left = (f"… and {self._left_out} lines more",) if self._left_out else ()
        return (*self.lines, *left)

    def _add(self, at: Instant, text: str) -> None:
        if len(self.lines) < LONGEST:
            self.lines.append(f"{at.in_seconds:9.0f} s  {text}")
        else:
            self._left_out += 1

    def _changed(self, device: DeviceId | None) -> None:
        if device is not None:
            return
        for name, rollout in self._view.rollouts.items():
            stand = _stand(rollout)
            if self._stands.get(name) != stand:
                self._stands[name] = stand
                self._add(self._view.now, _told(rollout))


def _installed(event: SecretsInstalled) -> str:
    return f"installation {event.number}: {len(event.made)} secrets made, {len(event.kept)} kept"


def _stand(rollout: AgentRollout) -> _Stand:
    """What makes a new line when it changes."""
    status = rollout.status
    part = max(1, status.total // PARTS)
    phases = tuple(f"{group.name} {group.phase}" for group in status.groups)
    halt = status.message if "halted" in status.message else ""
    return str(status.phase), halt.partition(";")[0], phases, (status.upgraded + status.failed) // part


def _told(rollout: AgentRollout) -> str:
    status = rollout.status
    groups = " | ".join(_group(group) for group in status.groups)
    text = f"rollout {rollout.name} {status.phase}: {groups or f'{status.upgraded}/{status.total}'}"
    return f"{text}  ({status.message[:160]})" if status.message and "halted" in status.message else text


def _group(group: GroupStatus) -> str:
    extra = "".join(
        f", {count} {word}" for count, word in ((group.failed, "failed"), (group.offline, "offline")) if count
    )
    return f"{group.name} {group.phase} {group.upgraded}/{group.total}{extra}"

"""What a run tells while it goes on. How it is shown is `harness.report`'s business."""

from __future__ import annotations

from typing import Protocol

from harness.scenario import Cast
from harness.view import FleetView


class Progress(Protocol):
    """Told what happens in one run. Called from inside it: has to be quick and must not raise."""

    def begin(self, cast: Cast, view: FleetView) -> None:
        """The run begins. The view may be read at any later time."""
        ...

    def phase(self, name: str) -> None:
        """The run enters a phase."""
        ...

    def note(self, text: str) -> None:
        """A step was done, or a fault happened or ended."""
        ...


class Silent:
    """Shows nothing."""

    def begin(self, cast: Cast, view: FleetView) -> None:
        """Show nothing."""

    def phase(self, name: str) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

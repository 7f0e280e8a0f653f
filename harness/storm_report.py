"""What a reconnect storm was like, in a few lines."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.contracts.time import Duration


@dataclass(frozen=True, slots=True)
class StormReport:
    """One storm.

    Args:
        clients: how many were there before.
        back: when each was back, counted from the moment the server ran again, sorted.
        questions: how many logins the callouts were asked about; None where that is not known.
        callouts: what each callout says it has done, from its start on.
    """

    clients: int
    back: tuple[Duration, ...]
    questions: int | None
    callouts: tuple[str, ...]

    def lines(self) -> tuple[str, ...]:
        """For people."""
        first, median, last = self.back[0], self.back[len(self.back) // 2], self.back[-1]
        asked = () if self.questions is None else (f"  {self.questions} logins asked about",)
        times = f"first {first.in_seconds:.2f} s, median {median.in_seconds:.2f} s, all {last.in_seconds:.2f} s"
        return (
            f"{self.clients} clients, {len(self.back)} back after the server ran again",
            f"  {times}; spread {(last - first) / 1e9:.2f} s",
            *asked,
            *(f"  callout {number}: {told}" for number, told in enumerate(self.callouts)),
        )

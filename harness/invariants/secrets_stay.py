"""The secrets of an installation stay what they are, and appear nowhere.

However often the installation is run, beside whatever else: a secret that stands is never made anew, and only somebody
who asks for a rotation changes one. An installation says so where a secret is not as it should be, and names it; where
all are, it is not refused. What a judge is told about a value is a word: the same, or changed.
"""

from __future__ import annotations

from fleet.contracts.time import Instant
from harness.invariants.base import Ground, Invariant
from sim.journal import (
    InstallRefused,
    Journal,
    SecretDamaged,
    SecretMended,
    SecretShown,
    SecretsInstalled,
    SecretStands,
)


class SecretsStay(Invariant):
    """Remembers which secrets were made, and which of them a declared fault damages now."""

    name = "secrets-stay"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._made: set[str] = set()
        self._damaged: set[str] = set()
        self._quiet_since = Instant(0)
        """Since when no fault has begun or ended."""

    def subscribe(self, journal: Journal) -> None:
        journal.subscribe(SecretsInstalled, self._installed)
        journal.subscribe(InstallRefused, self._refused)
        journal.subscribe(SecretStands, self._stands)
        journal.subscribe(SecretShown, self._shown)
        journal.subscribe(SecretDamaged, self._began)
        journal.subscribe(SecretMended, self._ended)

    def _began(self, event: SecretDamaged) -> None:
        self._damaged.add(event.secret)
        self._quiet_since = event.at

    def _ended(self, event: SecretMended) -> None:
        self._damaged.discard(event.secret)
        self._quiet_since = event.at

    def _installed(self, event: SecretsInstalled) -> None:
        again = [name for name in event.made if name in self._made]
        self._made.update(event.made)
        if again:
            self.violated(f"installation {event.number} made {', '.join(again)} anew")
        elif self._damaged and event.began > self._quiet_since:
            names = ", ".join(sorted(self._damaged))
            self.violated(f"installation {event.number} took the damaged {names} for good")

    def _refused(self, event: InstallRefused) -> None:
        if event.began > self._quiet_since and not any(name in event.reason for name in self._damaged):
            damaged = ", ".join(sorted(self._damaged)) or "no secret"
            self.violated(f"installation {event.number} was refused ({event.reason}); {damaged} is damaged")

    def _stands(self, event: SecretStands) -> None:
        if event.state in ("changed", "gone"):
            self.violated(f"the secret {event.secret} is {event.state}, and nobody asked for another one")
        elif event.state == "unreadable" and event.secret not in self._damaged:
            self.violated(f"the secret {event.secret} is unreadable, and nothing has damaged it")

    def _shown(self, event: SecretShown) -> None:
        self.violated(f"the value of the secret {event.secret} appears in {event.where}")

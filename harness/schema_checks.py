"""What a scenario claims beyond the invariants, judged from the beginning of the drive, or `since` an event."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fleet.contracts.errors import InvalidValue
from harness.schema_base import Length, Part
from harness.schema_facts import Fact, InvalidEntries
from harness.schema_triggers import When


def _refuse_heartbeat_facts(*facts: Fact) -> None:
    if any(isinstance(fact, InvalidEntries) for fact in facts):
        raise InvalidValue("invalid-entries is read from heartbeats and can only be asked in a final check")


class Always(Part):
    """The fact holds at every moment."""

    check: Literal["always"]
    that: Fact
    since: When | None = None

    def model_post_init(self, context: object) -> None:
        """Judged at each event."""
        _refuse_heartbeat_facts(self.that)


class Never(Part):
    """The fact holds at no moment."""

    check: Literal["never"]
    that: Fact
    since: When | None = None

    def model_post_init(self, context: object) -> None:
        """Judged at each event."""
        _refuse_heartbeat_facts(self.that)


class Eventually(Part):
    """The fact holds at some moment `within` a time. It may stop holding afterwards: ask `final` for that."""

    check: Literal["eventually"]
    that: Fact
    within: Length
    since: When | None = None

    def model_post_init(self, context: object) -> None:
        """Judged at each event."""
        _refuse_heartbeat_facts(self.that)


class LeadsTo(Part):
    """Whenever `when` begins to hold, `then` holds at some moment `within` a time after it."""

    check: Literal["leads_to"]
    when: Fact
    then: Fact
    within: Length

    def model_post_init(self, context: object) -> None:
        """Judged at each event."""
        _refuse_heartbeat_facts(self.when, self.then)


class Final(Part):
    """The fact holds at the end, after everything has healed and converged."""

    check: Literal["final"]
    that: Fact


AnyCheck = Always | Never | Eventually | LeadsTo | Final
Check = Annotated[AnyCheck, Field(discriminator="check")]

"""How a release can misbehave: the words that scenarios and `fleet release build --defect` use."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fleet.contracts.errors import InvalidValue
from fleet.contracts.time import Duration


class Defect(StrEnum):
    """How a release misbehaves. In everything that is not said it is a healthy release."""

    NONE = "none"
    """It is the production agent and nothing else."""

    # The file is not what was announced.
    CORRUPT = "corrupt"
    """Some bytes were flipped after its sha256 was announced: as long as it should be, with another sha256."""
    TRUNCATED = "truncated"
    """Fewer bytes are served than were announced: half of them."""
    WRONG_ARCHITECTURE = "wrong-architecture"
    """Announced for the device's architecture, but built for another: no start of it gets as far as the agent.

    The self-test ends with code 1 and says so. (One announced for another architecture is refused before the download.)
    """

    # The self-test.
    SELF_TEST_FAILS = "self-test-fails"
    """`--self-test` exits with code 1."""
    SELF_TEST_HANGS = "self-test-hangs"
    """`--self-test` never ends, not even by SIGTERM."""
    SELF_TEST_LIES = "self-test-lies"
    """`--self-test` passes and names another version and another sha256."""

    # As a service.
    CRASHES_AT_START = "crashes-at-start"
    """Exits with code 1 as soon as it is started as a service."""
    EXITS_LATER = "exits-later"
    """Is the agent for a while, and exits with code 1 `after` its start, each time it is started."""
    HANGS = "hangs"
    """Starts and does nothing for ever; SIGTERM is not heeded, only SIGKILL ends it."""
    NEVER_HEARTBEATS = "never-heartbeats"
    """Starts and does nothing for ever; SIGTERM ends it with code 0."""
    HEARTBEATS_WRONG_RELEASE = "heartbeats-wrong-release"
    """Every heartbeat names another sha256 than that of the file that runs."""
    CANNOT_AUTHENTICATE = "cannot-authenticate"
    """It cannot log in to the bus, while every other release on the same device can."""
    LEAKS_UNTIL_KILLED = "leaks-until-killed"
    """Is the agent, grows, and is killed (SIGKILL) `after` its start, each time it is started, as out of memory."""
    BREAKS_WORKLOADS = "breaks-workloads"
    """Cannot work with the container engine: from its first heartbeat on it reports a workload that does not run."""
    FAILS_AFTER_REBOOT = "fails-after-reboot"
    """Is the agent until the machine boots again; from then on it exits with code 1 at each start."""
    FAILS_UNDER_LOAD = "fails-under-load"
    """Exits with code 1 when it has managed two containers or more for the time `after`, each time it is started.

    A release in its overlap manages nothing: this one is always confirmed first.
    """


AFTER: Final = {
    Defect.EXITS_LATER: Duration.seconds(20),
    Defect.LEAKS_UNTIL_KILLED: Duration.seconds(20),
    Defect.FAILS_UNDER_LOAD: Duration.seconds(20),
}
"""The defects that take a time `after` which they show, and that time when none is given."""
DAMAGED: Final = (Defect.CORRUPT, Defect.TRUNCATED)
"""What is served is not what was announced: the release itself is a healthy one."""


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """A defect with its time, if it takes one. Raises: InvalidValue when it takes none and one is given."""

    defect: Defect = Defect.NONE
    after: Duration | None = None

    def __post_init__(self) -> None:
        if self.after is not None and self.defect not in AFTER:
            takers = ", ".join(AFTER)
            raise InvalidValue(f"defect {self.defect.value} takes no time after which it shows; those do: {takers}")

    @property
    def delay(self) -> Duration:
        """After how much time it shows; zero for a defect that does not wait."""
        return self.after if self.after is not None else AFTER.get(self.defect, Duration(0))


HEALTHY: Final = Misbehaviour()


def find(name: str) -> Defect:
    """The defect of this name. Raises: InvalidValue, with the nearest name there is."""
    names = [defect.value for defect in Defect if defect is not Defect.NONE]
    if name in names:
        return Defect(name)
    near = difflib.get_close_matches(name, names, 1, 0.4)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
    raise InvalidValue(f"there is no defect {name!r}: {hint}")

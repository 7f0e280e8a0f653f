"""Errors that answer one question: did it happen?

`Definite`: it did not happen; trying again is safe. `Unknown`: it may have happened; look before trying
again. Adapters translate their library's errors into these at the door (`raise … from error`).

Every class is plain and rebuilds from its `args`, because simpy and pickling re-create errors as
`type(error)(*error.args)` (a test walks all subclasses and holds them to it).
"""

from __future__ import annotations


class FleetError(Exception):
    """Root of every error the project raises on purpose."""


class InvalidValue(FleetError, ValueError):
    """Text or bytes from outside do not parse. Says what was wrong and what would be right.

    Also a `ValueError`, so that a pydantic validator may raise it.
    """


class Definite(FleetError):
    """It did not happen. Trying again is safe."""


class Unknown(FleetError):
    """It may or may not have happened. Look at the state of the world before trying again."""


class Conflict(Definite):
    """Someone else wrote first: the revision given is not the newest. Read again, then decide again."""


class NotFound(Definite):
    """The named thing does not exist."""


class Refused(Definite):
    """The other side looked at the request and said no. The message says why; repeating it will not help."""


class TooLarge(Refused):
    """A key or value over the size the other side takes."""


class NotPermitted(Refused):
    """The identity used may not do this."""


class Unavailable(Definite):
    """The other side could not be reached and certainly did not act. Try again later."""


class NoSpace(Definite):
    """The disk has no room. Carries the numbers a person needs.

    Args:
        needed: bytes wanted.
        free: bytes there were.
    """

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(needed, free)
        self.needed = needed
        self.free = free

    def __str__(self) -> str:
        return f"{self.needed} bytes needed, {self.free} bytes free"


class DiskFault(Unknown):
    """The disk failed an operation; what it left behind has to be looked at."""


class TimedOut(Unknown):
    """No answer in time. A put that timed out may still land after the next reconnect."""


class Disconnected(Unknown):
    """The connection broke with the request under way."""


class IllegalTransition(FleetError):
    """A state machine was given an event its state has no answer to. A defect, told with its story.

    Args:
        state: the state, rendered.
        event: the event, rendered.
        story: the latest transitions before it, oldest first.
    """

    def __init__(self, state: str, event: str, story: tuple[str, ...] = ()) -> None:
        super().__init__(state, event, story)
        self.state = state
        self.event = event
        self.story = story

    def __str__(self) -> str:
        lines = "".join(f"\n  {line}" for line in self.story)
        return f"no transition from {self.state} on {self.event}; before that:{lines or ' nothing'}"

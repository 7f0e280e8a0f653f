"""How a run ended: one type per way, each with its exit code and its words for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never


@dataclass(frozen=True, slots=True)
class Held:
    """Every invariant and every check held, every fault happened, and the fleet converged."""


@dataclass(frozen=True, slots=True)
class Violated:
    """An invariant or a check (`rule`) does not hold; `evidence` is what contradicts it."""

    rule: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Stuck:
    """Nothing is wrong, but something that has to come did not come in time."""

    during: str
    waiting_for: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Crashed:
    """Production code raised an exception that nobody handled."""

    error: str
    traceback: str


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """The target cannot do what the scenario needs; nothing was started."""

    why: str


@dataclass(frozen=True, slots=True)
class HarnessBroken:
    """The run says nothing about the system: a fault never happened, or the target or the harness failed."""

    why: str
    traceback: str = ""


Verdict = Held | Violated | Stuck | Crashed | NotApplicable | HarnessBroken

BAD_INPUT = 2
"""The exit code of a command whose files or arguments are wrong: nothing was started."""


def exit_code(verdict: Verdict) -> int:
    """One code per verdict. A target that cannot do a scenario is no failure of a suite, but its report shows it."""
    match verdict:
        case Held() | NotApplicable():
            return 0
        case Violated():
            return 1
        case Stuck():
            return 3
        case Crashed():
            return 4
        case HarnessBroken():
            return 5
        case _:
            assert_never(verdict)


def reason(verdict: Verdict) -> str:
    """One line for people; empty when everything held."""
    match verdict:
        case Held():
            return ""
        case Violated(rule, evidence):
            return f"{rule}: {evidence}"
        case Stuck(during, waiting_for):
            return f"{during}: still waiting for {'; '.join(waiting_for)}"
        case Crashed(error):
            return error
        case NotApplicable(why) | HarnessBroken(why):
            return why
        case _:
            assert_never(verdict)


def details(verdict: Verdict) -> str:
    """The traceback, and whatever else a target knows of an end like this; empty when there is none."""
    return verdict.traceback if isinstance(verdict, Crashed | HarnessBroken) else ""

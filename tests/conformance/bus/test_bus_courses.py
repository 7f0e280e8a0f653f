"""The model of the NATS server shows what a real nats-server shows, whatever is asked of it in whatever order."""

from __future__ import annotations

import pytest

from tests.conformance.bus.accounts import unlisted, unshown
from tests.conformance.bus.labs import Makers
from tests.conformance.bus.machine import EXAMPLES, SEED, explore


@pytest.mark.real
def test_the_model_and_the_server_show_the_same(makers: Makers) -> None:
    run = explore(makers, EXAMPLES, SEED)
    assert run.ran >= EXAMPLES
    assert unlisted(run.executed) == [], "neither modelled nor left out: add a row to sim/nats/surface.py"
    assert unshown(run.executed) == [], "the table calls it modelled, and nothing of it was run"

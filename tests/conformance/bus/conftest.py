"""The two makers, alive for the tests of one file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.bus.labs import Makers, makers_here


@pytest.fixture(scope="module")
def makers() -> Iterator[Makers]:
    """The model, and a real server."""
    with makers_here() as makers:
        yield makers

"""The two makers, alive for the tests of one file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.conformance.bus.labs import Makers

_MEMORY: Final = Path("/dev/shm")
"""Where a store costs no disk, if there is such a place."""


@pytest.fixture(scope="module")
def makers() -> Iterator[Makers]:
    """The model, and a real server."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        makers = Makers(Path(folder))
        yield makers
        makers.close()

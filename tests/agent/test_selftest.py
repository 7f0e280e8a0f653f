"""The self-test, its report, and what loading the agent loads."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from agent import selftest
from fleet.contracts.records import Record

Values = Any  # The conftest's class: test files cannot import it.


def test_the_report_names_the_release(values: Values) -> None:
    release = values.release(3)
    assert selftest.named(b"some noise\n" + selftest.report(release)) == release


@pytest.mark.parametrize("output", [b"", b"\n", b"{}", b"[]", b"null", b"\xff", b'{"self-test":"passed"}', b"[" * 9999])
def test_anything_else_names_nothing(output: bytes) -> None:
    assert selftest.named(output) is None


def test_a_failed_test_names_nothing(values: Values) -> None:
    assert selftest.named(selftest.report(values.release(3)).replace(b"passed", b"failed")) is None


def test_it_passes_here(values: Values) -> None:
    assert selftest.named(selftest.run(values.release(1))) == values.release(1)


def test_there_is_a_specimen_of_every_record() -> None:
    assert {type(record) for record in selftest.specimens()} == set(Record.__subclasses__())


OTHER_SIDE = ("fleet.operator", "fleet.console", "fleet.adapters", "kubernetes", "sim", "harness", "simpy", "nats")


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("agent", OTHER_SIDE),
        ("agent.loop", OTHER_SIDE),
        ("agent.__main__", ("fleet.operator", "fleet.console", "kubernetes", "sim", "harness", "simpy")),
    ],
)
def test_loading_the_agent_loads_nothing_of_the_other_side(module: str, forbidden: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, timeout=60, check=True)
    loaded = done.stdout.splitlines()
    assert module in loaded
    assert [name for name in loaded for root in forbidden if name == root or name.startswith(f"{root}.")] == []

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


USED_LATER = """
import asyncio, importlib, sys
from agent.selftest import NEEDED
for name in NEEDED:
    importlib.import_module(name)
before = set(sys.modules)
from fleet.adapters.clock import WallClock
from fleet.adapters.http import HttpArtefacts
from fleet.adapters.http_client import HttpClient
from fleet.capabilities.http import HttpRequest
from fleet.contracts.errors import FleetError

async def ask():
    async def answer(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    clock = WallClock()
    client, artefacts = HttpClient(clock), HttpArtefacts(clock)
    assert (await client.send(HttpRequest("GET", f"http://127.0.0.1:{port}/", (), b""))).status == 200
    try:
        await client.send(HttpRequest("GET", f"https://127.0.0.1:{port}/", (), b""))
    except FleetError:
        pass
    await client.close()
    await artefacts.close()

asyncio.run(ask())
print(*sorted(name for name in set(sys.modules) - before if name.partition(".")[0] not in sys.stdlib_module_names))
"""


def test_nothing_is_loaded_later_that_the_self_test_did_not_load() -> None:
    """A module that only the first request loads would fail after the swap, in every start."""
    done = subprocess.run([sys.executable, "-c", USED_LATER], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []

"""The table of what the model does holds everything that a server and its client library offer."""

from __future__ import annotations

import asyncio
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest
from nats.js.api import Header, StreamConfig
from nats.js.kv import KeyValue
from nats.js.manager import JetStreamManager

from fleet.capabilities.bus import Bus, BusAdmin, Subscription
from harness.targets.nats_process import find_server
from sim.nats.surface import SURFACE, LeftOut, Modelled, Part, Told
from tests.conformance.bus import operations
from tests.conformance.bus.accounts import shown_by, unlisted, unshown
from tests.conformance.bus.drive import SPECS, USED
from tests.conformance.bus.labs import RealLab
from tests.conformance.bus.machine import HEADER_LINES


def names(part: Part) -> set[str]:
    return {row.name for row in SURFACE if row.part is part}


def methods(kind: type) -> set[str]:
    return {name for name, member in vars(kind).items() if not name.startswith("_") and inspect.isfunction(member)}


def test_no_row_is_there_twice() -> None:
    rows = [(row.part, row.name) for row in SURFACE]
    assert len(rows) == len(set(rows))


def test_every_method_of_the_port_is_modelled() -> None:
    ports = {f"Bus.{name}" for name in methods(Bus)} | {f"BusAdmin.{name}" for name in methods(BusAdmin)}
    ports |= {f"Subscription.{name}" for name in vars(Subscription) if not name.startswith("_")}
    assert names(Part.PORT) == ports
    assert all(isinstance(row.standing, Modelled) for row in SURFACE if row.part is Part.PORT)


def offered(name: str) -> bool:
    """Whether the port has such a method, or such an argument of one."""
    method, _, argument = name.rstrip(")").partition("(")
    if not argument:
        return method in methods(Bus)
    return argument in inspect.signature(getattr(Bus, method)).parameters


def test_what_is_left_out_is_not_offered_by_the_port() -> None:
    left_out = [row.name for row in SURFACE if isinstance(row.standing, LeftOut) and row.part is Part.LIBRARY]
    assert "purge" in left_out
    assert [name for name in left_out if offered(name)] == []
    assert offered("get")
    assert offered("get(key)")


def test_every_operation_of_the_library_is_named() -> None:
    assert names(Part.LIBRARY) - {"get(revision)"} == methods(KeyValue)
    assert names(Part.API) == methods(JetStreamManager)


def test_every_field_of_a_stream_is_named() -> None:
    assert names(Part.STREAM) == {item.name for item in fields(StreamConfig)}


def header_names(program: bytes, known: set[str]) -> set[str]:
    """Header names in a program that no known name explains. Its strings stand there one behind the other."""
    strange = set()
    for found in re.findall(rb"Nats-[A-Z][A-Za-z]+(?:-[A-Z][A-Za-z]+)*", program):
        text = found.decode()
        if not any(text.startswith(name) and _begins_anew(text[len(name) :]) for name in known):
            strange.add(text)
    return strange


def _begins_anew(rest: str) -> bool:
    """Whether what follows a name is another string of the program. Some of its strings are beginnings of names."""
    return not rest.startswith("-") or rest.startswith("-Nats-")


def test_every_header_of_the_server_and_of_the_library_is_named() -> None:
    known = names(Part.HEADERS)
    assert {header.value for header in Header} <= known
    program = find_server().read_bytes()
    assert header_names(program, known) == set()
    assert header_names(program, known - {"Nats-Rollup"}), "a header that is missing is noticed"


def test_every_modelled_row_has_a_generator() -> None:
    kinds = {kind.__name__ for kind in operations.Operation.__args__}
    lines = {operations.feature_of(line) for line in HEADER_LINES}
    assert shown_by() == kinds | lines


def test_stories_of_other_suites_are_there() -> None:
    suites = [row.standing.suite for row in SURFACE if isinstance(row.standing, Told)]
    assert suites
    assert all((Path(__file__).parents[1] / suite).is_file() for suite in suites)


def test_the_accounts_notice_what_is_missing_on_either_side() -> None:
    assert unlisted(["Put", "Purge"], {"Put", "Get"}) == ["Purge"]
    assert unshown(["Put", "Purge"], {"Put", "Get"}) == ["Get"]


@pytest.mark.real
def test_every_field_the_server_fills_in_is_named(tmp_path: Path) -> None:
    async def told() -> set[str]:
        lab = RealLab(tmp_path)
        try:
            await lab.start()
            await lab.empty()
            return {field for bucket in USED for field in await lab.configuration(SPECS[bucket])}
        finally:
            await lab.stop()

    assert asyncio.run(told()) - names(Part.STREAM) == set()

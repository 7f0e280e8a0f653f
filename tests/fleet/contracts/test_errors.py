"""Every error rebuilds from its `args`, as simpy and pickle do it, and says whether it happened."""

from __future__ import annotations

import importlib
import pickle
import pkgutil

import pytest

import fleet
from fleet.contracts.errors import (
    Conflict,
    Definite,
    Disconnected,
    FleetError,
    IllegalTransition,
    InvalidValue,
    NoSpace,
    TimedOut,
    Unavailable,
    Unknown,
)

MADE = {
    NoSpace: NoSpace(10, 3),
    IllegalTransition: IllegalTransition("Idle", "Stopped", ("Started", "Idle")),
}


def subclasses(root: type[FleetError]) -> list[type[FleetError]]:
    below = [deeper for child in root.__subclasses__() for deeper in subclasses(child)]
    return [root, *sorted(below, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")]


def all_errors() -> list[type[FleetError]]:
    for package in ("fleet.contracts", "fleet.capabilities", "fleet.operator", "fleet.scores"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(module.name)
    return [kind for kind in subclasses(FleetError) if kind.__module__.startswith(f"{fleet.__name__}.")]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_rebuilds_from_its_args(kind: type[FleetError]) -> None:
    error = MADE.get(kind) or kind("what happened")
    again = type(error)(*error.args)
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
    unpickled = pickle.loads(pickle.dumps(error))
    assert (type(unpickled), str(unpickled)) == (kind, str(error))


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_no_error_is_both_definite_and_unknown(kind: type[FleetError]) -> None:
    assert not (issubclass(kind, Definite) and issubclass(kind, Unknown))


def test_the_errors_of_a_write_say_whether_it_happened() -> None:
    assert issubclass(Conflict, Definite)
    assert issubclass(Unavailable, Definite)
    assert issubclass(TimedOut, Unknown)
    assert issubclass(Disconnected, Unknown)
    assert issubclass(InvalidValue, ValueError)


def test_a_full_disk_tells_the_numbers() -> None:
    assert str(NoSpace(10, 3)) == "10 bytes needed, 3 bytes free"


def test_an_illegal_transition_tells_its_story() -> None:
    assert str(MADE[IllegalTransition]) == "no transition from Idle on Stopped; before that:\n  Started\n  Idle"
    assert str(IllegalTransition("Idle", "Stopped")).endswith("before that: nothing")

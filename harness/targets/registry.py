"""The targets by name. Each is imported when it is asked for: one needs a server binary, another a cluster.

A target's module offers `target() -> Target`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from fleet.contracts.errors import InvalidValue
from harness.targets.port import Target

MODULES = {
    "sim": "harness.targets.sim",
    "local": "harness.targets.local",
}
INTERNAL = {"scripted": "harness.targets.scripted"}
"""For the harness's own tests: not offered to anybody."""
IN_PARALLEL = ("sim", "local", "scripted")
"""Targets of which several runs can be under way at the same time, each in a process of its own."""
SEEDED = ("sim", "scripted")
"""Targets on which the seed decides how a run goes."""


def target(name: str) -> Target:
    """The target of that name.

    Raises:
        InvalidValue: there is none, or what it needs is not installed.
    """
    path = MODULES.get(name) or INTERNAL.get(name)
    if path is None:
        raise InvalidValue(f"there is no target {name!r}: known are {', '.join(MODULES)}")
    try:
        module = import_module(path)
    except ModuleNotFoundError as error:
        raise InvalidValue(f"target {name!r} is not available here: {error}") from error
    make: Callable[[], Target] = module.target
    return make()

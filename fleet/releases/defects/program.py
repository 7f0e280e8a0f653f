"""The entry point of a real misbehaving release: the `fleet-agent` command with one thing wrong.

What is wrong stands in `agent/release.json` of the file itself. Only things that the surroundings of a process decide
(its signals, its memory, its password) are written here; what a service does is in `service`, as for virtual devices.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from typing import Final, NoReturn

from agent import __main__ as agent
from fleet.adapters.nats_login import PasswordFile, PasswordLogin
from fleet.contracts.time import Duration
from fleet.releases.defects import selftest
from fleet.releases.defects.catalogue import AFTER, Defect, Misbehaviour
from fleet.releases.defects.service import FAILED, serve

_STEP: Final = 8 * 2**20
"""Bytes that a leak takes at once. With all its steps it stays small: it is the kill that matters, not the memory."""


def main() -> int:
    """Entry point. Returns the exit code."""
    misbehaviour = read(json.loads((files("agent") / "release.json").read_bytes()))
    if "--self-test" in sys.argv[1:]:
        return _self_test(misbehaviour.defect)
    if "--version" not in sys.argv[1:]:
        if misbehaviour.defect is Defect.CRASHES_AT_START:
            return FAILED  # before anything is read that could be wrong, too
        _misbehave(misbehaviour)
    return agent.main()


def read(about: dict[str, object]) -> Misbehaviour:
    """What `agent/release.json` says of how the release misbehaves; `defect-after` is in nanoseconds."""
    defect, after = Defect(str(about["defect"])), about["defect-after"]
    assert isinstance(after, int)
    return Misbehaviour(defect, Duration(after) if defect in AFTER else None)


# --- the self-test ------------------------------------------------------------------------------------


def _self_test(defect: Defect) -> int:
    match defect:
        case Defect.SELF_TEST_FAILS:
            print(selftest.COMPLAINT)
            return FAILED
        case Defect.SELF_TEST_HANGS:
            _hang()
        case _:
            _put("own_release", partial(selftest.named, defect, agent.own_release()))
    return agent.main()


def _hang() -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()


# --- the service --------------------------------------------------------------------------------------


def _misbehave(misbehaviour: Misbehaviour) -> None:
    """Let the production command run the misbehaving service in place of the agent, on its own ports."""
    if misbehaviour.defect is Defect.CANNOT_AUTHENTICATE:
        _put("PasswordFile", _WrongPassword)  # the server itself refuses it
        return
    _put("run_agent", partial(serve, misbehaviour, _Process()))


def _put(name: str, part: Callable[..., object]) -> None:
    """Let the production command use another part under one of its names."""
    assert name in vars(agent), f"the command has no {name} any more"
    setattr(agent, name, part)


@dataclass(slots=True)
class _Process:
    """See `service.Itself`."""

    held: list[bytes] = field(default_factory=list)

    def grow(self) -> None:
        self.held.append(b"\1" * _STEP)

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class _WrongPassword(PasswordFile):
    async def read(self) -> PasswordLogin:
        login = await super().read()
        return PasswordLogin(login.user, "not " + login.password)

"""The command lines of `systemctl` and `podman` that `agent.linux` uses, and no others, told apart and answered.

An unknown one fails loudly: a stand-in that guesses would hide a difference from the real tools. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from harness.targets.standin.engine import Box, Engine, Failed
from harness.targets.standin.units import Refused, Unit


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool prints, and its exit code."""

    code: int = 0
    out: str = ""
    err: str = ""


class Commands:
    """Answers for one device."""

    def __init__(self, units: Mapping[str, Unit], engine: Engine) -> None:
        self._units = units
        self._engine = engine

    async def answer(self, tool: str, arguments: list[str]) -> Answer:
        """Do what a command line says."""
        try:
            match tool:
                case "systemctl":
                    return await self._systemctl(arguments)
                case "podman":
                    return await self._podman(arguments)
                case "machine":
                    return self._machine(arguments)
                case _:
                    return _unknown(tool, arguments)
        except Refused as error:
            return Answer(1, err=f"Job failed. {error}\n")
        except Failed as error:
            return Answer(error.code, err=f"{error.message}\n")

    async def _systemctl(self, arguments: list[str]) -> Answer:
        unit = self._units.get(arguments[-1]) if arguments else None
        if unit is None:
            return Answer(5, err=f"Unit {arguments[-1] if arguments else ''} could not be found.\n")
        match arguments[:-1]:
            case ["start"]:
                unit.start()
            case ["stop"]:
                await unit.stop()
            case ["reset-failed"]:
                unit.reset_failed()
            case ["show", "--property", names]:
                return Answer(out=_show(unit, names.split(",")))
            case _:
                return _unknown("systemctl", arguments)
        return Answer()

    async def _podman(self, arguments: list[str]) -> Answer:
        engine = self._engine
        match arguments:
            case ["ps", "--all", "--filter", "label=io.nationtech.fleet.deployment", "--format", "json"]:
                return Answer(out=json.dumps(engine.listing()))
            case ["image", "exists", "--", image]:
                return Answer(0 if engine.has_image(image) else 1)
            case ["pull", "--quiet", "--", image]:
                engine.pull(image)
            case ["run", "--detach", "--pull=never", *rest] if "--" in rest:
                engine.run(_box(rest))
            case ["start", name]:
                engine.start(name)
            case ["rm", "--force", "--ignore", "--time", grace, name]:
                await engine.remove(name, float(grace))
            case _:
                return _unknown("podman", arguments)
        return Answer()

    def _machine(self, arguments: list[str]) -> Answer:
        match arguments:
            case ["kill", unit] if unit in self._units:
                self._units[unit].kill()
            case ["crash", name]:
                self._engine.crash(name)
            case ["silence"]:
                self._engine.answers.clear()
            case ["answer"]:
                self._engine.answers.set()
            case _:
                return _unknown("machine", arguments)
        return Answer()


def _show(unit: Unit, names: list[str]) -> str:
    known = {
        "ActiveState": unit.active,
        "SubState": unit.sub,
        "NRestarts": str(unit.restarts),
        "Result": unit.result,
        "ExecMainStatus": str(unit.status),
    }
    return "".join(f"{name}={known[name]}\n" for name in names)


def _box(arguments: list[str]) -> Box:
    """Read the options of `podman run`: pairs of `--name`, `--label` and `--env`, then `--`, the image, its command."""
    split = arguments.index("--")
    options, image, command = arguments[:split], arguments[split + 1], arguments[split + 2 :]
    name, labels, environment = "", {}, {}
    for option, value in zip(options[::2], options[1::2], strict=True):
        key, _, text = value.partition("=")
        match option:
            case "--name":
                name = value
            case "--label":
                labels[key] = text
            case "--env":
                environment[key] = text
            case _:
                raise Failed(125, f"Error: unknown flag: {option}")
    return Box(name, image, tuple(command), environment, labels)


def _unknown(tool: str, arguments: list[str]) -> Answer:
    return Answer(64, err=f"the stand-in knows no {tool} {' '.join(arguments)}\n")

"""What an agent is told once, at enrolment: the file `/etc/fleet-agent/config.json`, parsed at the edge.

    {"device": "dev-1", "bus": {"url": "nats://bus.example:4222", "login": "/etc/fleet-agent/login.json"}}

The password is not in it: `login` names a private file, read anew at each connection.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId, Frozen


class BusConfig(Frozen):
    """Where the bus is. `login` is a path on the device, to a file with `{"user": …, "password": …}`."""

    url: Annotated[str, Field(pattern=r"^(nats|tls)://[^\s/@]+$")]
    login: Annotated[str, Field(pattern=r"^/\S+$")]


class AgentFile(Frozen):
    """The whole file.

    `pace` divides every interval of the agent; it is 1 on a real device. `clock_offset` is a path on the device, of a
    file that says how wrong its time of day is (`fleet.adapters.clock.OffsetFile`); a real device's clock is wrong by
    itself, and has none.
    """

    device: DeviceId
    bus: BusConfig
    pace: Annotated[float, Field(gt=0)] = 1.0
    clock_offset: Annotated[str, Field(pattern=r"^/\S+$")] | None = None


def load(path: Path) -> AgentFile:
    """Read the file.

    Raises:
        InvalidValue: it is missing or not what it should be. Names fields, never quotes values.
    """
    try:
        return AgentFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        parts = [f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}" for problem in problems[:5]]
        raise InvalidValue(f"{path} is not an agent configuration: {'; '.join(parts)}") from None


def below(root: Path, path: str) -> Path:
    """Where a path on the device is on the machine that runs it."""
    return root / path.lstrip("/")

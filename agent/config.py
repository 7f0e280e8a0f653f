"""What an agent is told once, at enrolment: the file `/etc/fleet-agent/config.json`, parsed at the edge.

    {"device": "dev-1", "bus": {"url": "nats://bus.example:4222", "auth": "/etc/fleet-agent/identity/auth.json"}}

No secret is in it: `auth` names the identity that enrolment left on the device, read anew at each connection. A bus
without an auth callout has passwords: there it says `login` and names a private file with one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Discriminator, Field, Tag, ValidationError

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId, Frozen

BusUrl = Annotated[str, Field(pattern=r"^(nats|tls)://[^\s/@]+$")]
DevicePath = Annotated[str, Field(pattern=r"^/\S+$")]
"""A path on the device."""


class BusWithPassword(Frozen):
    """Where the bus is. `login` is the path of a file with `{"user": …, "password": …}`."""

    url: BusUrl
    login: DevicePath


class BusWithIdentity(Frozen):
    """Where the bus is. `auth` is the path of a file with a `fleet.contracts.auth.FleetDeviceAuth`."""

    url: BusUrl
    auth: DevicePath


def _which(bus: object) -> str:
    """Which of the two is meant, so that an error is about that one."""
    if isinstance(bus, dict):
        return "identity" if "auth" in bus else "password"
    return "identity" if isinstance(bus, BusWithIdentity) else "password"


BusConfig = Annotated[
    Annotated[BusWithPassword, Tag("password")] | Annotated[BusWithIdentity, Tag("identity")], Discriminator(_which)
]


class AgentFile(Frozen):
    """The whole file.

    `pace` divides every interval of the agent; it is 1 on a real device. `clock_offset` is a path on the device, of a
    file that says how wrong its time of day is (`fleet.adapters.clock.OffsetFile`); a real device's clock is wrong by
    itself, and has none.
    """

    device: DeviceId
    bus: BusConfig
    pace: Annotated[float, Field(gt=0)] = 1.0
    clock_offset: DevicePath | None = None


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
        parts = [f"{_place(problem['loc'])}: {problem['msg']}" for problem in problems[:5]]
        raise InvalidValue(f"{path} is not an agent configuration: {'; '.join(parts)}") from None


def _place(location: tuple[int | str, ...]) -> str:
    """The field, without the name of the alternative that was tried."""
    if location[:1] == ("bus",):
        location = ("bus", *location[2:])
    return ".".join(map(str, location)) or "file"


def below(root: Path, path: str) -> Path:
    """Where a path on the device is on the machine that runs it."""
    return root / path.lstrip("/")

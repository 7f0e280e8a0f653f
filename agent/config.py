"""The agent's configuration file, as enrolment writes it and the agent reads it at each start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from fleet.contracts.errors import InvalidValue, NotFound
from fleet.contracts.ids import DeviceId, Frozen


class AgentFile(Frozen):
    """What stands in `/etc/fleet-agent/config.json`.

    `nats_login` is the path of a private file with user and password, read anew at each connection. `pace` is the
    factor by which every timer of the agent runs faster than the wall; 1 everywhere but on test targets.
    """

    device: DeviceId
    nats_url: Annotated[str, Field(pattern=r"^(nats|tls)://[^\s]+$")]
    nats_login: Path
    pace: Annotated[float, Field(gt=0, le=1000)] = 1.0


def read_config(path: Path) -> AgentFile:
    """Read the file.

    Raises:
        NotFound: there is none that can be read. InvalidValue: says which field is wrong, and quotes no value.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror}; is this device enrolled?") from error
    try:
        return AgentFile.model_validate_json(data)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InvalidValue(f"{path}: {place}: {first['msg']}") from None

"""What every block of a scenario file is built of: strict parts, durations with units, and references by name.

A reference is its own type, so that one walk over a loaded scenario finds every name that has to exist
(`harness.scenario`), and a field that names a group cannot be forgotten by that check.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeploymentName, DeviceId, ObjectName, Version
from fleet.contracts.time import Duration

TRIGGERING = "triggering"
"""Stands for a device in a fault: the one whose event set the fault off."""
EVERY_DEVICE = "all"
"""The group that always exists and holds every device."""


class Part(BaseModel):
    """One block: immutable, closed against unknown keys, and strict (the text "5" is not the number 5)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


def _duration(value: object) -> Duration:
    if not isinstance(value, str):
        raise InvalidValue('a duration is text with units, such as "30s", "5m" or "1h30m"')
    if value.startswith("-"):
        raise InvalidValue(f"{value!r} is negative: a length of time here is zero or more")
    return Duration.parse(value)


Length = Annotated[
    Duration,
    PlainValidator(_duration),
    PlainSerializer(str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^(\d+(\.\d+)?(ns|us|ms|s|m|h|d))+$", "description": "such as 30s, 5m, 1h30m"}
    ),
]
"""A length of time as people write it."""


def _signed_duration(value: object) -> Duration:
    if isinstance(value, str) and value.startswith("-"):
        return _duration(value[1:]) * -1
    return _duration(value)


def _signed_text(length: Duration) -> str:
    return f"-{length * -1}" if length < 0 else str(length)


SignedLength = Annotated[
    Duration,
    PlainValidator(_signed_duration),
    PlainSerializer(_signed_text),
    WithJsonSchema(
        {"type": "string", "pattern": r"^-?(\d+(\.\d+)?(ns|us|ms|s|m|h|d))+$", "description": "such as 30s, -2h"}
    ),
]
"""A length of time that may be negative."""


class Reference(str):
    """The name of something that the scenario has to define: mixed into the kind of name that it is.

    Its form is not checked when it is read: the answer to a misspelt name is the nearest one that exists.
    """

    __slots__ = ()
    refers: ClassVar[str]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            partial(str.__new__, cls), core_schema.str_schema(min_length=1, strict=True)
        )


class GroupRef(Reference, ObjectName):
    """A group of `fleet.groups`, or `all`."""

    __slots__ = ()
    refers = "group"


class DeviceRef(Reference, DeviceId):
    """A device, `device-001` up to the number of devices."""

    __slots__ = ()
    refers = "device"


class TargetDeviceRef(DeviceRef):
    """A device a fault hits: named, or `triggering` for the one whose event set the fault off."""

    __slots__ = ()


class ReleaseRef(Reference, Version):
    """The version of one of the `releases`."""

    __slots__ = ()
    refers = "release"


class DeploymentRef(Reference, DeploymentName):
    """A workload that some step deploys."""

    __slots__ = ()
    refers = "deployment"


class RolloutRef(Reference, ObjectName):
    """A rollout that some `upgrade` step makes."""

    __slots__ = ()
    refers = "rollout"


class SecretRef(Reference, ObjectName):
    """A secret that the installation makes for itself."""

    __slots__ = ()
    refers = "secret"


class StepRef(int):
    """The number of a step, counted from 1 in file order."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.int_schema(ge=1, strict=True))


_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|\\)?")


def escaped_bytes(text: str) -> bytes:
    r"""Bytes from text in which `\xHH` is a byte and `\\` a backslash; everything else is UTF-8.

    Raises:
        InvalidValue: a backslash that begins neither.
    """
    pieces, position = bytearray(), 0
    for match in _ESCAPE.finditer(text):
        pieces += text[position : match.start()].encode()
        match match[1]:
            case None:
                raise InvalidValue(rf"{text!r}: a backslash begins \xHH (a byte) or \\ (a backslash)")
            case "\\":
                pieces += b"\\"
            case code:
                pieces.append(int(code[1:], 16))
        position = match.end()
    return bytes(pieces + text[position:].encode())


def exactly_one(names: str, *values: object) -> None:
    """Refuse unless exactly one of the values was given.

    Raises:
        InvalidValue: none, or several.
    """
    if sum(value is not None for value in values) != 1:
        raise InvalidValue(f"give exactly one of {names}")

"""Identifiers. Each kind has its own type, is checked once at the edge, and cannot be swapped for another.

Text identifiers are `str` subclasses whose constructor refuses what does not match, so that holding one
is proof that it is well formed. pydantic checks the pattern in its own core and wraps without a second
check, which keeps decoding of the hot records cheap.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import partial
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from fleet.contracts.errors import InvalidValue


class _Name(str):
    """A string that matches its class's pattern. `kind` and `hint` word the error."""

    __slots__ = ()
    kind: ClassVar[str]
    hint: ClassVar[str]
    pattern: ClassVar[re.Pattern[str]]

    def __new__(cls, text: str) -> Self:
        if cls.pattern.fullmatch(text) is None:
            raise InvalidValue(f"{text!r} is not a {cls.kind}: {cls.hint}")
        return str.__new__(cls, text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            partial(str.__new__, cls), core_schema.str_schema(pattern=f"^(?:{cls.pattern.pattern})$")
        )


class DeviceId(_Name):
    """One device. An RFC 1123 label: 1 to 63 characters of a-z, 0-9 and `-`, not at either end."""

    __slots__ = ()
    kind, hint = "device id", "use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
    pattern = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class DeploymentName(_Name):
    """One workload deployment. An RFC 1123 label, like `DeviceId`."""

    __slots__ = ()
    kind, hint = "deployment name", "use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
    pattern = DeviceId.pattern


class ObjectName(_Name):
    """The name of an object behind the Kubernetes port (RFC 1123 label)."""

    __slots__ = ()
    kind, hint = "object name", "use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
    pattern = DeviceId.pattern


class Version(_Name):
    """The version of a release, `MAJOR.MINOR.PATCH` with an optional `-suffix`.

    Has no order on purpose: a rollback lowers it, so order is only ever taken from `Revision`.
    """

    __slots__ = ()
    kind, hint = "version", "write MAJOR.MINOR.PATCH with an optional -suffix, such as 1.4.0 or 1.4.0-rc1"
    pattern = re.compile(r"[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}(?:-[0-9a-z][0-9a-z.]{0,31})?")


class Sha256(_Name):
    """A sha256 digest in 64 lower-case hexadecimal digits."""

    __slots__ = ()
    kind, hint = "sha256", "write 64 lower-case hexadecimal digits"
    pattern = re.compile(r"[0-9a-f]{64}")

    @property
    def short(self) -> str:
        """The first 12 digits, for people."""
        return self[:12]


class BootId(_Name):
    """One boot of one machine, as the kernel names it. Another boot id means the machine restarted."""

    __slots__ = ()
    kind, hint = "boot id", "use 1 to 64 of a-z, 0-9 and '-'"
    pattern = re.compile(r"[a-z0-9-]{1,64}")


class AttemptId(_Name):
    """One attempt to bring one device to one release. A retry is another attempt."""

    __slots__ = ()
    kind, hint = "attempt id", "use 1 to 128 of a-z, 0-9, '.' and '-'"
    pattern = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")


class Revision(int):
    """The revision of a KV entry: one sequence per bucket, growing with each accepted write.

    The only order that counts. Power loss of a server can make it go back and reuse numbers.
    """

    __slots__ = ()

    def __new__(cls, number: int) -> Self:
        if number < 0:
            raise InvalidValue(f"{number} is not a revision: revisions start at 1, 0 stands for 'no entry'")
        return int.__new__(cls, number)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.int_schema(strict=True, ge=0))


class Percent(int):
    """A whole percentage, 0 to 100."""

    __slots__ = ()

    def __new__(cls, number: int) -> Self:
        if not 0 <= number <= 100:
            raise InvalidValue(f"{number} is not a percentage: use 0 to 100")
        return int.__new__(cls, number)

    def of(self, total: int) -> int:
        """That share of `total`, rounded down."""
        return total * int(self) // 100

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.int_schema(strict=True, ge=0, le=100))


class Word(StrEnum):
    """An enumeration that stands in every heartbeat. Its members are their own text, and are written as such.

    Left to itself, pydantic asks each member for its `value`, which enumerations compute in Python.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = core_schema.to_string_ser_schema()
        return core_schema.enum_schema(cls, list(cls), sub_type="str", serialization=schema)


class Slot(Word):
    """The two places on a host where an agent instance can run, so that two can overlap.

    Only `A` starts at boot. A hand-over goes from the running slot to the other one.
    """

    A = "a"
    B = "b"

    @property
    def other(self) -> Slot:
        """The other slot."""
        return Slot.B if self is Slot.A else Slot.A


class Architecture(StrEnum):
    """CPU architectures that releases are built for, by their `uname -m` names."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"


class Frozen(BaseModel):
    """Base of every value in the contracts: immutable, closed against unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Release(Frozen):
    """One immutable agent artefact: two releases are the same only when both parts are."""

    version: Version
    sha256: Sha256

    def __str__(self) -> str:
        return f"{self.version}@{self.sha256.short}"

    def __hash__(self) -> int:
        return hash(self.sha256)


class InstanceId(Frozen):
    """One agent process: never reused, because each start raises the start counter on the device's disk."""

    device: DeviceId
    version: Version
    boot: BootId
    start: int

    def __str__(self) -> str:
        return f"{self.device}/{self.version}/{self.boot}/{self.start}"

    def __hash__(self) -> int:
        return hash((self.device, self.boot, self.start))

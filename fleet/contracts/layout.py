"""The one registry of the NATS layout: which bucket or subject holds which type, and who writes it.

Devices do not watch: each bucket republishes accepted writes below `fleet.<bucket>.`, and readers re-read
by direct get on every (re)connect. Any byte string can stand under any key, so reading never raises:
it returns `Valid` or `Invalid`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeVar

from pydantic import ValidationError

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeploymentName, DeviceId, Revision, Slot
from fleet.contracts.records import (
    SCHEMA_MAJOR,
    SCHEMA_MINOR,
    DesiredAgent,
    DesiredWorkload,
    DesiredWorkloads,
    DeviceInfo,
    Enrolment,
    Heartbeat,
    LockReply,
    LockRequest,
    Record,
    StopReply,
    StopRequest,
    UpgradeState,
    WorkloadState,
)

MAX_KEY_BYTES: Final = 512
"""Longest key the project writes or accepts. The server dies at 4,096 bytes of control line (nats.md §6)."""
MAX_VALUE_BYTES: Final = 64 * 1024


class Bucket(StrEnum):
    """The KV buckets."""

    DESIRED = "desired"
    INFO = "info"
    STATE = "state"
    HEARTBEAT = "heartbeat"
    OBJECTS = "objects"
    IDENTITY = "identity"


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """How a bucket is made. `rollup` is off where devices write: `Nats-Rollup: all` would wipe the bucket."""

    bucket: Bucket
    history: int
    rollup: bool

    @property
    def republished_to(self) -> str:
        """Subject prefix under which accepted writes are republished."""
        return f"fleet.{self.bucket}"


BUCKETS: Final = (
    BucketSpec(Bucket.DESIRED, history=8, rollup=False),
    BucketSpec(Bucket.INFO, history=1, rollup=False),
    BucketSpec(Bucket.STATE, history=1, rollup=False),
    BucketSpec(Bucket.HEARTBEAT, history=1, rollup=False),
    BucketSpec(Bucket.OBJECTS, history=1, rollup=False),
    BucketSpec(Bucket.IDENTITY, history=8, rollup=False),
)

R = TypeVar("R", bound=Record)
R_co = TypeVar("R_co", bound=Record, covariant=True)


@dataclass(frozen=True, slots=True)
class Address(Generic[R]):
    """A key in a bucket, together with the type of what stands there."""

    bucket: Bucket
    key: str
    record: type[R]


def desired_agent(device: DeviceId) -> Address[DesiredAgent]:
    """Where a device's desired release stands."""
    return Address(Bucket.DESIRED, f"{device}.agent", DesiredAgent)


def desired_workload(device: DeviceId, deployment: DeploymentName) -> Address[DesiredWorkload]:
    """Where a desired workload of a device stands."""
    return Address(Bucket.DESIRED, f"{device}.workload.{deployment}", DesiredWorkload)


def desired_workloads(device: DeviceId) -> Address[DesiredWorkloads]:
    """Where the names of a device's desired workloads stand."""
    return Address(Bucket.DESIRED, f"{device}.workloads", DesiredWorkloads)


def device_info(device: DeviceId) -> Address[DeviceInfo]:
    """Where a device describes itself."""
    return Address(Bucket.INFO, device, DeviceInfo)


def workload_state(device: DeviceId, deployment: DeploymentName) -> Address[WorkloadState]:
    """Where a device reports one workload."""
    return Address(Bucket.STATE, f"{device}.workload.{deployment}", WorkloadState)


def upgrade_state(device: DeviceId) -> Address[UpgradeState]:
    """Where a device reports its upgrade."""
    return Address(Bucket.STATE, f"{device}.upgrade", UpgradeState)


def heartbeat(device: DeviceId, slot: Slot) -> Address[Heartbeat]:
    """Where the instance in a slot reports that it is alive."""
    return Address(Bucket.HEARTBEAT, f"{device}.{slot.value}", Heartbeat)


def enrolment(device: DeviceId) -> Address[Enrolment]:
    """Where it stands who may act as a device. Written by enrolment alone; no device may read it."""
    return Address(Bucket.IDENTITY, device, Enrolment)


@dataclass(frozen=True, slots=True)
class Subject:
    """A request/reply subject of one device, and the types that go over it."""

    name: str
    request: type[Record]
    reply: type[Record]


def stop(device: DeviceId) -> Subject:
    """The operator's explicit stop of one instance. Served by the instances of that device."""
    return Subject(f"fleet.stop.{device}", StopRequest, StopReply)


def lock(device: DeviceId) -> Subject:
    """A device's request for its upgrade slot. Served by the operator on `LOCK_SUBJECTS`."""
    return Subject(f"fleet.lock.{device}", LockRequest, LockReply)


LOCK_SUBJECTS: Final = "fleet.lock.*"


def address_of(record: Record) -> Address[Record]:
    """The one key a record may stand under.

    Raises:
        InvalidValue: the record is a message, not something that is stored.
    """
    return Address(*_place_of(record), type(record))


def _place_of(record: Record) -> tuple[Bucket, str]:
    match record:
        case Heartbeat():
            return Bucket.HEARTBEAT, f"{record.instance.device}.{record.slot}"
        case DesiredAgent():
            return Bucket.DESIRED, f"{record.device}.agent"
        case DesiredWorkload():
            return Bucket.DESIRED, f"{record.device}.workload.{record.deployment}"
        case DesiredWorkloads():
            return Bucket.DESIRED, f"{record.device}.workloads"
        case DeviceInfo():
            return Bucket.INFO, record.device
        case Enrolment():
            return Bucket.IDENTITY, record.device
        case WorkloadState():
            return Bucket.STATE, f"{record.device}.workload.{record.deployment}"
        case UpgradeState():
            return Bucket.STATE, f"{record.device}.upgrade"
        case _:
            raise InvalidValue(f"{type(record).__name__} is not stored under any key")


@dataclass(frozen=True, slots=True)
class Valid(Generic[R_co]):
    """The bytes are a record that stands where it should."""

    record: R_co
    revision: Revision


@dataclass(frozen=True, slots=True)
class Invalid:
    """The bytes are not what the key promises. `reason` never quotes the value: it may hold anything."""

    bucket: Bucket
    key: str
    revision: Revision
    reason: str


def encode(record: Record) -> bytes:
    """A record as compact JSON."""
    return record.__pydantic_serializer__.to_json(record)


def decode(record: type[R], data: bytes) -> R:
    """Read a record from JSON.

    A writer one minor schema version ahead may have added fields; they are dropped. Any other unknown field is an
    error.

    Raises:
        InvalidValue: not JSON, another schema version, or not of that shape. Names the field, never its value.
    """
    try:
        decoded: R = record.__pydantic_validator__.validate_json(data)
        return decoded
    except ValidationError as error:
        if _is_one_minor_ahead(data):
            return _decode_newer(record, data)
        raise InvalidValue(_explain(record, error)) from None


def read(bucket: Bucket, key: str, value: bytes, revision: Revision) -> Valid[Record] | Invalid:
    """Read an entry of any bucket but `objects`. Hostile input comes back as `Invalid`; nothing is raised."""
    expected = record_type(bucket, key)
    if expected is None:
        return Invalid(bucket, key, revision, f"no record belongs under this key in bucket {bucket}")
    try:
        record = decode(expected, value)
    except InvalidValue as error:
        return Invalid(bucket, key, revision, str(error))
    _, belongs = _place_of(record)
    if belongs != key:
        return Invalid(bucket, key, revision, f"the record inside belongs under {belongs!r}")
    return Valid(record, revision)


def record_type(bucket: Bucket, key: str) -> type[Record] | None:
    """The type that belongs under a key, or None when no key of the layout looks like that."""
    if len(key) > MAX_KEY_BYTES:
        return None
    match (bucket, *key.split(".")):
        case (Bucket.HEARTBEAT, _, "a" | "b"):
            return Heartbeat
        case (Bucket.DESIRED, _, "agent"):
            return DesiredAgent
        case (Bucket.DESIRED, _, "workload", _):
            return DesiredWorkload
        case (Bucket.DESIRED, _, "workloads"):
            return DesiredWorkloads
        case (Bucket.INFO, _):
            return DeviceInfo
        case (Bucket.IDENTITY, _):
            return Enrolment
        case (Bucket.STATE, _, "upgrade"):
            return UpgradeState
        case (Bucket.STATE, _, "workload", _):
            return WorkloadState
        case _:
            return None


def _is_one_minor_ahead(data: bytes) -> bool:
    try:
        version = json.loads(data)["v"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return isinstance(version, str) and version == f"{SCHEMA_MAJOR}.{SCHEMA_MINOR + 1}"


def _decode_newer(record: type[R], data: bytes) -> R:
    try:
        return record.model_validate_json(data, extra="ignore")
    except ValidationError as error:
        raise InvalidValue(_explain(record, error)) from None


def _explain(record: type[Record], error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    parts = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'value'}: {problem['msg']}" for problem in problems[:3]
    ]
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return f"not a {record.__name__}: {'; '.join(parts)}{more}"

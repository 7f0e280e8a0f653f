"""Reading the buckets: every record finds its way back, and no bytes whatever raise anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleet.contracts import layout
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import (
    Architecture,
    AttemptId,
    BootId,
    DeploymentName,
    DeviceId,
    InstanceId,
    Release,
    Revision,
    Sha256,
    Slot,
    Version,
)
from fleet.contracts.layout import BUCKETS, Bucket, Invalid, Valid
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.records import (
    Artefact,
    ContainerCondition,
    ContainerReport,
    DeferredUpgrade,
    DesiredAgent,
    DesiredWorkload,
    DesiredWorkloads,
    DeviceInfo,
    Health,
    Heartbeat,
    InProgress,
    LockDenied,
    LockGranted,
    LockReply,
    LockRequest,
    Record,
    RefusedUpgrade,
    Role,
    RolledBack,
    StopReply,
    StopRequest,
    Succeeded,
    UpgradePhase,
    UpgradeState,
    WorkloadState,
)
from fleet.contracts.time import Duration, Instant

PI = DeviceId("pi-1")
WEB = DeploymentName("web")
RELEASE = Release(version=Version("1.2.3-rc1"), sha256=Sha256("0f" * 32))
INSTANCE = InstanceId(device=PI, version=RELEASE.version, boot=BootId("boot-1"), start=7)
ATTEMPT = AttemptId("r-1-0f0f0f0f0f0f")
ARTEFACT = Artefact(release=RELEASE, architecture=Architecture.AARCH64, size=5, url="https://host/releases/x")
PHASE = UpgradePhase.STAGING
HEARTBEAT = Heartbeat(
    instance=INSTANCE,
    slot=Slot.B,
    release=RELEASE,
    sent=Instant(1),
    uptime=Duration(2),
    role=Role.STANDBY,
    health=Health(workloads=2, healthy=1, invalid_entries=0),
)
STATUSES = (
    InProgress(phase=PHASE),
    Succeeded(),
    RolledBack(phase=PHASE, reason="a"),
    RefusedUpgrade(phase=PHASE, reason="b"),
    DeferredUpgrade(phase=PHASE, reason="c"),
)
STORED: tuple[Record, ...] = (
    DesiredAgent(device=PI, attempt=ATTEMPT, artefact=ARTEFACT, granted=Instant(5), confirmed=INSTANCE),
    DesiredAgent(device=PI, attempt=ATTEMPT, artefact=ARTEFACT),
    DesiredWorkload(
        device=PI, deployment=WEB, score=PodmanScore(containers=(Container(name=WEB, image="web:1", command=("a",)),))
    ),
    DesiredWorkloads(device=PI, deployments=(WEB,)),
    DeviceInfo(
        device=PI,
        machine_id="m",
        hardware="Raspberry Pi 5",
        operating_system="Debian",
        architecture=Architecture.AARCH64,
        releases_on_disk=(RELEASE,),
    ),
    WorkloadState(
        device=PI,
        deployment=WEB,
        desired=Revision(3),
        containers=(ContainerReport(name=WEB, image="web:1", condition=ContainerCondition.RUNNING),),
    ),
    *(UpgradeState(device=PI, attempt=ATTEMPT, release=RELEASE, reporter=INSTANCE, status=item) for item in STATUSES),
    HEARTBEAT,
)
MESSAGES: tuple[Record, ...] = (
    StopRequest(device=PI, instance=INSTANCE, successor=INSTANCE, attempt=ATTEMPT),
    StopReply(instance=INSTANCE),
    LockRequest(device=PI, attempt=ATTEMPT, instance=INSTANCE),
    LockReply(answer=LockGranted(lease=Duration.minutes(60))),
    LockReply(answer=LockDenied(reason="wait", retry_after=Duration.seconds(5))),
)
ONE = Revision(1)


@pytest.mark.parametrize("record", STORED, ids=lambda record: type(record).__name__)
def test_a_stored_record_comes_back_from_its_own_key(record: Record) -> None:
    address = layout.address_of(record)
    assert layout.read(address.bucket, address.key, layout.encode(record), ONE) == Valid(record, ONE)


@pytest.mark.parametrize("record", STORED, ids=lambda record: type(record).__name__)
def test_a_record_under_the_key_of_another_device_is_invalid(record: Record) -> None:
    address = layout.address_of(record)
    key = address.key.replace("pi-1", "pi-2", 1)
    read = layout.read(address.bucket, key, layout.encode(record), ONE)
    assert isinstance(read, Invalid)
    assert "belongs under" in read.reason


@pytest.mark.parametrize("record", MESSAGES, ids=lambda record: type(record).__name__)
def test_a_message_comes_back_and_stands_nowhere(record: Record) -> None:
    assert layout.decode(type(record), layout.encode(record)) == record
    with pytest.raises(InvalidValue, match="not stored"):
        layout.address_of(record)


def test_each_address_is_the_one_that_its_record_names() -> None:
    addresses: list[layout.Address[Any]] = [
        layout.desired_agent(PI),
        layout.desired_workload(PI, WEB),
        layout.desired_workloads(PI),
        layout.device_info(PI),
        layout.workload_state(PI, WEB),
        layout.upgrade_state(PI),
        layout.heartbeat(PI, Slot.B),
    ]
    assert {(item.bucket, item.key) for item in addresses} == {
        (layout.address_of(record).bucket, layout.address_of(record).key) for record in STORED
    }
    for address in addresses:
        assert layout.record_type(address.bucket, address.key) is address.record


def with_fields(record: Record, **fields: object) -> bytes:
    return json.dumps({**json.loads(layout.encode(record)), **fields}).encode()


@pytest.mark.parametrize("record", STORED, ids=lambda record: type(record).__name__)
def test_a_writer_one_minor_version_ahead_may_add_fields(record: Record) -> None:
    newer = layout.decode(type(record), with_fields(record, v="1.2", colour="blue"))
    assert newer == record.model_copy(update={"v": "1.2"})


def test_a_device_of_minor_version_0_reads_what_1_1_added(monkeypatch: pytest.MonkeyPatch) -> None:
    desired = next(record for record in STORED if isinstance(record, DesiredAgent))
    monkeypatch.setattr(layout, "SCHEMA_MINOR", 0)
    assert layout.decode(DesiredAgent, with_fields(desired, v="1.1", unknown_to_1_0=True)) == desired


def test_what_1_0_wrote_asks_for_no_quarantine_to_be_lifted() -> None:
    desired = next(record for record in STORED if isinstance(record, DesiredAgent))
    written = json.loads(layout.encode(desired))
    del written["lift_quarantine"]
    assert not layout.decode(DesiredAgent, json.dumps({**written, "v": "1.0"}).encode()).lift_quarantine


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.3", "2.0", "2.1", "0.1", "1", 1.1, None, [], {"a": 1}])
def test_anyone_else_may_not(version: object) -> None:
    with pytest.raises(InvalidValue):
        layout.decode(Heartbeat, with_fields(HEARTBEAT, v=version, colour="blue"))


@pytest.mark.parametrize("version", ["2.0", "0.9", "1.x", ""])
def test_another_major_version_is_refused(version: str) -> None:
    with pytest.raises(InvalidValue, match="v:"):
        layout.decode(Heartbeat, with_fields(HEARTBEAT, v=version))


def test_reasons_name_fields_and_never_values() -> None:
    secret = "hunter2"
    with pytest.raises(InvalidValue) as told:
        layout.decode(Heartbeat, with_fields(HEARTBEAT, slot=secret, role=secret, sent=secret, uptime=secret))
    assert secret not in str(told.value)
    assert "slot" in str(told.value)
    assert "(and 1 more)" in str(told.value)


KEYS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["pi-1.a", "pi-1.agent", "pi-1", "pi-1.upgrade", "pi-1.workload.web", "pi-1.workloads"]),
    st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(list(Bucket)), KEYS, st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode())
)
@example(Bucket.HEARTBEAT, "pi-1.a", b"[" * 100_000)
@example(Bucket.HEARTBEAT, "pi-1.a", b"9" * 10_000)
@example(Bucket.HEARTBEAT, "pi-1.a", b'{"v":"1.1","a":"\\ud800"}')
@example(Bucket.HEARTBEAT, "pi-1.a", b'{"v":' * 5_000)
@example(Bucket.DESIRED, "x" * 5_000, b"{}")
def test_no_bytes_raise_anything(bucket: Bucket, key: str, value: bytes) -> None:
    read = layout.read(bucket, key, value, ONE)
    assert isinstance(read, Invalid)
    assert (read.bucket, read.key, read.revision) == (bucket, key, ONE)
    assert read.reason
    read.reason.encode()


@given(st.data())
def test_no_mutation_of_a_good_record_raises_anything(data: st.DataObject) -> None:
    record = data.draw(st.sampled_from(STORED))
    value = bytearray(layout.encode(record))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(value) - 1))
        value[position] = data.draw(st.integers(0, 255))
    address = layout.address_of(record)
    read = layout.read(address.bucket, address.key, bytes(value), ONE)
    if isinstance(read, Valid):
        layout.encode(read.record)


def test_every_bucket_is_specified_once_and_none_takes_rollups() -> None:
    assert [spec.bucket for spec in BUCKETS] == list(Bucket)
    assert not any(spec.rollup for spec in BUCKETS)
    assert [spec.republished_to for spec in BUCKETS] == [f"fleet.{bucket.value}" for bucket in Bucket]


def test_subjects_of_a_device() -> None:
    assert layout.stop(PI).name == "fleet.stop.pi-1"
    assert layout.lock(PI).name == "fleet.lock.pi-1"
    assert layout.LOCK_SUBJECTS == "fleet.lock.*"

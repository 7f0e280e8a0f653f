"""Hostile input: any bytes at all, and bytes that are nearly what is expected, which get further.

How many examples each fuzz test runs is the environment's to say (`FLEET_FUZZ_EXAMPLES`; `make fuzz` says 100,000).
"""

from __future__ import annotations

import json
import os
from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fleet.contracts import layout
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
from fleet.contracts.layout import Bucket
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.records import (
    Artefact,
    ContainerCondition,
    ContainerReport,
    DesiredAgent,
    DesiredWorkload,
    DesiredWorkloads,
    DeviceInfo,
    Health,
    Heartbeat,
    InProgress,
    LockRequest,
    Record,
    Role,
    RolledBack,
    StopRequest,
    UpgradePhase,
    UpgradeState,
    WorkloadState,
)
from fleet.contracts.time import Duration, Instant

EXAMPLES: Final = int(os.environ.get("FLEET_FUZZ_EXAMPLES", "200"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)

DEVICE = DeviceId("hostile")
WORKLOAD = DeploymentName("web")
OLD = Release(version=Version("1.0.0"), sha256=Sha256("a" * 64))
NEW = Release(version=Version("1.1.0"), sha256=Sha256("b" * 64))


def instance(start: int, release: Release = OLD) -> InstanceId:
    """A process of the hostile device."""
    return InstanceId(device=DEVICE, version=release.version, boot=BootId("boot-1"), start=start)


ARTEFACT = Artefact(release=NEW, architecture=Architecture.AARCH64, size=10, url="http://127.0.0.1/b")
ATTEMPT = AttemptId("a-1")
STORED: Final[tuple[Record, ...]] = (
    DesiredAgent(device=DEVICE, attempt=ATTEMPT, artefact=ARTEFACT, granted=Instant(5), confirmed=instance(3, NEW)),
    DesiredWorkload(
        device=DEVICE, deployment=WORKLOAD, score=PodmanScore(containers=(Container(name=WORKLOAD, image="web:1"),))
    ),
    DesiredWorkloads(device=DEVICE, deployments=(WORKLOAD,)),
    DeviceInfo(
        device=DEVICE,
        machine_id="m",
        hardware="h",
        operating_system="o",
        architecture=Architecture.AARCH64,
        releases_on_disk=(OLD, NEW),
    ),
    WorkloadState(
        device=DEVICE,
        deployment=WORKLOAD,
        desired=Revision(4),
        containers=(ContainerReport(name=WORKLOAD, image="web:1", condition=ContainerCondition.RUNNING),),
    ),
    UpgradeState(
        device=DEVICE,
        attempt=ATTEMPT,
        release=NEW,
        reporter=instance(2),
        status=InProgress(phase=UpgradePhase.OVERLAPPING),
    ),
    UpgradeState(
        device=DEVICE,
        attempt=ATTEMPT,
        release=NEW,
        reporter=instance(2),
        status=RolledBack(phase=UpgradePhase.STAGING, reason="it crashes"),
    ),
    *(
        Heartbeat(
            instance=instance(start, release),
            slot=slot,
            release=release,
            sent=Instant(7),
            uptime=Duration(8),
            role=role,
            health=Health(workloads=1, healthy=1, invalid_entries=0),
        )
        for start, release, slot, role in ((2, OLD, Slot.A, Role.MANAGING), (3, NEW, Slot.B, Role.STANDBY))
    ),
)
"""One record of each kind that stands in a bucket."""
REQUESTS: Final[tuple[Record, ...]] = (
    LockRequest(device=DEVICE, attempt=ATTEMPT, instance=instance(2)),
    StopRequest(device=DEVICE, instance=instance(2), successor=instance(3, NEW), attempt=ATTEMPT),
)
KEYS: Final = tuple(layout.address_of(record).key for record in STORED)

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "1.0", "1.99", "2.0", "a", "b", "-", "..", "pi-0", "hostile", "succeeded", "0" * 64, "\x00"])
)
json_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


@st.composite
def altered(draw: st.DrawFn, whole: bytes) -> bytes:
    """A JSON text with up to two places changed (a value replaced, a field lost or added), then a byte, or its end."""
    found = json.loads(whole)
    for _ in range(draw(st.integers(0, 2))):
        place = found
        while isinstance(place, dict | list) and place:
            keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and draw(st.booleans()):
                place = place[key]
                continue
            match draw(st.sampled_from(["replace", "remove", "add"])):
                case "replace":
                    place[key] = draw(json_values)
                case "remove":
                    del place[key]
                case _ if isinstance(place, dict):
                    place[draw(st.text(max_size=8))] = draw(json_values)
                case _:
                    place.append(draw(json_values))
            break
    content = bytearray(json.dumps(found).encode("utf-8", "surrogatepass"))
    match draw(st.sampled_from(["whole", "whole", "flip", "cut", "twice"])):
        case "flip" if content:
            content[draw(st.integers(0, len(content) - 1))] ^= draw(st.integers(1, 255))
        case "cut":
            del content[draw(st.integers(0, len(content))) :]
        case "twice":
            content *= 2
        case _:
            pass
    return bytes(content)


def values(*records: Record) -> st.SearchStrategy[bytes]:
    """Any bytes, any JSON, and records that were altered."""
    texts = [layout.encode(record) for record in records]
    nearly = st.sampled_from(texts).flatmap(altered)
    deep = st.integers(1, 3000).map(lambda depth: b"[" * depth)
    any_json = json_values.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
    return nearly | nearly | any_json | st.binary(max_size=60) | deep


_parts = st.sampled_from(
    ["agent", "workload", "workloads", "upgrade", "a", "b", "hostile", "pi-0", "", "*", ">", "$KV"]
)
keys = (
    st.sampled_from(KEYS)
    | st.lists(_parts | st.text(max_size=6), max_size=5).map(".".join)
    | st.binary(max_size=300).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
)
"""Keys of the layout, nearly such keys, and any bytes as the bus hands them on."""
buckets = st.sampled_from(Bucket)
revisions = st.integers(0, 2**64).map(Revision)


@st.composite
def entries(draw: st.DrawFn, *records: Record) -> tuple[Bucket, str, bytes]:
    """An entry, with a key that fits what stands there, a key that nearly fits, or any key."""
    record = draw(st.sampled_from(records))
    address = layout.address_of(record)
    match draw(st.sampled_from(["its own", "its own", "like its own", "any"])):
        case "its own":
            bucket, key = address.bucket, address.key
        case "like its own":
            parts = address.key.split(".")
            parts[draw(st.integers(0, len(parts) - 1))] = draw(_parts)
            bucket, key = address.bucket, ".".join(parts)
        case _:
            bucket, key = draw(buckets), draw(keys)
    return bucket, key, draw(values(record))

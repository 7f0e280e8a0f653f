"""The smoke test of a staged release: run by the old instance as `<release> --self-test` before anything is swapped.

It shows that the file starts on this very machine, that everything the agent will need can be imported, and that the
wire records survive their own codec. It touches nothing outside its process.
"""

from __future__ import annotations

import importlib
import json
import ssl
from typing import Final

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
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.records import (
    Admitted,
    Artefact,
    ContainerCondition,
    ContainerReport,
    DesiredAgent,
    DesiredWorkload,
    DesiredWorkloads,
    DeviceInfo,
    Enrolment,
    Health,
    Heartbeat,
    LockDenied,
    LockGranted,
    LockReply,
    LockRequest,
    Record,
    Role,
    RolledBack,
    StopReply,
    StopRequest,
    UpgradePhase,
    UpgradeState,
    WorkloadState,
)
from fleet.contracts.time import Duration, Instant

NEEDED: Final = (
    "agent.loop",
    "agent.linux.disk",
    "agent.linux.facts",
    "agent.linux.lock",
    "agent.linux.podman",
    "agent.linux.programs",
    "agent.linux.systemd",
    "fleet.adapters.clock",
    "fleet.adapters.http",
    "fleet.adapters.http_client",
    "fleet.adapters.nats",
    "fleet.adapters.token_login",
    "fleet.adapters.zitadel",
    "anyio._backends._asyncio",
    "httpcore2._async.http11",
    "truststore",
)
"""What the agent loads when it runs as a service; the last ones its HTTP client loads when it is first used."""

_PASSED: Final = "self-test"


def report(release: Release) -> bytes:
    """The one line that a passed self-test prints: which release it is, by version and digest of its own file."""
    about = {_PASSED: "passed", "version": release.version, "sha256": release.sha256}
    return (json.dumps(about, separators=(",", ":")) + "\n").encode()


def named(output: bytes) -> Release | None:
    """The release that a self-test names, in the last line it printed; None when that is no report of a passed one."""
    line = output.strip().rpartition(b"\n")[2]
    try:
        about = json.loads(line)
        if about[_PASSED] != "passed":
            return None
        return Release(version=Version(about["version"]), sha256=Sha256(about["sha256"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def run(release: Release) -> bytes:
    """Do the test in this process; the answer is its report.

    Raises:
        InvalidValue: a record does not survive its codec. ImportError: something needed is missing.
    """
    for name in NEEDED:
        importlib.import_module(name)
    ssl.create_default_context()
    for record in specimens():
        check_codec(record)
    return report(release)


def check_codec(record: Record) -> None:
    """Raises: InvalidValue when the record is not what it was after encoding and decoding."""
    if layout.decode(type(record), layout.encode(record)) != record:
        raise InvalidValue(f"{type(record).__name__} does not survive its codec")


def specimens() -> tuple[Record, ...]:
    """One of every record that crosses the bus."""
    device, attempt, name = DeviceId("dev-1"), AttemptId("a-1-0"), DeploymentName("web")
    release = Release(version=Version("1.0.0"), sha256=Sha256("0" * 64))
    here = InstanceId(device=device, version=release.version, boot=BootId("b"), start=1)
    artefact = Artefact(release=release, architecture=Architecture.AARCH64, size=1, url="http://127.0.0.1/r")
    box = Container(name=name, image="web:1", command=("run",), environment=(("A", "b"),))
    seen = ContainerReport(name=name, image="web:1", condition=ContainerCondition.RUNNING)
    health = Health(workloads=1, healthy=1, invalid_entries=0)
    ended = RolledBack(phase=UpgradePhase.OVERLAPPING, reason="why")
    return (
        DesiredAgent(device=device, attempt=attempt, artefact=artefact, confirmed=here),
        DesiredWorkload(device=device, deployment=name, score=PodmanScore(containers=(box,))),
        DesiredWorkloads(device=device, deployments=(name,)),
        DeviceInfo(
            device=device,
            machine_id="m",
            hardware="h",
            operating_system="o",
            architecture=Architecture.AARCH64,
            releases_on_disk=(release,),
        ),
        WorkloadState(device=device, deployment=name, desired=Revision(1), containers=(seen,)),
        UpgradeState(device=device, attempt=attempt, release=release, reporter=here, status=ended),
        Heartbeat(
            instance=here,
            slot=Slot.A,
            release=release,
            sent=Instant(1),
            uptime=Duration(1),
            role=Role.STANDBY,
            health=health,
        ),
        StopRequest(device=device, instance=here, successor=here, attempt=attempt),
        StopReply(instance=here),
        LockRequest(device=device, attempt=attempt, instance=here),
        LockReply(answer=LockGranted(lease=Duration(1))),
        LockReply(answer=LockDenied(reason="why", retry_after=Duration(1))),
        Enrolment(device=device, user="1", standing=Admitted(tokens_from=Instant(1))),
    )

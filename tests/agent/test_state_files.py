"""Older and newer releases on one disk: each state file is read in both directions, by agent and boot guard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import PurePosixPath
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel

from agent import launcher, paths, statefile
from agent.events import AttemptRecord, Condemned
from agent.staging import read_manifest
from agent.store import KeptWorkload, KeptWorkloads, QuarantineMark, Store, TrialCount, VerifiedMark
from agent.workloads import fingerprint
from fleet.contracts.errors import DiskFault, InvalidValue
from fleet.contracts.ids import AttemptId, DeploymentName, Revision
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.records import DesiredWorkload, ReleaseManifest, RolledBack, UpgradePhase
from sim.disk import DiskImage, SimDisk

T = TypeVar("T")
Values = Any  # The conftest's class: test files cannot import it.
WEB = DeploymentName("web")


class Alive:
    """A process that lives."""

    alive = True


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def specimens(values: Values) -> dict[PurePosixPath, BaseModel]:
    """One of each state file, and where it stands."""
    one, two = values.release(1), values.release(2)
    score = PodmanScore(containers=(Container(name=WEB, image="x:1"),))
    desired = DesiredWorkload(device=values.device, deployment=WEB, score=score)
    ended = RolledBack(phase=UpgradePhase.OVERLAPPING, reason="it crashed")
    record = values.record(two, one).model_copy(update={"ended": ended, "reporter": values.instance(one, 2)})
    kept = KeptWorkloads(workloads=(KeptWorkload(revision=Revision(4), desired=desired),), reported=(WEB,))
    return {
        paths.VERIFIED: VerifiedMark(version=two.version, sha256=two.sha256, before=one),
        paths.ATTEMPT: record,
        paths.TRIALS: TrialCount(sha256=two.sha256, starts=2),
        paths.WORKLOADS: kept,
        paths.quarantine(two): QuarantineMark(version=two.version, reason="it crashed", attempt=AttemptId("a-1")),
        paths.manifest(two.version): ReleaseManifest(version=two.version, sha256=two.sha256, size=9, unpacked="x"),
    }


FILES = [paths.VERIFIED, paths.ATTEMPT, paths.TRIALS, paths.WORKLOADS]
NUMBERS = range(6)


def grown(value: object) -> object:
    """As a newer minor version might write it: a field more in every object."""
    match value:
        case dict():
            return {**{key: grown(inner) for key, inner in value.items()}, "of_1_9": {"x": [1]}}
        case list():
            return [grown(inner) for inner in value]
        case _:
            return value


def put(image: DiskImage, path: PurePosixPath, value: object) -> None:
    image.make_folder(path.parent)
    image.write(path, json.dumps(value).encode())


@pytest.mark.parametrize("number", NUMBERS)
def test_what_a_newer_minor_version_wrote_is_read_for_what_is_known_of_it(values: Values, number: int) -> None:
    _, value = list(specimens(values).items())[number]
    newer = {**dict(grown(json.loads(statefile.encode(value)))), "v": "1.9"}  # type: ignore[call-overload]  # an object
    assert statefile.decode(type(value), json.dumps(newer).encode()) == value


@pytest.mark.parametrize("number", NUMBERS)
def test_what_a_release_without_forms_wrote_is_read(values: Values, number: int) -> None:
    _, value = list(specimens(values).items())[number]
    older = value.model_dump(mode="json")
    older.pop("attempt", None) if isinstance(value, QuarantineMark) else None
    read = statefile.decode(type(value), json.dumps(older).encode())
    assert read == (value.model_copy(update={"attempt": None}) if isinstance(value, QuarantineMark) else value)


@pytest.mark.parametrize("number", NUMBERS)
def test_what_this_release_writes_says_its_form(values: Values, number: int) -> None:
    _, value = list(specimens(values).items())[number]
    assert json.loads(statefile.encode(value))["v"] == statefile.FORM


@pytest.mark.parametrize("form", ["2.0", "0.9", "1", "", 1.1, None, []])
def test_another_major_version_is_not_understood(values: Values, form: object) -> None:
    value = specimens(values)[paths.VERIFIED]
    with pytest.raises(InvalidValue, match="form"):
        statefile.decode(VerifiedMark, json.dumps({**value.model_dump(mode="json"), "v": form}).encode())


@pytest.mark.parametrize("data", [b"{}", b'{"v": "1.0"}', b'{"reported": ["web"]}'])
def test_an_object_that_lacks_its_contents_is_no_list_of_nothing(data: bytes) -> None:
    """An empty list of workloads would remove every container of the device."""
    with pytest.raises(InvalidValue):
        statefile.decode(KeptWorkloads, data)


READERS: dict[PurePosixPath, Callable[[Store], Coroutine[Any, Any, object]]] = {
    paths.VERIFIED: Store.verified,
    paths.ATTEMPT: Store.attempt,
    paths.WORKLOADS: Store.kept,
}


@pytest.mark.parametrize("path", READERS, ids=str)
def test_what_is_not_understood_is_put_aside_whole_and_nothing_put_aside_is_lost(
    values: Values, path: PurePosixPath
) -> None:
    image = DiskImage()
    store = Store(SimDisk(image, Alive()))
    written = [{**specimens(values)[path].model_dump(mode="json"), "v": form} for form in ("2.0", "3.1")]
    for value in written:
        put(image, path, value)
        assert run(READERS[path](store)) is None
        assert not image.exists(path)
    aside = [path.parent / name for name in image.names(path.parent) if name.endswith(".broken")]
    assert sorted(json.loads(image.read(name))["v"] for name in aside) == ["2.0", "3.1"]


@pytest.mark.parametrize("path", READERS, ids=str)
def test_a_disk_that_fails_a_reading_does_not_cost_the_file(
    values: Values, path: PurePosixPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = DiskImage()
    disk = SimDisk(image, Alive())
    put(image, path, specimens(values)[path].model_dump(mode="json"))

    async def failing(*_: object) -> bytes:
        raise DiskFault("I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(SimDisk, "read", failing)
        with pytest.raises(DiskFault):
            run(READERS[path](Store(disk)))
    assert run(READERS[path](Store(disk))) is not None


def test_a_newer_releases_files_serve_an_older_agent_and_the_boot_guard(values: Values) -> None:
    image = DiskImage()
    for path, value in specimens(values).items():
        newer = {**dict(grown(json.loads(statefile.encode(value)))), "v": "1.9"}  # type: ignore[call-overload]  # an object
        put(image, path, newer)
    disk, two = SimDisk(image, Alive()), values.release(2)
    store = Store(disk)
    assert run(store.verified()) == two
    record = run(store.attempt())
    assert isinstance(record, AttemptRecord)
    assert isinstance(record.ended, RolledBack)
    assert run(store.quarantined()) == {two.sha256: Condemned("it crashed", AttemptId("a-1"))}
    assert run(store.releases()) == (two,)
    assert run(read_manifest(disk, two.version)) is not None
    kept = run(store.kept())
    assert kept is not None
    assert [item.desired.deployment for item in kept.workloads] == [WEB]
    _guard_reads(image, values)


@pytest.mark.parametrize("form", ["1.9", "2.0"])
def test_the_boot_guard_reads_its_few_fields_in_every_form(values: Values, form: str) -> None:
    image = DiskImage()
    for path, value in specimens(values).items():
        put(image, path, {**value.model_dump(mode="json"), "v": form})
    _guard_reads(image, values)


def _guard_reads(image: DiskImage, values: Values) -> None:
    one, two = values.release(1), values.release(2)
    facts = launcher.look(_Guard(image), "a", "boot-1")
    assert facts.verified == launcher.Named(two.version, two.sha256)
    assert facts.before == launcher.Named(one.version, one.sha256)
    assert facts.trial is not None
    assert (facts.trial.sha256, facts.trial.starts) == (two.sha256, 2)
    assert facts.condemned == (two.sha256,)
    assert facts.attempt is not None
    assert (facts.attempt.name, facts.attempt.ended) == ("a-1", "rolled-back")
    assert facts.manifests == (facts.verified,)


class _Guard:
    """The boot guard's view of a virtual disk, for reading."""

    def __init__(self, image: DiskImage) -> None:
        self._image = image

    def read(self, path: str) -> bytes | None:
        return self._image.read(PurePosixPath(path)) if self._image.exists(PurePosixPath(path)) else None

    def write(self, path: str, data: bytes) -> None:
        raise AssertionError("only looks")

    def link(self, path: str) -> str | None:
        return None

    def swap(self, link: str, target: str) -> None:
        raise AssertionError("only looks")

    def names(self, folder: str) -> list[str]:
        return list(self._image.names(PurePosixPath(folder)))

    def sha256(self, path: str) -> str | None:
        return None


def test_a_field_more_with_its_default_is_the_same_container() -> None:
    class Newer(Container):
        """A container as a newer release knows it."""

        gpu: bool = False

    plain = Container(name=WEB, image="x:1", command=("run",))
    assert fingerprint(Newer(name=WEB, image="x:1", command=("run",))) == fingerprint(plain)
    assert fingerprint(Newer(name=WEB, image="x:1", command=("run",), gpu=True)) != fingerprint(plain)

"""The folder of secrets: how it looks on the disk, what it refuses, and that processes race for one value."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.adapters.clock import WallClock
from fleet.capabilities.secrets import Secret
from fleet.contracts.errors import DiskFault, FleetError, InvalidValue, NoSpace, NotFound, Unavailable
from fleet.contracts.ids import ObjectName
from fleet.contracts.time import Instant
from fleet.secrets import codec
from fleet.secrets.documents import Kept
from fleet.secrets.file import FileDocuments
from fleet.secrets.registry import ensure_all
from fleet.secrets.steps import FolderSteps, Seen, Steps, opened_folder
from fleet.secrets.store import Secrets

ROOT = Path(__file__).parents[3]
A = ObjectName("a-password")
VALUE = b"the-value-that-never-shows"


def never() -> bytes:
    raise AssertionError("a value was made although there is one")


class Shelf:
    """A folder with one secret in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / f"{A}.json"
        self.clock = WallClock()
        self.store = Secrets(FileDocuments(folder, self.clock), self.clock)
        self.secret = asyncio.run(self.store.ensure(A, lambda: VALUE))

    def refusals(self, store: Secrets | None = None) -> set[str]:
        """What every way of getting at the secret says. None of them may make another one."""
        used = store or self.store
        return {
            self.refusal(act)
            for act in (lambda: used.ensure(A, never), lambda: used.read(A), lambda: used.rotate(A, never, 1))
        }

    def refusal(self, act: Callable[[], Awaitable[object]]) -> str:
        async def told() -> None:
            await act()

        with pytest.raises(InvalidValue) as caught:
            asyncio.run(told())
        assert VALUE.decode() not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "secrets")


def test_folder_and_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        shelf = Shelf(tmp_path / "secrets")
    finally:
        os.umask(before)
    assert stat.S_IMODE(shelf.folder.stat().st_mode) == 0o700
    assert {path.name for path in shelf.folder.iterdir()} == {".lock", f"{A}.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in shelf.folder.iterdir()} == {0o600}


def test_a_file_is_one_json_object_of_texts(shelf: Shelf) -> None:
    document = json.loads(shelf.path.read_bytes())
    assert {key: document[key] for key in ("schema", "name", "version")} == {"schema": "1", "name": A, "version": "1"}
    assert set(document) == {"schema", "name", "version", "made", "value", "sha256"}


def test_installing_three_times_changes_no_byte(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    contents = []
    for _ in range(3):
        clock = WallClock()
        asyncio.run(ensure_all(Secrets(FileDocuments(folder, clock), clock)))
        contents.append({path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()})
    assert contents[0] == contents[1] == contents[2]
    assert len(contents[0]) > 5


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o400, 0o700])
def test_a_file_of_another_mode_is_refused(shelf: Shelf, mode: int) -> None:
    shelf.path.chmod(mode)
    said = shelf.refusals()
    assert len(said) == 1
    assert f"{shelf.path} has mode {mode:04o}, not 0600" in said.pop()


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o500])
def test_a_folder_of_another_mode_is_refused(shelf: Shelf, mode: int) -> None:
    shelf.folder.chmod(mode)
    said = shelf.refusals()
    assert len(said) == 1
    assert f"{shelf.folder} has mode {mode:04o}, not 0700" in said.pop()


def test_another_owner_is_refused(shelf: Shelf) -> None:
    stranger = Secrets(FileDocuments(shelf.folder, shelf.clock, os.geteuid() + 1), shelf.clock)
    assert any("belongs to user" in text for text in shelf.refusals(stranger))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_owner_is_refused(shelf: Shelf) -> None:
    os.chown(shelf.path, 4321, -1)
    assert all("belongs to user 4321" in text for text in shelf.refusals())


def test_links_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    shelf.path.rename(shelf.folder / "moved")
    shelf.path.symlink_to(shelf.folder / "moved")
    assert all("not a plain file" in text for text in shelf.refusals())
    (tmp_path / "link").symlink_to(shelf.folder)
    linked = Secrets(FileDocuments(tmp_path / "link", shelf.clock), shelf.clock)
    assert all("is a link or not a folder" in text for text in shelf.refusals(linked))


def test_a_dangling_link_is_refused_and_not_written_through(shelf: Shelf, tmp_path: Path) -> None:
    shelf.path.unlink()
    shelf.path.symlink_to(tmp_path / "elsewhere")
    assert all("not a plain file" in text for text in shelf.refusals())
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_no_file_is_refused(shelf: Shelf) -> None:
    shelf.path.unlink()
    shelf.path.mkdir(0o600)
    assert all("not a plain file" in text for text in shelf.refusals())
    shelf.path.rmdir()
    os.mkfifo(shelf.path, 0o600)
    assert all("not a plain file" in text for text in shelf.refusals())


def test_every_flipped_byte_is_noticed(shelf: Shelf) -> None:
    whole = shelf.path.read_bytes()
    for place in range(len(whole)):
        for flip in (0x01, 0x20, 0x80):
            damaged = bytearray(whole)
            damaged[place] ^= flip
            shelf.path.write_bytes(damaged)
            assert str(shelf.path) in shelf.refusal(lambda: shelf.store.ensure(A, never)), (place, flip)
    shelf.path.write_bytes(whole)
    assert asyncio.run(shelf.store.ensure(A, never)) == shelf.secret


def test_every_cut_is_noticed(shelf: Shelf) -> None:
    whole = shelf.path.read_bytes()
    for length in range(len(whole)):
        shelf.path.write_bytes(whole[:length])
        assert "is damaged" in shelf.refusal(lambda: shelf.store.ensure(A, never)), length
    shelf.path.write_bytes(whole + b"\n")
    assert "is damaged" in shelf.refusal(lambda: shelf.store.ensure(A, never))


def test_a_file_under_another_name_is_refused(shelf: Shelf) -> None:
    other = ObjectName("another")
    shelf.path.rename(shelf.folder / f"{other}.json")
    assert "has another name" in shelf.refusal(lambda: shelf.store.ensure(other, never))


def test_a_version_from_the_future_is_refused_as_such(shelf: Shelf) -> None:
    document = json.loads(shelf.path.read_bytes()) | {"schema": "2", "colour": "blue"}
    shelf.path.write_text(json.dumps(document), encoding="utf-8")
    assert all("newer version (format 2, this one knows 1)" in text for text in shelf.refusals())


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{}", b'{"schema": 1}', b"[" * 10_000, b"\xff\xfe", b'{"schema": "1"}', b" " * 300_000],
)
def test_garbage_is_refused(shelf: Shelf, content: bytes) -> None:
    shelf.path.write_bytes(content)
    assert all(str(shelf.path) in text for text in shelf.refusals())


def test_a_folder_that_was_never_made_holds_nothing_and_is_not_made_by_reading(tmp_path: Path) -> None:
    folder, clock = tmp_path / "secrets", WallClock()
    store = Secrets(FileDocuments(folder, clock), clock)
    with pytest.raises(NotFound):
        asyncio.run(store.read(A))
    assert asyncio.run(store.names()) == ()
    assert not folder.exists()


def test_a_missing_mount_is_refused(tmp_path: Path) -> None:
    clock = WallClock()
    store = Secrets(FileDocuments(tmp_path / "not-mounted" / "secrets", clock), clock)
    with pytest.raises(InvalidValue, match="cannot be opened"):
        asyncio.run(store.ensure(A, lambda: VALUE))
    assert not (tmp_path / "not-mounted").exists()


def test_what_is_not_named_like_a_secret_is_not_listed(shelf: Shelf) -> None:
    for name in ("lost+found", "note.txt", "Upper.json", ".json", ".tmp"):
        (shelf.folder / name).touch()
    assert asyncio.run(shelf.store.names()) == (A,)


def test_a_lock_that_is_held_for_long_is_told_and_nothing_done(shelf: Shelf) -> None:
    hasty = WallClock(pace=1000)
    store = Secrets(FileDocuments(shelf.folder, hasty), hasty)
    with opened_folder(shelf.folder, False) as (_, steps):
        assert steps.try_lock(".lock")
        with pytest.raises(Unavailable, match="another process"):
            asyncio.run(store.rotate(A, lambda: b"next", 1))
    assert asyncio.run(store.read(A)) == shelf.secret


class FailingSteps(FolderSteps):
    """Operations of which one fails."""

    operation = ""
    number = errno.EIO

    def write_new(self, name: str, content: bytes) -> None:
        self._fail("write_new")
        super().write_new(name, content)

    def sync(self, name: str) -> None:
        self._fail("sync")
        super().sync(name)

    def link_new(self, name: str, other: str) -> None:
        self._fail("link_new")
        super().link_new(name, other)

    def sync_folder(self) -> None:
        self._fail("sync_folder")
        super().sync_folder()

    def _fail(self, operation: str) -> None:
        if operation == self.operation:
            raise OSError(self.number, os.strerror(self.number))


def failing(operation: str, number: int) -> Callable[[Path, bool], object]:
    @contextmanager
    def opened(folder: Path, make: bool) -> Iterator[tuple[Seen, Steps]]:
        with opened_folder(folder, make) as (seen, _):
            number_of_folder = os.open(folder, os.O_RDONLY)
            steps = FailingSteps(number_of_folder)
            steps.operation, steps.number = operation, number
            try:
                yield seen, steps
            finally:
                steps.unlock()
                os.close(number_of_folder)

    return opened


@pytest.mark.parametrize(
    ("operation", "number", "kind"),
    [
        ("write_new", errno.ENOSPC, NoSpace),
        ("sync", errno.ENOSPC, NoSpace),
        ("link_new", errno.EDQUOT, NoSpace),
        ("write_new", errno.EIO, DiskFault),
        ("sync", errno.EIO, DiskFault),
        ("link_new", errno.EIO, DiskFault),
        ("sync_folder", errno.EIO, DiskFault),
        ("sync_folder", errno.ENOSPC, DiskFault),
    ],
)
def test_a_failing_disk_is_told_by_whether_it_may_have_happened(
    tmp_path: Path, operation: str, number: int, kind: type[FleetError]
) -> None:
    folder, clock = tmp_path / "secrets", WallClock()
    failed = Secrets(FileDocuments(folder, clock, opened=failing(operation, number)), clock)  # type: ignore[arg-type]  # a context manager of the same shape
    with pytest.raises(kind):
        asyncio.run(failed.ensure(A, lambda: b"first-value"))
    found = asyncio.run(Secrets(FileDocuments(folder, clock), clock).ensure(A, lambda: b"second-value"))
    assert found.value == (b"first-value" if operation == "sync_folder" else b"second-value")


def test_two_digests_cannot_be_made_the_same_by_moving_bytes() -> None:
    kept = Kept(Secret(A, 1, Instant(5), b"5"))
    fields = codec.encode(kept)
    with pytest.raises(InvalidValue, match="checksum"):
        codec.decode("here", A, {**fields, "made": fields["made"] + b"1"})
    assert codec.decode("here", A, fields) == kept


@pytest.mark.real
def test_twenty_four_processes_race_for_one_value(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    racers = [
        subprocess.Popen(
            (sys.executable, "-m", "tests.fleet.secrets.racer", str(folder)),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(24)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        got = {racer.communicate(timeout=120)[0] for racer in racers}
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    clock = WallClock()
    stored = asyncio.run(Secrets(FileDocuments(folder, clock), clock).read(ObjectName("raced-for")))
    assert got == {f"1 {stored.value.hex()}\n"}
    assert [racer.returncode for racer in racers] == [0] * 24

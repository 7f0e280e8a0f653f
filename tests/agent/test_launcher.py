"""The boot guard: what it picks, what it writes down, and that no garbage keeps it from picking."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import launcher
from agent.launcher import Leave, Nothing, RealFiles, Start, choose

BOOT, LATER = "boot-1", "boot-2"


class MemoryFiles:
    """Files in memory. Links are kept apart."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.full = False

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)

    def write(self, path: str, data: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.files[path] = data

    def link(self, path: str) -> str | None:
        return self.links.get(path)

    def swap(self, link: str, target: str) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.links[link] = target

    def names(self, folder: str) -> list[str]:
        inside = (path.removeprefix(folder + "/") for path in self.files if path.startswith(folder + "/"))
        return sorted(name for name in inside if "/" not in name)

    def sha256(self, path: str) -> str | None:
        data = self.files.get(path)
        return None if data is None else sha256(data).hexdigest()


class Disk(MemoryFiles):
    """A device with releases on it."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        for number in numbers:
            self.install(number)
        self.point(numbers[0])
        self.state("verified", self.named(numbers[0]))

    def named(self, number: int) -> dict[str, object]:
        return {"version": f"1.{number}.0", "sha256": sha256(self.data(number)).hexdigest()}

    def data(self, number: int) -> bytes:
        return f"release {number}".encode()

    def path(self, number: int) -> str:
        return f"{launcher.RELEASES}/fleet-agent-v1.{number}.0"

    def install(self, number: int) -> None:
        self.files[self.path(number)] = self.data(number)
        self.files[f"{self.path(number)}.manifest.json"] = json.dumps(self.named(number)).encode()

    def point(self, number: int) -> None:
        self.links[launcher.CURRENT] = self.path(number)

    def state(self, name: str, value: object) -> None:
        self.files[f"{launcher.STATE}/{name}.json"] = json.dumps(value).encode()

    def told(self, name: str) -> dict[str, object]:
        found = json.loads(self.files[f"{launcher.STATE}/{name}.json"])
        assert isinstance(found, dict)
        return found

    def attempt(self, release: int, previous: int, *, ended: str | None = None, boot: str = BOOT) -> None:
        status = None if ended is None else {"status": ended}
        self.state(
            "attempt",
            {
                "attempt": "a-1",
                "release": self.named(release),
                "previous": self.named(previous),
                "origin": "a",
                "boot": boot,
                "ended": status,
            },
        )

    def condemn(self, number: int) -> None:
        self.files[f"{launcher.QUARANTINE}/{self.named(number)['sha256']}"] = b"{}"

    def is_condemned(self, number: int) -> bool:
        return f"{launcher.QUARANTINE}/{self.named(number)['sha256']}" in self.files

    def starts(self, slot: str = "a", boot: str = BOOT) -> str | None:
        """The version that is started; None when there is nothing to do in the slot."""
        match choose(self, slot, boot):
            case Start(version=version, path=path):
                assert path.endswith(version)
                return version
            case Leave():
                return None
            case Nothing(reason):
                raise AssertionError(reason)


def test_the_verified_current_release_starts() -> None:
    assert Disk(1).starts() == "1.1.0"


def test_a_verified_release_that_crash_loops_is_left_for_the_one_before() -> None:
    disk = Disk(1, 2)
    disk.point(2)
    disk.state("verified", {**disk.named(2), "before": disk.named(1)})
    assert [disk.starts() for _ in range(5)] == ["1.2.0"] * 4 + ["1.1.0"]
    assert disk.is_condemned(2)


def test_power_that_fails_a_few_times_condemns_no_verified_release() -> None:
    disk = Disk(1, 2)
    disk.point(2)
    disk.state("verified", {**disk.named(2), "before": disk.named(1)})
    assert [disk.starts(boot=f"boot-{number}") for number in range(12)] == ["1.2.0"] * 12
    assert not disk.is_condemned(2)


def test_a_verified_release_that_takes_the_machine_down_each_time_is_left() -> None:
    disk = Disk(1, 2)
    disk.point(2)
    disk.state("verified", {**disk.named(2), "before": disk.named(1)})
    started = [disk.starts(boot=f"boot-{number}") for number in range(13)]
    assert (started[-1], disk.is_condemned(2)) == ("1.1.0", True)


def test_in_an_overlap_the_origin_slot_runs_the_previous_release_and_does_not_count() -> None:
    disk = Disk(1, 2)
    disk.point(2)
    disk.attempt(2, 1)
    assert disk.starts("b") == "1.2.0"
    for _ in range(5):
        assert disk.starts("a") == "1.1.0"
    assert disk.told("trials") == {"sha256": disk.named(2)["sha256"], "starts": 1, "boot": BOOT, "here": 1}
    assert disk.links[launcher.CURRENT] == disk.path(2)


def test_after_a_reboot_in_the_overlap_slot_a_runs_the_verified_release_to_watch_the_new_one_again() -> None:
    disk = Disk(1, 2)
    disk.point(2)
    disk.attempt(2, 1)
    assert [disk.starts("a", LATER) for _ in range(4)] == ["1.1.0"] * 4
    assert disk.links[launcher.CURRENT] == disk.path(2)
    assert not disk.is_condemned(2)


def test_a_successor_that_crashes_three_times_is_condemned_and_the_device_has_an_agent_nevertheless() -> None:
    disk = Disk(1, 2)
    disk.point(2)
    disk.attempt(2, 1)
    assert [disk.starts("b") for _ in range(4)] == ["1.2.0", "1.2.0", "1.2.0", "1.1.0"]
    assert disk.is_condemned(2)


def test_the_slot_that_an_attempt_left_behind_has_nothing_to_do() -> None:
    disk = Disk(2, 1)
    disk.attempt(2, 1, ended="succeeded")
    assert disk.starts("a") is None
    assert disk.starts("b") == "1.2.0"
    assert disk.starts("a", LATER) == "1.2.0"


def test_a_success_that_was_no_hand_over_leaves_no_slot_empty() -> None:
    disk = Disk(1)
    disk.attempt(1, 1, ended="succeeded")
    assert disk.starts("a") == "1.1.0"


@pytest.mark.parametrize("ended", ["rolled-back", "refused", "deferred"])
def test_an_attempt_that_ended_otherwise_changes_nothing(ended: str) -> None:
    disk = Disk(1, 2)
    disk.attempt(2, 1, ended=ended)
    assert disk.starts("a") == "1.1.0"


def test_a_verified_release_that_cannot_stay_up_gives_way_to_the_one_before() -> None:
    disk = Disk(2, 1)
    disk.state("verified", disk.named(2) | {"before": disk.named(1)})
    assert [disk.starts() for _ in range(5)] == ["1.2.0"] * 4 + ["1.1.0"]
    assert disk.is_condemned(2)
    assert disk.told("verified")["sha256"] == disk.named(1)["sha256"]
    assert [disk.starts() for _ in range(9)] == ["1.1.0"] * 9
    assert not disk.is_condemned(1)


def test_a_release_that_was_never_good_is_not_tried_because_a_good_one_crashes() -> None:
    disk = Disk(1, 3)
    assert [disk.starts() for _ in range(9)] == ["1.1.0"] * 9
    assert not disk.is_condemned(1)


def test_a_damaged_current_release_gives_way_to_the_verified_one() -> None:
    disk = Disk(1, 2)
    disk.point(2)
    disk.files[disk.path(2)] = b"torn"
    assert disk.starts() == "1.1.0"
    assert disk.links[launcher.CURRENT] == disk.path(1)
    assert not disk.is_condemned(2)


def test_a_condemned_current_release_is_left_at_once() -> None:
    disk = Disk(1, 2)
    disk.point(2)
    disk.condemn(2)
    assert disk.starts() == "1.1.0"


def test_a_condemned_release_starts_rather_than_nothing() -> None:
    disk = Disk(1)
    disk.condemn(1)
    assert disk.starts() == "1.1.0"


@pytest.mark.parametrize("target", [None, "/nowhere", "/usr/bin/fleet-agent-v9.9.9"])
def test_without_a_link_the_verified_release_starts(target: str | None) -> None:
    disk = Disk(1, 2)
    disk.links = {} if target is None else {launcher.CURRENT: target}
    assert disk.starts() == "1.1.0"
    assert disk.links[launcher.CURRENT] == disk.path(1)


def test_without_any_state_a_whole_release_starts() -> None:
    disk = Disk(2, 1)
    disk.links.clear()
    disk.files = {path: data for path, data in disk.files.items() if not path.startswith(launcher.STATE)}
    assert disk.starts() in ("1.1.0", "1.2.0")


def test_a_lost_manifest_does_not_hide_the_verified_release() -> None:
    disk = Disk(1)
    disk.files[f"{disk.path(1)}.manifest.json"] = b""
    assert disk.starts() == "1.1.0"


def test_nothing_whole_is_said() -> None:
    disk = Disk(1)
    disk.files[disk.path(1)] = b"torn"
    assert isinstance(choose(disk, "a", BOOT), Nothing)


def test_a_full_disk_keeps_nothing_from_starting() -> None:
    disk = Disk(1, 2)
    disk.full = True
    assert disk.starts() == "1.1.0"
    disk.point(2)
    disk.condemn(2)
    assert disk.starts() == "1.1.0"


STATES = ("attempt", "verified", "trials")
json_values: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["version", "sha256", "release", "previous", "origin", "boot", "ended", "status", "starts", "before"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    garbage=st.dictionaries(
        st.sampled_from(STATES), st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode())
    ),
    mark=st.text(alphabet="0123456789abcdef/.", max_size=70),
    slot=st.sampled_from(["a", "b"]),
)
def test_no_garbage_keeps_the_device_from_starting(garbage: dict[str, bytes], mark: str, slot: str) -> None:
    disk = Disk(1, 2)
    for name, data in garbage.items():
        disk.files[f"{launcher.STATE}/{name}.json"] = data
    disk.files[f"{launcher.QUARANTINE}/{mark.replace('/', '_')}"] = b"\xff"
    assert isinstance(choose(disk, slot, BOOT), Start)


# --- on a real file system ---------------------------------------------------------------------------------


def on_disk(root: Path) -> Disk:
    """A device below a folder."""
    disk = Disk(1, 2)
    files = RealFiles(str(root))
    for path, data in disk.files.items():
        files.write(path, data)
    for link, target in disk.links.items():
        files.swap(link, target)
    return disk


def test_the_real_files_keep_links_below_their_root(tmp_path: Path) -> None:
    disk, files = on_disk(tmp_path), RealFiles(str(tmp_path))
    assert files.link(launcher.CURRENT) == disk.path(1)
    assert os.readlink(tmp_path / launcher.CURRENT[1:]) == str(tmp_path) + disk.path(1)
    files.swap(launcher.CURRENT, disk.path(2))
    assert files.link(launcher.CURRENT) == disk.path(2)
    assert files.sha256(disk.path(1)) == disk.named(1)["sha256"]
    assert files.read("/nowhere") is None
    assert files.names("/nowhere") == []
    assert files.names(launcher.RELEASES) == disk.names(launcher.RELEASES)
    disk.point(2)
    assert choose(files, "a", BOOT) == choose(disk, "a", BOOT)


@pytest.mark.parametrize("log", [os.devnull, "/dev/full"])
def test_it_becomes_the_release_it_picks(tmp_path: Path, log: str) -> None:
    """Also where its log can take nothing more."""
    program = b"import os, sys; print(sys.argv[1:], os.environ['FLEET_AGENT_SLOT'], os.environ['SHIV_ROOT'])"
    disk, files = on_disk(tmp_path), RealFiles(str(tmp_path))
    named = {"version": "1.1.0", "sha256": sha256(program).hexdigest()}
    files.write(disk.path(1), program)
    files.write(f"{disk.path(1)}.manifest.json", json.dumps(named).encode())
    guard = (sys.executable, "-I", launcher.__file__, "b")
    with open(log, "w", encoding="utf-8") as full:
        ended = subprocess.run(
            guard, env={"FLEET_ROOT": str(tmp_path)}, stdout=subprocess.PIPE, stderr=full, text=True, timeout=30
        )
    assert ended.stdout == f"['--slot', 'b'] b {tmp_path}/var/lib/fleet-agent/unpacked\n"
    assert ended.returncode == 0


def test_it_loads_nothing_of_the_project(tmp_path: Path) -> None:
    ours = "[name for name in sys.modules if name.split('.')[0] in ('agent', 'fleet', 'pydantic')]"
    code = f"import runpy, sys; runpy.run_path({launcher.__file__!r}); print({ours})"
    ended = subprocess.run((sys.executable, "-I", "-c", code), capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert ended.stdout == "[]\n"

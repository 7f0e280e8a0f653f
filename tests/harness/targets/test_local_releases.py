"""Every defect misbehaves in its one way, in a real release, and is the production agent in every other."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleet.contracts.ids import DeviceId, Version
from fleet.releases.build import BuiltRelease
from harness.releases import Defect, Misbehaviour, ReleasePlan
from harness.targets.local_parts import agent_config
from harness.targets.local_releases import build_all

pytestmark = pytest.mark.real

SERVICE = ("--slot", "a")
PYTHON = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[Defect, BuiltRelease]:
    plans = {defect: ReleasePlan(Version(f"1.0.{minor}"), Misbehaviour(defect)) for minor, defect in enumerate(Defect)}
    built = build_all(tuple(plans.values()), tmp_path_factory.mktemp("releases"))
    return {defect: built[plan.version] for defect, plan in plans.items()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root folder of one device for all tests: what a release unpacks at its first start is there for the next."""
    return tmp_path_factory.mktemp("device")


@pytest.fixture(scope="module")
def device(root: Path) -> Path:
    """A device that was set up, whose bus is not there."""
    folder = root.with_name("set-up")
    (folder / "etc/fleet-agent").mkdir(parents=True)
    login = folder / "etc/fleet-agent/login.json"
    login.write_text('{"user": "dev-1", "password": "x"}')
    config = agent_config(DeviceId("dev-1"), "nats://127.0.0.1:9", 10.0)
    (folder / "etc/fleet-agent/config.json").write_text(config.model_dump_json())
    (folder / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (folder / "proc/sys/kernel/random").mkdir(parents=True)
    (folder / "proc/sys/kernel/random/boot_id").write_text("first-boot\n")
    (folder / "unpacked").symlink_to(root / "unpacked")
    return folder


class Started(subprocess.Popen[str]):
    """A release on a machine of its own: no installed package, no configuration."""

    def __init__(self, built: BuiltRelease, root: Path, *arguments: str) -> None:
        super().__init__(
            [str(PYTHON), "-I", "-S", str(built.path), *arguments],
            env={"SHIV_ROOT": str(root / "unpacked"), "FLEET_ROOT": str(root), "PATH": "/usr/bin:/bin"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def ended(built: BuiltRelease, root: Path, *arguments: str) -> tuple[int, str]:
    with Started(built, root, *arguments) as process:
        output, _ = process.communicate(timeout=60)
        return process.returncode, output


def hangs(built: BuiltRelease, root: Path, *arguments: str) -> bool:
    """Whether it is still there when every healthy release has long answered; it is killed then."""
    ended(built, root, "--version")
    with Started(built, root, *arguments) as process:
        try:
            process.wait(4)
        except subprocess.TimeoutExpired:
            return True
        finally:
            process.kill()
    return False


WELL = [Defect.NONE, Defect.NEVER_HEARTBEATS, Defect.CRASHES_AT_START]


@pytest.mark.parametrize("defect", WELL)
def test_it_passes_its_self_test_and_names_itself(
    releases: dict[Defect, BuiltRelease], defect: Defect, root: Path
) -> None:
    built = releases[defect]
    code, output = ended(built, root, "--self-test")
    assert code == 0, output
    told = json.loads(output.splitlines()[-1])
    assert (told["version"], told["sha256"]) == (built.release.version, built.release.sha256)


@pytest.mark.parametrize("defect", [defect for defect in Defect if defect is not Defect.WRONG_ARCHITECTURE])
def test_it_tells_its_version(releases: dict[Defect, BuiltRelease], defect: Defect, root: Path) -> None:
    code, output = ended(releases[defect], root, "--version")
    assert (code, output.split()[0]) == (0, releases[defect].release.version)


def test_a_self_test_can_fail(releases: dict[Defect, BuiltRelease], root: Path) -> None:
    assert ended(releases[Defect.SELF_TEST_FAILS], root, "--self-test")[0] == 1


def test_a_self_test_can_hang(releases: dict[Defect, BuiltRelease], root: Path) -> None:
    assert hangs(releases[Defect.SELF_TEST_HANGS], root, "--self-test")


def test_a_service_can_crash_at_its_start(releases: dict[Defect, BuiltRelease], root: Path) -> None:
    assert ended(releases[Defect.CRASHES_AT_START], root, *SERVICE) == (1, "")


def test_a_service_can_do_nothing_until_it_is_stopped(releases: dict[Defect, BuiltRelease], device: Path) -> None:
    built = releases[Defect.NEVER_HEARTBEATS]
    ended(built, device, "--version")
    with Started(built, device, *SERVICE) as process:
        deadline = time.monotonic() + 30
        while not _catches_sigterm(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize("defect", [Defect.NONE, Defect.SELF_TEST_FAILS, Defect.SELF_TEST_HANGS])
def test_a_service_is_the_agent(releases: dict[Defect, BuiltRelease], defect: Defect, root: Path) -> None:
    code, output = ended(releases[defect], root, *SERVICE)
    assert code != 0
    assert "config.json" in output


def _catches_sigterm(pid: int) -> bool:
    """Whether the process has a handler of its own for SIGTERM by now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)

"""One table of what a misbehaving release does, for a virtual process and for the process of a real zipapp.

The zipapp is built and unpacked once; what it is changes with `agent/release.json`, which is all that tells one
misbehaving release from another.
"""

from __future__ import annotations

import asyncio
import json
import platform
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent import paths, selftest
from fleet.adapters.clock import WallClock
from fleet.capabilities.clock import Clock
from fleet.contracts.ids import Architecture, DeviceId, Release, Slot, Version
from fleet.contracts.time import Duration
from fleet.releases.build import BuiltRelease, build, running_architecture
from fleet.releases.defects.catalogue import AFTER, DAMAGED, Defect, Misbehaviour
from harness.releases import ReleasePlan
from harness.targets.local_parts import agent_config
from harness.targets.port import FleetPlan
from harness.targets.sim import SimSession
from sim.journal import AgentEnded, AgentStarted
from sim.world import World

PI, VERSION = DeviceId("pi-1"), Version("1.0.0")
PACE = 10.0
LIVES = Duration.seconds(50)
"""What is still there after this lives: longer than every `after` that is not given."""


@dataclass(frozen=True, slots=True)
class Life:
    """What a release does as a service. `code` None: it lives, until a SIGTERM, which it heeds or not."""

    code: int | None
    late: bool = False
    heeds: bool = True


AGENT = Life(None)
SERVICES = {
    Defect.CRASHES_AT_START: Life(1),
    Defect.WRONG_ARCHITECTURE: Life(1),
    Defect.EXITS_LATER: Life(1, late=True),
    Defect.LEAKS_UNTIL_KILLED: Life(-9, late=True),
    Defect.HANGS: Life(None, heeds=False),
}
SELF_TESTS = {
    Defect.WRONG_ARCHITECTURE: "fails",
    Defect.SELF_TEST_FAILS: "fails",
    Defect.SELF_TEST_HANGS: "hangs",
    Defect.SELF_TEST_LIES: "lies",
}
"""What is not named passes its self-test, and is the agent as a service."""

ALIKE_FOR_REAL = (Defect.SELF_TEST_FAILS, Defect.SELF_TEST_HANGS, Defect.SELF_TEST_LIES, *DAMAGED)
"""As services these are the agent: one real process less to wait for each."""


def verdict(code: int, output: bytes, own: Release) -> str:
    if code != 0:
        return "fails"
    return "passes" if selftest.named(output) == own else "lies"


# --- virtual -----------------------------------------------------------------------------------------


def virtual(defect: Defect) -> tuple[World, SimSession]:
    world = World(1)
    plan = FleetPlan((PI,), ({},), (ReleasePlan(VERSION, Misbehaviour(defect)),), VERSION)
    return world, SimSession(world, plan)


async def virtual_self_test(session: SimSession) -> str:
    await session.start()
    machine = session._devices[PI].machine
    data = machine.disk.read(paths.release(VERSION))
    (artefact,) = session.artefacts(VERSION)
    program = paths.release(VERSION)
    try:
        async with session.clock.timeout(Duration.minutes(5)):
            end = await machine.run_program(machine, program, data, ("--self-test",))
    except TimeoutError:
        return "hangs"
    return verdict(end.code, end.output, artefact.release)


async def virtual_life(session: SimSession) -> Life:
    await session.start()
    started: list[AgentStarted] = []
    ended: list[AgentEnded] = []
    session.journal.subscribe(AgentStarted, started.append)
    session.journal.subscribe(AgentEnded, ended.append)
    while not started:
        await session.clock.sleep(Duration.millis(100))
    await session.clock.sleep(LIVES)
    if ended:
        return Life(ended[0].code, late=ended[0].at - started[0].at > Duration.seconds(10))
    process = session._devices[PI].machine.process(Slot.A)
    assert process is not None
    process.terminate()
    await session.clock.sleep(Duration.seconds(60))
    return Life(None, heeds=not process.alive)


@pytest.mark.parametrize("defect", list(Defect))
def test_a_virtual_self_test(defect: Defect) -> None:
    world, session = virtual(defect)
    with world:
        assert world.run(virtual_self_test(session)) == SELF_TESTS.get(defect, "passes")


@pytest.mark.parametrize("defect", list(Defect))
def test_a_virtual_service(defect: Defect) -> None:
    world, session = virtual(defect)
    with world:
        assert world.run(virtual_life(session)) == SERVICES.get(defect, AGENT)


# --- real --------------------------------------------------------------------------------------------


class RealRelease:
    """A zipapp on a device below `root` whose bus is not there."""

    def __init__(self, built: BuiltRelease, root: Path) -> None:
        self.built = built
        self.root = root
        self.clock: Clock = WallClock(PACE)
        self._set_up()
        self.started("--version").communicate(timeout=120)
        (self._about,) = (root / "unpacked").glob("*/site-packages/agent/release.json")

    def become(self, defect: Defect) -> None:
        """From now on it misbehaves like this."""
        architecture = running_architecture()
        if defect is Defect.WRONG_ARCHITECTURE:
            architecture = next(item for item in Architecture if item is not architecture)
        about = {
            "version": VERSION,
            "architecture": architecture.value,
            "python": ".".join(platform.python_version_tuple()[:2]),
            "defect": defect.value,
            "defect-after": AFTER.get(defect, Duration(0)).ns,
        }
        self._about.write_text(json.dumps(about))

    def boot(self, name: str) -> None:
        """The machine boots."""
        (self.root / "proc/sys/kernel/random/boot_id").write_text(name)

    def started(self, *arguments: str) -> subprocess.Popen[bytes]:
        """It is started on a machine without any installed package."""
        python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        return subprocess.Popen(
            [str(python), "-I", "-S", str(self.built.path), *arguments],
            env={"SHIV_ROOT": str(self.root / "unpacked"), "FLEET_ROOT": str(self.root), "PATH": "/usr/bin:/bin"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def self_test(self) -> str:
        """What it makes of its self-test."""
        with self.started("--self-test") as process:
            try:
                output, _ = process.communicate(timeout=6 if self._hangs() else 60)
            except subprocess.TimeoutExpired:
                process.kill()
                return "hangs"
            return verdict(process.returncode, output, self.built.release)

    def _hangs(self) -> bool:
        return Defect.SELF_TEST_HANGS.value in self._about.read_text()

    async def life(self, expected: Life) -> Life:
        """What it does as a service. A busy machine gets more time for what is expected to come."""
        with self.started("--slot", "a") as process:
            try:
                return await self._life(process, expected)
            finally:
                process.kill()

    async def _life(self, process: subprocess.Popen[bytes], expected: Life) -> Life:
        """Counts from the moment at which it listens to signals, if it comes to that."""
        began = self.clock.monotonic()
        up = None
        lives = LIVES if expected.code is None else LIVES * 10
        while up is None or self.clock.monotonic() - up < lives:
            if process.poll() is not None:
                since = began if up is None else up
                late = up is not None and self.clock.monotonic() - since > Duration.seconds(10)
                return Life(process.returncode, late=late)
            if up is None and _catches_sigterm(process.pid):
                up = self.clock.monotonic()
            await self.clock.sleep(Duration.millis(500))
        process.terminate()
        for _ in range(600 if expected.heeds else 30):
            await self.clock.sleep(Duration.seconds(1))
            if process.poll() is not None:
                assert process.returncode == 0
                return Life(None)
        return Life(None, heeds=False)

    def _set_up(self) -> None:
        folder = self.root / "etc/fleet-agent"
        folder.mkdir(parents=True)
        (folder / "login.json").write_text('{"user": "pi-1", "password": "x"}')
        config = agent_config(PI, "nats://127.0.0.1:9", PACE)
        (folder / "config.json").write_text(config.model_dump_json())
        (self.root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        (self.root / "proc/sys/kernel/random").mkdir(parents=True)
        self.boot("first")


def _catches_sigterm(pid: int) -> bool:
    """Whether the process has a handler of its own for SIGTERM by now."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> RealRelease:
    folder = tmp_path_factory.mktemp("releases")
    built = build(VERSION, running_architecture(), folder, misbehaviour=Misbehaviour(Defect.HANGS))
    return RealRelease(built, tmp_path_factory.mktemp("device"))


@pytest.mark.real
@pytest.mark.parametrize("defect", [*SELF_TESTS, Defect.HANGS])
def test_a_real_self_test(real: RealRelease, defect: Defect) -> None:
    real.become(defect)
    assert real.self_test() == SELF_TESTS.get(defect, "passes")


@pytest.mark.real
@pytest.mark.parametrize("defect", [defect for defect in Defect if defect not in ALIKE_FOR_REAL])
def test_a_real_service(real: RealRelease, defect: Defect) -> None:
    real.become(defect)
    expected = SERVICES.get(defect, AGENT)
    assert asyncio.run(real.life(expected)) == expected


# --- the one with a memory ---------------------------------------------------------------------------


async def virtual_after_reboot(session: SimSession) -> int:
    assert await virtual_life(session) == AGENT
    ended: list[AgentEnded] = []
    session.journal.subscribe(AgentEnded, ended.append)
    machine = session._devices[PI].machine
    machine.cut_power()
    machine.boot()
    ended.clear()
    await session.clock.sleep(Duration.seconds(30))
    return ended[0].code


def test_a_virtual_release_fails_after_a_reboot() -> None:
    world, session = virtual(Defect.FAILS_AFTER_REBOOT)
    with world:
        assert world.run(virtual_after_reboot(session)) == 1


@pytest.mark.real
def test_a_real_release_fails_after_a_reboot(real: RealRelease) -> None:
    real.become(Defect.FAILS_AFTER_REBOOT)
    assert asyncio.run(real.life(AGENT)) == AGENT
    real.boot("second")
    assert asyncio.run(real.life(Life(1))).code == 1

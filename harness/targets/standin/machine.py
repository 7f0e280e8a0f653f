"""A device of plain processes, as the harness handles it: boot, cut the power, kill, and hear what happens."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fleet.contracts.errors import NotFound, Unavailable
from fleet.contracts.ids import Slot
from harness.targets.standin.children import descendants
from harness.targets.standin.events import (
    BoxEnded,
    BoxStarted,
    MachineEvent,
    MachineUp,
    UnitEnded,
    UnitStarted,
    parse,
)

_HERE = Path(__file__).parent
_PROJECT = _HERE.parents[2]
_TOOLS = ("systemctl", "podman")
_BOOT_LIMIT = 30
_STOP_LIMIT = 15
_KERNEL_UUID = Path("/proc/sys/kernel/random/uuid")


@dataclass(slots=True)
class _Boot:
    """One supervisor process and the task that reads its reports."""

    process: asyncio.subprocess.Process
    up: asyncio.Future[None]
    reading: asyncio.Task[None]


class StandInMachine:
    """One device below `root`. It is off when made.

    Args:
        pace: how many times faster than real its intervals run.
        on_event: told of everything that happens on it, also of what a power cut ended. Must not raise.
        environment: what its units get besides `FLEET_ROOT`, `FLEET_MACHINE`, `FLEET_SLOT` and `PATH`.
        python: the interpreter that runs the boot guard; the one below this environment when not given.
    """

    def __init__(
        self,
        root: Path,
        pace: float,
        on_event: Callable[[MachineEvent], None],
        environment: Mapping[str, str] | None = None,
        python: str | None = None,
    ) -> None:
        self.root = root
        self._pace = pace
        self._on_event = on_event
        self._python = python or os.path.realpath(sys.executable)
        self._address = f"harmony-fleet/{_KERNEL_UUID.read_text('ascii').strip()}"
        self._extra = dict(environment or {})
        self._boot: _Boot | None = None
        self._units: dict[Slot, int] = {}
        self._boxes: set[tuple[str, str]] = set()

    @property
    def environment(self) -> dict[str, str]:
        """What a program on this device gets: its root, and the stand-ins first on its PATH."""
        path = (str(self._shims), os.path.dirname(self._python), "/usr/local/bin", "/usr/bin", "/bin")
        own = {"FLEET_ROOT": str(self.root), "FLEET_MACHINE": self._address, "PATH": os.pathsep.join(path)}
        return self._extra | own

    @property
    def running(self) -> Mapping[Slot, int]:
        """The pid of each unit that runs."""
        return dict(self._units)

    @property
    def powered(self) -> bool:
        """Whether it is on."""
        return self._boot is not None

    async def start(self) -> None:
        """Put the stand-ins and the machine's own files in place, then boot. Raises: as `boot`."""
        self._prepare()
        await self.boot()

    async def boot(self) -> None:
        """Restore power; returns when the device is up and has started slot A. Nothing happens when it is on.

        Raises:
            Unavailable: it does not come up.
        """
        if self._boot is not None:
            return
        process = await self._launch()
        up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._boot = _Boot(process, up, asyncio.create_task(self._read(process, up)))
        await asyncio.wait([up], timeout=_BOOT_LIMIT)
        if not up.done():
            await self.cut_power()
            raise Unavailable(f"the machine below {self.root.name} did not come up: {self._last_words()}")
        up.result()

    async def cut_power(self) -> None:
        """Everything on it is gone when this returns. Nothing happens when it is off."""
        boot, self._boot = self._boot, None
        if boot is None:
            return
        with suppress(ProcessLookupError):
            boot.process.send_signal(signal.SIGTERM)
        done, _ = await asyncio.wait([boot.reading], timeout=_STOP_LIMIT)
        if not done:
            with suppress(ProcessLookupError):
                boot.process.kill()
        await boot.reading
        await boot.process.wait()
        self._all_ended()

    async def stop(self) -> None:
        """End of the run: the same as a power cut."""
        await self.cut_power()

    async def kill_unit(self, slot: Slot) -> None:
        """kill -9 of the process in a slot. Raises: NotFound when there is none, Unavailable when it is off."""
        await self._ask("machine", "kill", f"fleet-agent@{slot.value}.service")

    async def crash(self, container: str) -> None:
        """kill -9 of a container by its engine's name. Raises: as `kill_unit`."""
        await self._ask("machine", "crash", container)

    async def silence_engine(self, silent: bool) -> None:
        """Let the engine answer nobody, or answer again. Raises: Unavailable when the machine is off."""
        await self._ask("machine", "silence" if silent else "answer")

    def processes(self) -> list[int]:
        """The pids of all that runs on it; none when it is off."""
        return [] if self._boot is None else descendants(self._boot.process.pid, deep=True)

    @property
    def _shims(self) -> Path:
        return self.root / "opt/standin/bin"

    def _prepare(self) -> None:
        self._shims.mkdir(parents=True, exist_ok=True)
        for tool in _TOOLS:
            shutil.copy(_HERE / "shims/tool.py", self._shims / tool)
            (self._shims / tool).chmod(0o755)
        (self.root / "etc").mkdir(exist_ok=True)
        machine_id = self.root / "etc/machine-id"
        if not machine_id.exists():
            machine_id.write_text(_KERNEL_UUID.read_text("ascii").replace("-", ""), "ascii")
        (self.root / "etc/os-release").write_text('PRETTY_NAME="Stand-in device"\n', "ascii")
        (self.root / "var/log").mkdir(parents=True, exist_ok=True)

    async def _launch(self) -> asyncio.subprocess.Process:
        settings = {
            "root": str(self.root),
            "address": self._address,
            "pace": self._pace,
            "python": self._python,
            "environment": self.environment,
        }
        with (self.root / "var/log/machine.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-S",
                "-m",
                "harness.targets.standin.supervisor",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=_PROJECT,
                env={"PYTHONPATH": str(_PROJECT), "STANDIN_SETTINGS": json.dumps(settings)},
                start_new_session=True,
            )

    async def _read(self, process: asyncio.subprocess.Process, up: asyncio.Future[None]) -> None:
        """Pass the supervisor's reports on until it ends. Its end nobody asked for ends everything on it, too."""
        assert process.stdout is not None
        async for line in process.stdout:
            event = parse(line)
            self._note(event)
            if isinstance(event, UnitStarted) and not up.done():
                up.set_result(None)
        await process.wait()
        if not up.done():
            up.set_exception(Unavailable(f"the supervisor ended with {process.returncode}: {self._last_words()}"))
            up.exception()
        self._sweep()
        if self._boot is not None and self._boot.process is process:
            self._boot = None
            self._all_ended()

    def _note(self, event: MachineEvent) -> None:
        match event:
            case UnitStarted(slot, pid):
                self._units[slot] = pid
            case UnitEnded(slot):
                self._units.pop(slot, None)
            case BoxStarted(deployment, name):
                self._boxes.add((deployment, name))
            case BoxEnded(deployment, name):
                self._boxes.discard((deployment, name))
            case MachineUp():
                pass
        self._on_event(event)

    def _all_ended(self) -> None:
        for slot, pid in sorted(self._units.items()):
            self._note(UnitEnded(slot, pid, -signal.SIGKILL))
        for deployment, name in sorted(self._boxes):
            self._note(BoxEnded(deployment, name))

    def _sweep(self) -> None:
        """A supervisor that was killed could not end its grandchildren: they are found by the address they carry."""
        mark = f"FLEET_MACHINE={self._address}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and mark in _environment(entry):
                with suppress(ProcessLookupError):
                    os.kill(int(entry.name), signal.SIGKILL)

    def _last_words(self) -> str:
        return (self.root / "var/log/machine.log").read_text(errors="replace")[-500:]

    async def _ask(self, tool: str, *arguments: str) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection("\0" + self._address)
        except OSError as error:
            raise Unavailable(f"the machine below {self.root.name} does not answer: {error}") from error
        try:
            writer.write(json.dumps({"tool": tool, "arguments": arguments}).encode() + b"\n")
            answer = json.loads(await reader.read())
        finally:
            writer.close()
        if answer["code"] != 0:
            raise NotFound(str(answer["err"]).strip())


def _environment(process: Path) -> list[bytes]:
    """The environment a process was started with; empty when it is gone or someone else's."""
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []

"""Taps on virtual programs: each effect on the world is told before it happens, and the program may end right there.

A tap only counts and decides. A tapped port hands every call on as it is and yields nowhere by itself, so that a run
with a tap that lets everything pass is the very run without one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import PurePosixPath
from typing import Final, Literal, Protocol, cast

from agent.ports import AgentPorts
from fleet.capabilities.artefacts import Artefacts
from fleet.capabilities.bus import Bus, Request
from fleet.capabilities.containers import Containers
from fleet.capabilities.disk import Disk
from fleet.capabilities.host import HostLock, Programs, Services
from fleet.capabilities.objects import Objects
from fleet.contracts.time import Duration, Instant
from fleet.operator.ports import OperatorPorts
from sim.disk import DiskImage, gone
from sim.host import Machine
from sim.journal import FaultInjected, Journal
from sim.kernel import Kernel
from sim.process import Process
from sim.world import World

Kind = Literal["power", "kill"]
DOWN: Final = Duration.seconds(30)
"""How long the power stays away at a crash point."""
ADDED: Final = 0
"""The index of a fault that no scenario declares: a crash that a tap decided."""

EFFECTS: Final[dict[type, tuple[str, ...]]] = {
    Disk: (
        "write",
        "make_executable",
        "make_private",
        "sync",
        "sync_folder",
        "rename",
        "symlink",
        "unlink",
        "make_folder",
        "remove_folder",
    ),
    Services: ("start", "stop"),
    Programs: ("run",),
    HostLock: ("acquire", "release"),
    Containers: ("pull", "run", "start", "remove"),
    Artefacts: ("read",),
    Bus: ("put", "post", "update", "delete", "request", "serve"),
    Objects: ("create", "replace", "replace_status", "delete"),
}
"""What a program does to its world, by port. `serve` stands for each answer that it gives."""
OBSERVATIONS: Final[dict[type, tuple[str, ...]]] = {
    Disk: ("read", "read_link", "names", "size", "exists", "free"),
    Services: ("state",),
    Containers: ("present",),
    Bus: ("on_session", "is_connected", "may_log_in", "get", "entries", "listen", "close"),
    Objects: ("list", "get", "watch"),
}
"""What a program only looks at. Together with `EFFECTS` these are all the methods of the ports: a test sees to it."""


class Decision(Enum):
    """What becomes of an effect, and of whoever is about to have it."""

    GO_ON = "go on"
    CRASH_BEFORE = "crash before"
    CRASH_AFTER = "crash after"


class Tap(Protocol):
    """Told of everything that can be cut short."""

    @property
    def draw(self) -> int:
        """Which draw of chance settles the disk at the crash just decided; 0 is the one that the run itself makes."""
        ...

    def ask(self, who: str, kind: Kind, name: str) -> Decision:
        """`who` (a device, or the operator) is about to have this effect. `power`: a change of its disk."""
        ...


class Probe:
    """One program under a tap."""

    def __init__(
        self,
        tap: Tap,
        who: str,
        label: str,
        process: Process,
        kernel: Kernel,
        journal: Journal,
    ) -> None:
        self._tap = tap
        self._who = who
        self._label = label
        self._process = process
        self._kernel = kernel
        self._journal = journal

    def allows(self, name: str) -> bool:
        """Whether the effect may happen; when not, the program is dead."""
        if not self._process.alive:
            return False
        name = f"{self._label}{name}"
        match self._tap.ask(self._who, "kill", name):
            case Decision.GO_ON:
                return True
            case Decision.CRASH_BEFORE:
                self._kill(f"before {name}")
                return False
            case Decision.CRASH_AFTER:
                self._kernel.after(0, self._kill, f"after {name}")
                return True

    def _kill(self, when: str) -> None:
        if self._process.alive:
            record_crash(self._journal, Instant(self._kernel.now), self._who, f"kill {when}")
            self._process.kill()


class PowerProbe:
    """The power of one machine under a tap: it can go instead of any change of the disk, whoever asks for that."""

    def __init__(self, tap: Tap, machine: Machine, world: World, journal: Journal) -> None:
        self._tap = tap
        self._machine = machine
        self._world = world
        self._journal = journal
        self._also: Callable[[str, PurePosixPath], bool] | None = None

    def attach(self) -> None:
        """Be asked from now on, after whoever is asked already."""
        self._also = self._machine.disk.before_change
        self._machine.disk.before_change = self._may_change

    def _may_change(self, operation: str, path: PurePosixPath) -> bool:
        if self._also is not None and not self._also(operation, path):
            return False
        name = f"{operation} {path}"
        match self._tap.ask(self._machine.name, "power", name):
            case Decision.GO_ON:
                return True
            case Decision.CRASH_BEFORE:
                self._cut(self._tap.draw, f"before {name}")
                return False
            case Decision.CRASH_AFTER:
                self._world.kernel.after(0, self._cut, self._tap.draw, f"after {name}")
                return True

    def _cut(self, draw: int, when: str) -> None:
        machine = self._machine
        if machine.powered:
            record_crash(self._journal, self._world.now(), machine.name, f"cut-power {when}")
            machine.cut_power(self._world.streams.stream(f"crash draw {draw}/{machine.name}") if draw else None)
            self._world.kernel.after(DOWN, machine.boot)


def record_crash(journal: Journal, at: Instant, who: str, text: str) -> None:
    """Note a crash that a tap decided."""
    journal.record(FaultInjected(at, ADDED, text, who))


class _Tapped:
    """A port under a tap: methods that have effects ask first, everything else is the port's own."""

    def __init__(self, port: object, kind: type, probe: Probe) -> None:
        self._port = port
        self._kind = kind
        self._probe = probe

    def __getattr__(self, name: str) -> object:
        inner: Callable[..., object] = getattr(self._port, name)
        if name in EFFECTS[self._kind]:
            inner = self._wrapped(name, inner)
        self.__dict__[name] = inner
        return inner

    def _wrapped(self, name: str, inner: Callable[..., object]) -> Callable[..., object]:
        probe, word = self._probe, f"{self._kind.__name__.lower()} {name}"
        if name == "serve":
            return _serving(probe, inner)
        if inspect.iscoroutinefunction(inner):

            async def call(*args: object, **more: object) -> object:
                if not probe.allows(_worded(word, args)):
                    await gone()
                return await inner(*args, **more)

            return call

        def at_once(*args: object, **more: object) -> object:
            return inner(*args, **more) if probe.allows(_worded(word, args)) else None

        return at_once


def _serving(probe: Probe, serve: Callable[..., object]) -> Callable[..., object]:
    def wrapped(subject: str, handler: Callable[[Request], bytes | None]) -> object:
        def answer(request: Request) -> bytes | None:
            return handler(request) if probe.allows(f"bus answer {request.subject}") else None

        return serve(subject, answer)

    return wrapped


def _worded(word: str, args: tuple[object, ...]) -> str:
    """The effect with what it is done to: the last path, or the leading names and slots."""
    paths = [str(arg) for arg in args if isinstance(arg, PurePosixPath)]
    if paths:
        return f"{word} {paths[-1]}"
    named = [_short(str(arg)) for arg in args if isinstance(arg, str)][:2]
    if not named and args and hasattr(args[0], "kind_name"):
        named = [f"{args[0].kind_name}/{getattr(args[0], 'name', '')}"]
    return " ".join((word, *named))


def _short(text: str) -> str:
    """Addresses end in a digest, which names enough."""
    return text if "/" not in text else text.rpartition("/")[2][:12]


def _tapped(port: object, kind: type, probe: Probe) -> object:
    return _Tapped(port, kind, probe)


def tap_image(image: DiskImage, probe: Probe | None) -> DiskImage:
    """The disk as the boot guard changes it, under a tap. A dead boot guard changes nothing any more."""
    return image if probe is None else cast(DiskImage, _tapped(image, Disk, probe))


def tap_agent(ports: AgentPorts, probe: Probe) -> AgentPorts:
    """The ports of an agent process, under a tap."""
    return replace(
        ports,
        bus=cast(Bus, _tapped(ports.bus, Bus, probe)),
        disk=cast(Disk, _tapped(ports.disk, Disk, probe)),
        services=cast(Services, _tapped(ports.services, Services, probe)),
        programs=cast(Programs, _tapped(ports.programs, Programs, probe)),
        lock=cast(HostLock, _tapped(ports.lock, HostLock, probe)),
        containers=cast(Containers, _tapped(ports.containers, Containers, probe)),
        artefacts=cast(Artefacts, _tapped(ports.artefacts, Artefacts, probe)),
    )


def tap_operator(ports: OperatorPorts, probe: Probe) -> OperatorPorts:
    """The ports of an operator process, under a tap."""
    return replace(
        ports,
        bus=cast(Bus, _tapped(ports.bus, Bus, probe)),
        objects=cast(Objects, _tapped(ports.objects, Objects, probe)),
    )

"""The containers of one device, as plain child processes. Standard library only.

An image is a name and nothing else: pulling one always works, except for those under `missing/`. What a container
runs is its command, on the host's own files. Without one, or with one that is only options, it is the image's own
program that runs: here a long sleep, which takes any options.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.targets.standin.children import Children

DEFAULT_COMMAND = ("sleep", "infinity")
LABEL = "io.nationtech.fleet"
GRACE_FLOOR = 1.0
MISSING = "missing/"


class Failed(Exception):
    """The engine says no, with an exit code and a message as Podman words it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class Box:
    """One container."""

    name: str
    image: str
    command: tuple[str, ...]
    environment: dict[str, str]
    labels: dict[str, str]
    pid: int | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def state(self) -> str:
        return "running" if self.pid is not None else "exited"


class Engine:
    """What `podman` would know."""

    def __init__(
        self, root: Path, pace: float, environment: dict[str, str], children: Children, report: Callable[..., None]
    ) -> None:
        self._root = root
        self._pace = pace
        self._environment = environment
        self._children = children
        self._report = report
        self._boxes: dict[str, Box] = {}
        self._images: set[str] = set()
        self.answers = asyncio.Event()
        """Cleared while the engine is silent: its containers go on running."""
        self.answers.set()

    def listing(self) -> list[dict[str, object]]:
        """What `podman ps --all --format json` prints."""
        return [
            {"Names": [box.name], "Image": box.image, "State": box.state, "Labels": box.labels, "Pid": box.pid or 0}
            for box in self._boxes.values()
            if f"{LABEL}.deployment" in box.labels
        ]

    def has_image(self, image: str) -> bool:
        """Whether it was pulled since the device started."""
        return image in self._images

    def pull(self, image: str) -> None:
        """Raises: Failed."""
        if image.startswith(MISSING):
            raise Failed(125, f"Error: initializing source docker://{image}: reading manifest: manifest unknown")
        self._images.add(image)

    def run(self, box: Box) -> None:
        """Create and start. Raises: Failed."""
        if box.name in self._boxes:
            raise Failed(125, f'Error: creating container storage: the container name "{box.name}" is already in use')
        if not self.has_image(box.image):
            raise Failed(125, f"Error: {box.image}: image not known")
        self._boxes[box.name] = box
        self._begin(box)

    def start(self, name: str) -> None:
        """Nothing happens when it runs. Raises: Failed."""
        box = self.find(name)
        if box.pid is None:
            self._begin(box)

    async def remove(self, name: str, grace: float) -> None:
        """Stop and remove. Nothing happens when it is missing."""
        box = self._boxes.get(name)
        if box is None:
            return
        if box.pid is not None:
            self._children.signal(box.pid, signal.SIGTERM)
            grace = max(grace / self._pace, GRACE_FLOOR)
            timer = asyncio.get_running_loop().call_later(grace, self._children.kill_group, box.pid)
            await box.gone.wait()
            timer.cancel()
        self._boxes.pop(name, None)

    def crash(self, name: str) -> None:
        """kill -9 of a container's process. Raises: Failed."""
        pid = self.find(name).pid
        if pid is None:
            raise Failed(125, f'Error: container "{name}" is not running')
        self._children.kill_group(pid)

    def find(self, name: str) -> Box:
        """Raises: Failed."""
        box = self._boxes.get(name)
        if box is None:
            raise Failed(125, f'Error: no container with name or ID "{name}" found: no such container')
        return box

    def _begin(self, box: Box) -> None:
        log = self._root / f"var/log/container-{box.name}.log"
        environment = self._environment | box.environment
        try:
            box.pid = self._children.start(
                _program(box.command), environment, self._root, log, lambda code: self._ended(box, code)
            )
        except OSError as error:
            raise Failed(
                127, f"Error: OCI runtime attempted to invoke a command that was not found: {error}"
            ) from error
        box.gone.clear()
        self._report("container-started", **self._names(box))

    def _ended(self, box: Box, code: int) -> None:
        assert box.pid is not None
        self._children.kill_group(box.pid)
        box.pid = None
        box.gone.set()
        self._report("container-ended", code=code, **self._names(box))

    def _names(self, box: Box) -> dict[str, str]:
        return {key: box.labels.get(f"{LABEL}.{key}", "") for key in ("deployment", "name", "fingerprint")}


def _program(command: tuple[str, ...]) -> tuple[str, ...]:
    """What runs for a container's command: options go to the image's own program."""
    return DEFAULT_COMMAND if not command or command[0].startswith("-") else command

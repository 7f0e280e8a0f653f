"""The container engine of a virtual machine: images that cross the uplink, containers that die with the power."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from fleet.capabilities.containers import ContainerFact
from fleet.contracts.errors import Conflict, Disconnected, NotFound, Refused, Unavailable
from fleet.contracts.ids import DeploymentName
from fleet.contracts.podman import Container
from fleet.contracts.time import Duration
from sim.disk import Alive, gone
from sim.host import Machine
from sim.network import Network

START_TAKES: Final = (Duration.millis(300), Duration.millis(1500))
STOP_TAKES: Final = (Duration.millis(200), Duration.millis(1000))
REQUEST_BYTES: Final = 500
_SMALLEST, _LARGEST = 20 * 2**20, 200 * 2**20

_Key = tuple[DeploymentName, DeploymentName]


def size_of(image: str) -> int:
    """The bytes of an image, when nobody says otherwise: between 20 and 200 MiB, the same for a name every time."""
    return _SMALLEST + int.from_bytes(sha256(image.encode()).digest()[:8]) % (_LARGEST - _SMALLEST)


class Registry:
    """Where images come from.

    Args:
        node: its name on the network.
        sizes: the bytes of images, where they differ from `size_of`.
        missing: images that it does not have.
    """

    def __init__(
        self, network: Network, node: str, sizes: dict[str, int] | None = None, missing: frozenset[str] = frozenset()
    ) -> None:
        self.network = network
        self.node = node
        self.sizes = sizes or {}
        self.missing = missing

    def size(self, image: str) -> int:
        """The bytes of an image. Raises: NotFound."""
        if image in self.missing:
            raise NotFound(f"{image}: the registry has no such image")
        return self.sizes.get(image) or size_of(image)


def _unheard(fact: ContainerFact) -> None:
    """Nobody listens."""


@dataclass(slots=True)
class ContainerHooks:
    """Who is told of containers, at the instant it happens. Must not raise."""

    started: Callable[[ContainerFact], None] = _unheard
    ended: Callable[[ContainerFact], None] = _unheard


class Engine:
    """The engine of one machine, and what it keeps: pulled images and containers outlive a power cut, stopped."""

    def __init__(self, machine: Machine, registry: Registry) -> None:
        self.hooks = ContainerHooks()
        self.silenced = 0
        """How many reasons there are right now for it to answer nobody."""
        self.machine = machine
        self.registry = registry
        self._containers: dict[_Key, ContainerFact] = {}
        self._images: set[str] = set()
        machine.at_power_cut(self._power_cut)

    def facts(self) -> tuple[ContainerFact, ...]:
        """All containers, sorted by deployment and name."""
        return tuple(self._containers[key] for key in sorted(self._containers))

    def has_image(self, image: str) -> bool:
        """Whether the image is on the machine."""
        return image in self._images

    def crash(self, name: DeploymentName) -> None:
        """The containers of that name end by themselves.

        Raises:
            NotFound: none of that name runs.
        """
        keys = [key for key in sorted(self._containers) if key[1] == name and self._containers[key].running]
        if not keys:
            raise NotFound(f"no container {name} runs on {self.machine.name}")
        for key in keys:
            self.end(key)

    def keep_image(self, image: str, size: int) -> None:
        """Store an image that was pulled. Raises: NoSpace."""
        if image not in self._images:
            self.machine.disk.occupy(size)
            self._images.add(image)

    def check_new(self, key: _Key, image: str) -> None:
        """Raises: Conflict when a container of that name exists, Refused when the image is missing."""
        if key in self._containers:
            raise Conflict(f"a container {key[1]} of {key[0]} exists")
        if not self.has_image(image):
            raise Refused(f"{image} is not on {self.machine.name}")

    def add(self, fact: ContainerFact) -> None:
        """A new container runs. Raises: as `check_new`."""
        key = fact.deployment, fact.name
        self.check_new(key, fact.image)
        self._containers[key] = fact
        self.hooks.started(fact)

    def start(self, key: _Key) -> None:
        """Nothing happens when it runs. Raises: NotFound."""
        fact = self.find(key)
        if not fact.running:
            self._containers[key] = replace(fact, running=True)
            self.hooks.started(self._containers[key])

    def end(self, key: _Key) -> None:
        """Nothing happens when it does not run. Raises: NotFound."""
        fact = self.find(key)
        if fact.running:
            self._containers[key] = replace(fact, running=False)
            self.hooks.ended(self._containers[key])

    def forget(self, key: _Key) -> None:
        """End and remove. Nothing happens when it is missing."""
        if key in self._containers:
            self.end(key)
            del self._containers[key]

    def find(self, key: _Key) -> ContainerFact:
        """Raises: NotFound."""
        fact = self._containers.get(key)
        if fact is None:
            raise NotFound(f"there is no container {key[1]} of {key[0]}")
        return fact

    def _power_cut(self) -> None:
        for key in sorted(self._containers):
            self.end(key)


class SimContainers:
    """The `Containers` port of one process on a machine."""

    def __init__(self, engine: Engine, process: Alive) -> None:
        self._engine = engine
        self._process = process

    async def present(self) -> tuple[ContainerFact, ...]:
        """See `Containers.present`. Takes no time."""
        await self._ready()
        return self._engine.facts()

    async def pull(self, image: str) -> None:
        """See `Containers.pull`. Raises `Unavailable` also when the registry cannot be reached."""
        await self._ready()
        engine = self._engine
        if engine.has_image(image):
            return
        size = engine.registry.size(image)
        await self._fetch(size)
        engine.keep_image(image, size)

    async def run(self, deployment: DeploymentName, container: Container, fingerprint: str) -> None:
        """See `Containers.run`. The image has to be there: `pull` is what waits for the network."""
        await self._ready()
        self._engine.check_new((deployment, container.name), container.image)
        await self._take(*START_TAKES)
        self._engine.add(ContainerFact(deployment, container.name, container.image, fingerprint, running=True))

    async def start(self, deployment: DeploymentName, name: DeploymentName) -> None:
        """See `Containers.start`."""
        await self._ready()
        self._engine.find((deployment, name))
        await self._take(*START_TAKES)
        self._engine.start((deployment, name))

    async def remove(self, deployment: DeploymentName, name: DeploymentName) -> None:
        """See `Containers.remove`."""
        await self._ready()
        if (deployment, name) in [(fact.deployment, fact.name) for fact in self._engine.facts()]:
            await self._take(*STOP_TAKES)
            self._engine.forget((deployment, name))

    async def _fetch(self, size: int) -> None:
        registry, node = self._engine.registry, self._engine.machine.node
        try:
            await registry.network.transfer(node, registry.node, REQUEST_BYTES)
            await registry.network.transfer(registry.node, node, size)
        except Disconnected as error:
            raise Unavailable(f"the registry: {error}") from error

    async def _take(self, low: Duration, high: Duration) -> None:
        await self._engine.machine.clock.sleep(self._engine.machine.draw(low, high))
        await self._ready()

    async def _ready(self) -> None:
        if not self._process.alive:
            await gone()
        if self._engine.silenced:
            raise Unavailable("the container engine does not answer")

"""Places that count their operations and can be stopped before any of them: what the crashes of enrolment are made of.

The provider, the bus and the folder are the modelled ones; what stops is the program that enrols, never they.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from fleet.adapters.zitadel import ZitadelMint
from fleet.adapters.zitadel_admin import ZitadelAdmin, read_admin_key
from fleet.adapters.zitadel_exchange import Exchange
from fleet.capabilities.clock import Clock
from fleet.capabilities.http import Http, HttpRequest, HttpResponse
from fleet.capabilities.identity import NextKey, PrivateKey
from fleet.contracts.auth import FleetDeviceAuth
from fleet.contracts.errors import NotFound
from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import BUCKETS
from fleet.contracts.permissions import EVERYTHING
from fleet.contracts.records import Enrolment
from fleet.contracts.time import Duration
from fleet.identity.auth import DeviceEnrollmentIntent
from fleet.identity.device_keys import FOLDER, FileDeviceKeys, Open
from fleet.identity.enrolment import Places
from fleet.identity.enrolments import Enrolments
from fleet.secrets.steps import Seen, Steps
from sim.http import HttpServers, SimHttp
from sim.idp import SimIdp
from sim.idp.accounts import User
from sim.keys import SimKeyMaker
from sim.nats import NatsServer, SimBus
from sim.random import SimChance
from sim.world import World
from tests.conformance.conftest import Standing
from tests.fleet.secrets.modelled_folder import ModelledFolder, Stopped

ISSUER = "http://idp.test"
DEVICE = DeviceId("dev-1")


@dataclass
class Budget:
    """Operations that are let through, over all places together; then the program is dead."""

    until: int | None = None
    done: list[str] = field(default_factory=list)

    def step(self, what: str) -> None:
        if self.until is not None and len(self.done) >= self.until:
            raise Stopped(what)
        self.done.append(what)


class CountedHttp:
    """Counts requests; a program may be dead before one is sent, and after it was acted on."""

    def __init__(self, http: Http, budget: Budget) -> None:
        self._http = http
        self._budget = budget

    async def send(self, request: HttpRequest) -> HttpResponse:
        self._budget.step(f"send {request.method} {request.url}")
        response = await self._http.send(request)
        self._budget.step("answer")
        return response


class Counted:
    """Any port with methods that are awaited, each counted before and after."""

    def __init__(self, port: object, budget: Budget, names: tuple[str, ...]) -> None:
        self._port = port
        self._budget = budget
        self._names = names

    def __getattr__(self, name: str) -> object:
        method = getattr(self._port, name)
        if name not in self._names:
            return method

        async def counted(*arguments: object) -> object:
            self._budget.step(f"begin {name}")
            answer = await method(*arguments)
            self._budget.step(f"end {name}")
            return answer

        return counted


class Workshop:
    """A world with a provider and a bus, the folder of one device, and programs that enrol it."""

    def __init__(self, world: World) -> None:
        self.clock: Clock = world.clock
        for node in ("idp", "nats", "operator"):
            world.network.add_node(node)
        keys = SimKeyMaker(world.streams.stream("keys/idp"))
        self.idp = SimIdp(ISSUER, world.clock, keys)
        self.maker = SimKeyMaker(world.streams.stream("keys/devices"))
        self.servers = HttpServers(world.network)
        self.server = self.servers.add(ISSUER, "idp", self.idp.handle)
        self.nats = NatsServer(world.kernel, world.network)
        for spec in BUCKETS:
            self.nats.ensure_bucket(spec)
        self.nats.permit("operator", EVERYTHING)
        self.bus = SimBus(self.nats, "operator", "operator", Standing(), SimChance(world.streams.stream("bus")))
        self.http = SimHttp(self.servers, "operator", Standing(), world.clock)
        self.folder = ModelledFolder()
        self.intent = DeviceEnrollmentIntent(device=DEVICE, issuer=ISSUER, project=self.idp.project)

    async def ready(self) -> None:
        while not self.bus.is_connected():
            await self.clock.sleep(Duration.millis(5))

    def program(self, budget: Budget | None = None) -> tuple[Places, FileDeviceKeys]:
        """One run of the command."""
        counted = budget or Budget()
        http = CountedHttp(self.http, counted)
        key = read_admin_key("the model", self.idp.admin_key)
        admin = ZitadelAdmin(Exchange(http, self.clock, ISSUER), key, self.idp.organization, self.idp.project)
        bus = cast(SimBus, Counted(self.bus, counted, ("get", "update")))
        mint = ZitadelMint(http, self.clock, self.read_key)
        keys = FileDeviceKeys(Path("/"), self.maker, stopping(self.folder, counted))
        return Places(admin, Enrolments(bus), mint, self.clock), keys

    def read_key(self, path: object) -> PrivateKey:
        name = str(path).removeprefix(f"{FOLDER}/")
        if name not in self.folder.names:
            raise NotFound(str(path))
        return PrivateKey(self.folder.names[name].content)

    def user(self) -> User:
        found = self.idp.accounts.named(DEVICE)
        assert found is not None
        return found

    async def record(self) -> Enrolment | None:
        return (await Enrolments(self.bus).read(DEVICE)).record

    async def auth(self) -> FleetDeviceAuth | None:
        return await self.program()[1].auth()

    async def works(self) -> bool:
        """Whether the device as it is gets a token."""
        auth = await self.auth()
        if auth is None:
            return False
        await self.program()[0].mint.mint(auth)
        return True


def stopping(folder: ModelledFolder, budget: Budget) -> Open:
    """Opens the modelled folder so that its operations count as those of the program."""

    @contextmanager
    def opened(path: Path, make: bool) -> Iterator[tuple[Seen, Steps]]:
        budget.step("open")
        with folder.opened(path, make) as (seen, steps):
            yield seen, cast(Steps, _CountedSteps(steps, budget))

    return opened


class _CountedSteps:
    def __init__(self, steps: Steps, budget: Budget) -> None:
        self._steps = steps
        self._budget = budget

    def __getattr__(self, name: str) -> Callable[..., object]:
        operation = getattr(self._steps, name)

        def counted(*arguments: object) -> object:
            self._budget.step(name)
            return operation(*arguments)

        return counted


__all__ = ["DEVICE", "ISSUER", "Budget", "NextKey", "Stopped", "Workshop"]

"""Identities in the virtual world: a provider, the auth callouts, and the desk where devices are enrolled.

The provider is a model; the callout, enrolment and the devices' logins are the production code. There are two callouts,
because an installation has two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from fleet.adapters.nats_jwt import CalloutKeys
from fleet.adapters.token_login import TokenLoginSource
from fleet.adapters.zitadel import ZitadelKeys, ZitadelMint
from fleet.adapters.zitadel_admin import ZitadelAdmin, read_admin_key
from fleet.adapters.zitadel_exchange import Exchange
from fleet.capabilities.clock import Clock
from fleet.capabilities.secrets import SecretStore
from fleet.contracts.errors import FleetError, NotFound
from fleet.contracts.ids import DeviceId
from fleet.contracts.permissions import EVERYTHING
from fleet.contracts.time import Duration, Instant
from fleet.identity import enrolment
from fleet.identity.auth import DEVICE_ROLE, DeviceEnrollmentIntent
from fleet.identity.callout.service import CalloutPorts, run_callout
from fleet.identity.callout.tokens import TokenRules
from fleet.identity.enrolment import Places
from fleet.identity.enrolments import Enrolments
from fleet.identity.reconcile import reconcile
from fleet.roots.logins import CALLOUT_PASSWORD, ENROLMENT_PASSWORD, REGISTRY, callout_keys
from fleet.scores.nats_server import NatsServerConfig
from harness.targets.sim_device_keys import SimDeviceKeys, SimTokenFile, auth_on, key_on
from harness.targets.sim_secret_files import stored_password
from sim.clock import SimClock
from sim.disk import DiskImage
from sim.http import HttpServers, SimHttp
from sim.idp import SimIdp
from sim.kernel import Kernel
from sim.keys import SimKeyMaker
from sim.nats import Callouts, NatsServer, SimBus, SimCallout, TokenText
from sim.network import Link
from sim.process import Process, spawn
from sim.random import SimChance
from sim.world import World

ISSUER: Final = "http://idp.test"
BACK_OFF: Final = Duration.seconds(10)
"""A container that ended by itself is started again after this: the kubelet's first back-off, as it documents it."""
PROVIDER, DESK = "idp", "enrolment"
CALLOUTS: Final = ("callout-0", "callout-1")


class VirtualIdentities:
    """Everything that logins by token need. Also the `IdentityDesk`.

    Args:
        link: of the cluster's nodes.
        disks: answers a device's disk.
        store: where the callouts and the desk have their secrets from.
        crashed: told of the exception that a program ended by.
    """

    def __init__(
        self,
        world: World,
        nats: NatsServer,
        link: Link,
        disks: Callable[[DeviceId], DiskImage],
        store: SecretStore,
        crashed: Callable[[BaseException], None],
    ) -> None:
        self._world = world
        self._nats = nats
        self._disks = disks
        self._store = store
        self._crashed = crashed
        self._clock = SimClock(world.loop)
        self._servers = HttpServers(world.network)
        for node in (PROVIDER, DESK, *CALLOUTS):
            world.network.add_node(node, link)
        nats.callouts = Callouts(world.kernel, world.network, nats.host, self._clock)
        self._idp = SimIdp(ISSUER, self._clock, SimKeyMaker(world.streams.stream("keys/provider")))
        self._server = self._servers.add(ISSUER, PROVIDER, self._idp.handle)
        self._rules = TokenRules(ISSUER, self._idp.project)
        self._programs: dict[str, Process] = {}
        self._keys: dict[DeviceId, SimKeyMaker] = {}
        self._desk: _Desk | None = None

    def login(self, node: str, disk: DiskImage, clock: Clock, process: Process) -> SimLogin:
        """How an agent logs in that runs on a node of the network, with the identity on a disk."""
        http = SimHttp(self._servers, node, process, clock)
        mint = ZitadelMint(http, clock, partial(key_on, disk))
        source = TokenLoginSource(partial(auth_on, disk), mint, clock, SimTokenFile(disk, clock))
        return SimLogin(source, clock, self._world.kernel)

    def let_in(self, config: NatsServerConfig) -> None:
        """Configure the server: the users that there are beside operators and devices, and whom it asks."""
        passwords = {user.name: user.password for user in config.users}
        self._nats.permit(DESK, EVERYTHING, passwords[DESK])
        for name in CALLOUTS:
            self._nats.permit(name, EVERYTHING, passwords[REGISTRY])
        assert self._nats.callouts is not None
        assert config.callout is not None
        self._nats.callouts.keys = config.callout.issuer, config.callout.xkey

    async def start(self, devices: tuple[DeviceId, ...]) -> None:
        """Start the callouts, and enrol the devices, one after the other."""
        self.start_callouts()
        outside = _Outside(self._crashed)
        login = stored_password(self._store, DESK, ENROLMENT_PASSWORD)
        bus = SimBus(self._nats, DESK, DESK, outside, self._chance(DESK), read_password=login)
        http = SimHttp(self._servers, DESK, outside, self._clock)
        exchange = Exchange(http, self._clock, ISSUER)
        key = read_admin_key("the provider's", self._idp.admin_key)
        admin = ZitadelAdmin(exchange, key, self._idp.organization, self._idp.project)
        established: list[None] = []
        bus.on_session(lambda: established.append(None))
        while not established:
            await self._clock.sleep(enrolment.BETWEEN_TRIES)
        self._desk = _Desk(admin, Enrolments(bus), http)
        for device in devices:
            await enrolment.enroll(self._intent(device), self._device_keys(device), self._places(device))

    # --- the desk

    async def revoke(self, device: DeviceId) -> None:
        """See `IdentityDesk`."""
        await enrolment.revoke(device, "lost", self._places(device))

    async def re_enroll(self, device: DeviceId) -> None:
        """See `IdentityDesk`."""
        await enrolment.re_enroll(self._intent(device), self._device_keys(device), self._places(device))

    async def rotate_key(self, device: DeviceId) -> None:
        """See `IdentityDesk`."""
        await enrolment.rotate_key(self._intent(device), self._device_keys(device), self._places(device))

    async def reconcile(self) -> None:
        """See `IdentityDesk`."""
        assert self._desk is not None
        await reconcile(self._desk.admin, self._desk.enrolments, DEVICE_ROLE)

    # --- faults

    def stop_provider(self) -> Callable[[], None]:
        """Nobody answers there any more; what it answers begins it again. Raises: NotFound when it is down already."""
        if not self._server.up:
            raise NotFound("the identity provider does not run")
        self._server.up = False
        return self._start_provider

    def stop_callouts(self) -> Callable[[], None]:
        """kill -9 of every callout; what it answers starts them again. Raises: NotFound when none runs."""
        if not self._programs:
            raise NotFound("no auth callout runs")
        for process in tuple(self._programs.values()):
            process.kill()
        return self.start_callouts

    def rotate_signing_keys(self) -> None:
        """The provider signs with a new key and publishes no other."""
        signing = self._idp.signing
        old = [str(key["kid"]) for key in signing.published()]
        signing.activate(signing.create())
        for key in old:
            signing.remove(key)

    def start_callouts(self) -> None:
        """Start those that do not run."""
        for name in CALLOUTS:
            if name not in self._programs:
                self._programs[name] = spawn(self._world.loop, name, partial(self._callout, name), self._ended)

    def _start_provider(self) -> None:
        self._server.up = True

    async def _callout(self, name: str, process: Process) -> int:
        own = await self._keys_of_callout()
        login = stored_password(self._store, name, CALLOUT_PASSWORD)
        bus = SimBus(self._nats, name, name, process, self._chance(name), read_password=login)
        callouts = self._nats.callouts
        assert callouts is not None
        wire = SimCallout(callouts, name, process, lambda: self._nats.up, (own.issuer, own.xkey))
        keys = ZitadelKeys(SimHttp(self._servers, name, process, self._clock), self._clock, ISSUER)
        try:
            await run_callout(CalloutPorts(self._clock, wire, bus, keys), self._rules, process.stop)
        finally:
            await bus.close()
        return 0

    async def _keys_of_callout(self) -> CalloutKeys:
        """A callout ends when it cannot read its keys, and is started again: here that is one process."""
        while True:
            try:
                return await callout_keys(self._store)
            except FleetError:
                await self._clock.sleep(BACK_OFF)

    def _ended(self, process: Process, code: int) -> None:
        del self._programs[process.name]
        if process.error is not None:
            self._crashed(process.error)

    def _intent(self, device: DeviceId) -> DeviceEnrollmentIntent:
        return DeviceEnrollmentIntent(device=device, issuer=ISSUER, project=self._idp.project)

    def _device_keys(self, device: DeviceId) -> SimDeviceKeys:
        maker = self._keys.get(device)
        if maker is None:
            maker = self._keys[device] = SimKeyMaker(self._world.streams.stream(f"keys/{device}"))
        return SimDeviceKeys(self._disks(device), maker)

    def _chance(self, name: str) -> SimChance:
        return SimChance(self._world.streams.stream(name))

    def _places(self, device: DeviceId) -> Places:
        """Where the steps of one device's enrolment are done: only its own disk holds its keys."""
        assert self._desk is not None
        mint = ZitadelMint(self._desk.http, self._clock, partial(key_on, self._disks(device)))
        return Places(self._desk.admin, self._desk.enrolments, mint, self._clock)


@dataclass(frozen=True, slots=True)
class _Desk:
    admin: ZitadelAdmin
    enrolments: Enrolments
    http: SimHttp


class SimLogin:
    """A `TokenLoginSource` as the model of a connection wants it. `__call__` raises: FleetError."""

    def __init__(self, source: TokenLoginSource, clock: Clock, kernel: Kernel) -> None:
        self._source = source
        self._clock = clock
        self._kernel = kernel

    async def __call__(self) -> TokenText:
        login = await self._source.read()
        left = login.expires - self._clock.monotonic()
        return TokenText(login.text, Instant(self._kernel.now + left))

    def turned_away(self) -> None:
        """See `LoginSource`."""
        self._source.turned_away()


class _Outside:
    """Who enrols is outside the world, and never dies in it."""

    alive = True

    def __init__(self, crashed: Callable[[BaseException], None]) -> None:
        self.crash = crashed

    def on_death(self, callback: Callable[[], None]) -> None:
        """It does not die."""

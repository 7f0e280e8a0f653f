"""The identity providers of the suite: the model in a virtual world, and real ones on loopback.

A real one is started once for all tests, by the command that the documentation names; so every test uses names of its
own.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from joserfc import jwt
from joserfc.jwk import KeySet

from fleet.adapters.clock import WallClock
from fleet.adapters.http_client import HttpClient
from fleet.adapters.zitadel import Account, JwtProfile, ZitadelKeys, signing_key
from fleet.adapters.zitadel_admin import AdminKey, ZitadelAdmin, read_admin_key
from fleet.adapters.zitadel_exchange import Exchange
from fleet.adapters.zitadel_shapes import OWN_API, ROLES
from fleet.capabilities.clock import Clock
from fleet.capabilities.http import Http, HttpRequest, HttpResponse
from fleet.capabilities.identity import KeyMaker, MachineUser, PrivateKey, Token
from fleet.contracts.ids import DeviceId
from fleet.contracts.time import Duration, Instant
from harness.targets.idp.install import HERE
from harness.targets.idp.process import Provider, command_line, provider_in
from sim.http import HttpServer, HttpServers, SimHttp
from sim.idp import SimIdp
from sim.keys import SimKeyMaker
from sim.random import Random
from sim.world import World
from tests.conformance.conftest import Standing

Json = Mapping[str, object]
A_YEAR: Final = Duration.minutes(60 * 24 * 365)
_numbers = itertools.count(1)


class Place(Protocol):
    """What only the place knows: how to do what no request can."""

    async def expire(self, lab: Lab, user_code: str) -> None:
        """Let a device code be over."""
        ...

    async def restart(self) -> None:
        """Stop the provider and start it again."""
        ...


@dataclass(frozen=True)
class Lab:
    """One provider, and the production clients at it."""

    clock: Clock
    http: Http
    keys: KeyMaker
    issuer: str
    organization: str
    project: str
    client: str
    person: str
    admin_key: AdminKey
    place: Place

    def device(self) -> DeviceId:
        """A name that no other test has."""
        return DeviceId(f"dev-{next(_numbers)}-{int(self.clock.wall()) % 10**9}")

    def exchange(self) -> Exchange:
        return Exchange(self.http, self.clock, self.issuer)

    def admin(self) -> ZitadelAdmin:
        return ZitadelAdmin(self.exchange(), self.admin_key, self.organization, self.project)

    def scopes(self) -> tuple[str, ...]:
        return ("openid", f"urn:zitadel:iam:org:project:id:{self.project}:aud", ROLES)

    async def enrolled(self, role: str | None = "fleet-device") -> Enrolled:
        """A device with a key."""
        admin, device, key = self.admin(), self.device(), self.keys.make()
        user = await admin.create_device_user(device)
        await admin.use_jwt_tokens(user)
        number = await admin.add_key(user.id, self.keys.public(key), await admin.now() + A_YEAR)
        if role is not None:
            await admin.grant_role(user.id, role)
        return Enrolled(admin, user, number, key)

    async def mint(self, who: Enrolled, exchange: Exchange | None = None) -> Token:
        account = Account(who.user.id, who.key, self.scopes())
        return await JwtProfile(exchange or self.exchange()).token(account, who.private)

    async def assertion(self, who: Enrolled, claims: Json, headers: Json | None = None) -> HttpResponse:
        """Ask for a token with an assertion of one's own making."""
        exchange = self.exchange()
        await exchange.discover()
        now = exchange.now() // 10**9
        usual = {"iss": who.user.id, "sub": who.user.id, "aud": self.issuer, "iat": now - 30, "exp": now + 270}
        head = {"alg": "RS256", "kid": who.key, **(headers or {})}
        text = jwt.encode(head, {**usual, **claims}, signing_key(who.private), ["RS256"])
        body = f"grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&scope=openid&assertion={text}"
        return await self.token(body)

    async def token(self, form: str) -> HttpResponse:
        headers = (("Content-Type", "application/x-www-form-urlencoded"),)
        return await self.http.send(HttpRequest("POST", f"{self.issuer}/oauth/v2/token", headers, form.encode()))

    async def claims(self, token: Token) -> Json:
        """What a token says, verified offline as the auth callout does."""
        keys = KeySet.import_key_set(json.loads(await ZitadelKeys(self.http, self.clock, self.issuer).fetch()))
        return jwt.decode(token.text, keys, ["RS256"]).claims

    async def as_admin(self, method: str, path: str, body: Json | None = None) -> Json:
        """A request that the product never sends: what a person or a rehearsal does."""
        account = Account(self.admin_key.user, self.admin_key.key, ("openid", OWN_API))
        token = await JwtProfile(self.exchange()).token(account, self.admin_key.private)
        headers = (("Authorization", f"Bearer {token.text}"), ("Content-Type", "application/json"))
        answer = await self.http.send(
            HttpRequest(method, f"{self.issuer}{path}", headers, json.dumps(body or {}).encode())
        )
        assert answer.status == 200, (path, answer.status, answer.body)
        found = json.loads(answer.body)
        assert isinstance(found, dict)
        return found

    async def person_says(self, user_code: str, decision: Json) -> None:
        """Confirm or deny a sign-in, as a rehearsal without a browser does."""
        found = await self.as_admin("GET", f"/v2/oidc/device_authorization/{user_code}")
        waiting = found["deviceAuthorizationRequest"]
        assert isinstance(waiting, dict)
        await self.as_admin("POST", f"/v2/oidc/device_authorization/{waiting['id']}", decision)


@dataclass(frozen=True)
class Enrolled:
    """A device's user and its key."""

    admin: ZitadelAdmin
    user: MachineUser
    key: str
    private: PrivateKey


Story = Callable[[Lab], Awaitable[None]]


class SimPlace:
    """The model."""

    def __init__(self, idp: SimIdp, server: HttpServer, clock: Clock) -> None:
        self._idp = idp
        self._server = server
        self._clock = clock

    async def expire(self, lab: Lab, user_code: str) -> None:
        self._idp.codes.of_user(user_code).expires = self._clock.wall()

    async def restart(self) -> None:
        self._server.up = False
        await self._clock.sleep(Duration.seconds(3))
        self._server.up = True


def on_sim(tell: Story) -> None:
    """Tell it in a world of its own."""

    async def told(lab: Lab) -> None:
        await tell(lab)

    with World(1) as world:
        issuer, clock = "http://idp.test", world.clock
        for node in ("idp", "client"):
            world.network.add_node(node)
        servers, keys = HttpServers(world.network), SimKeyMaker(world.streams.stream("keys/idp"))
        idp = SimIdp(issuer, clock, keys)
        lab = Lab(
            clock=clock,
            http=SimHttp(servers, "client", Standing(), clock),
            keys=SimKeyMaker(world.streams.stream("keys/devices")),
            issuer=issuer,
            organization=idp.organization,
            project=idp.project,
            client=idp.client,
            person=idp.person.name,
            admin_key=read_admin_key("the model", idp.admin_key),
            place=SimPlace(idp, servers.add(issuer, "idp", idp.handle), clock),
        )
        world.run(told(lab))


class RealPlace:
    """A stand-in on loopback, run by the documented command."""

    def __init__(self, engine: str, folder: Path) -> None:
        self.engine = engine
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self.provider = self.start()

    def start(self) -> Provider:
        leash = (sys.executable, "-I", "-S", str(HERE.parent / "local_leash.py"), str(os.getpid()))
        self._process = subprocess.Popen(
            (*leash, *command_line(self.engine, self._folder, self._port)),
            cwd=HERE.parents[2],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the stand-in {self.engine} did not start: see its standard error"
        provider = provider_in(line)
        self._port = int(provider.issuer.rpartition(":")[2])
        return provider

    def stop(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.terminate()
        assert self._process.wait(timeout=20) == 0, "it ends in order"
        self._process.stdout.close()

    async def restart(self) -> None:
        self.stop()
        assert self.start() == self.provider

    async def tell(self, story: Story) -> None:
        async with real_lab(self.provider, self) as lab:
            await story(lab)

    async def expire(self, lab: Lab, user_code: str) -> None:
        await lab.as_admin("POST", f"/standin/device_codes/{user_code}/expire")


_KEYS: Final = SimKeyMaker(Random(7))
"""Made at no cost: what the suite asks of providers does not depend on how keys are made."""


class Elsewhere:
    """A stand-in that somebody else runs."""

    async def expire(self, lab: Lab, user_code: str) -> None:
        await lab.as_admin("POST", f"/standin/device_codes/{user_code}/expire")

    async def restart(self) -> None:
        raise NotImplementedError


@asynccontextmanager
async def real_lab(provider: Provider, place: Place | None = None) -> AsyncIterator[Lab]:
    """The production clients at a stand-in on loopback."""
    clock = WallClock()
    http = HttpClient(clock)
    try:
        yield Lab(
            clock=clock,
            http=http,
            keys=_KEYS,
            issuer=provider.issuer,
            organization=provider.organization,
            project=provider.project,
            client=provider.client,
            person=provider.person,
            admin_key=read_admin_key("the stand-in", provider.admin_key_file.read_bytes()),
            place=place or Elsewhere(),
        )
    finally:
        await http.close()


class LyingClock:
    """A clock whose time of day is wrong."""

    def __init__(self, clock: Clock, wrong_by: Duration) -> None:
        self._clock = clock
        self._wrong_by = wrong_by
        self.monotonic = clock.monotonic
        self.sleep = clock.sleep
        self.timeout = clock.timeout

    def wall(self) -> Instant:
        return self._clock.wall() + self._wrong_by

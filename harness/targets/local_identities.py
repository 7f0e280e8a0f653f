"""Identities on real parts: a stand-in for the provider, two auth callouts as processes, and the desk that enrols.

Neither the provider nor the callouts are paced: their times are those of tokens and of the server's patience, which
nothing makes faster. Devices are enrolled by the production code, on the disks where their agents look.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.http_client import HttpClient
from fleet.adapters.nats import NatsBus, PasswordFile
from fleet.adapters.zitadel import Account, JwtProfile, ZitadelKeys, ZitadelMint, key_below
from fleet.adapters.zitadel_admin import SCOPES, ZitadelAdmin, read_admin_key
from fleet.adapters.zitadel_exchange import Exchange
from fleet.capabilities.http import HttpRequest
from fleet.contracts.errors import NotFound, Refused, Unavailable
from fleet.contracts.ids import DeviceId
from fleet.contracts.time import Duration
from fleet.identity import enrolment
from fleet.identity.auth import DEVICE_ROLE, DeviceEnrollmentIntent
from fleet.identity.device_keys import FileDeviceKeys
from fleet.identity.enrolment import Places
from fleet.identity.enrolments import Enrolments
from fleet.identity.keys import RsaKeyMaker
from fleet.identity.reconcile import reconcile
from fleet.roots.logins import REGISTRY
from fleet.scores.nats_server import NatsServerConfig
from harness.targets.idp.install import ENGINES, missing
from harness.targets.idp.process import IdpProcess, Provider
from harness.targets.local_process import Child
from harness.targets.nats_process import NatsProcess, User

CALLOUTS: Final = ("callout-0", "callout-1")
DESK: Final = "enrolment"
_READY: Final = Duration.seconds(60)
_GRACE: Final = Duration.seconds(10)
_LOOK_AGAIN: Final = Duration.millis(20)


def engine() -> str | None:
    """The stand-in that can run on this machine; None when there is none."""
    return next((name for name in ENGINES if missing(name) is None), None)


class LocalIdentities:
    """Everything that logins by token need. Also the `IdentityDesk`. Not started by being made.

    Args:
        roots: the root folder of each device.
        secrets: the folder of the installation's.
        real: not paced.
    """

    def __init__(
        self, folder: Path, nats: NatsProcess, roots: Mapping[DeviceId, Path], secrets: Path, real: WallClock
    ) -> None:
        self._secrets = secrets
        self._folder = folder / "identities"
        self._nats = nats
        self._roots = roots
        self._real = real
        self._parts = AsyncExitStack()
        self._children: dict[str, Child] = {}
        self._desk: _Desk | None = None
        self._idp: IdpProcess | None = None
        self._config = self._folder / "callout.json"

    def logs(self) -> list[Path]:
        """What its programs have said."""
        return [*self._folder.glob("*.log"), *self._folder.glob("idp/*.log")]

    def prepare(self, config: NatsServerConfig) -> None:
        """Have the server that starts after this ask the callouts, as the installation's configuration says."""
        self._folder.mkdir(mode=0o700, parents=True)
        static = {user.name: User(user.name, user.password, user.permissions) for user in config.users}
        assert config.callout is not None
        self._nats.ask(config.callout, (static[DESK], static[REGISTRY]))

    async def start(self) -> None:
        """Start the provider and the callouts, and open the desk. The server runs by now, with its buckets.

        Raises: NotFound when no provider can run on this machine; Unavailable.
        """
        name = engine()
        if name is None:
            raise NotFound(f"no identity provider runs on this machine: {missing(ENGINES[0])}")
        self._idp = IdpProcess(name, self._folder / "idp", self._real)
        self._parts.push_async_callback(self._idp.stop)
        provider = await self._idp.start()
        secrets = {"store": "file", "folder": str(self._secrets)}
        told = {"url": self._nats.url, "issuer": provider.issuer, "project": provider.project, "secrets": secrets}
        self._config.write_text(json.dumps(told), "utf-8")
        self._parts.push_async_callback(self._stop_callouts)
        await self.start_callouts()
        self._desk = await self._open_desk(provider)

    async def stop(self) -> None:
        """End all of it."""
        await self._parts.aclose()

    async def enroll(self, device: DeviceId) -> None:
        """Give a device that was set up its identity."""
        await enrolment.enroll(self._open().intent(device), self._keys(device), self._places(device))

    # --- the desk

    async def revoke(self, device: DeviceId) -> None:
        """See `IdentityDesk`."""
        await enrolment.revoke(device, "lost", self._places(device))

    async def re_enroll(self, device: DeviceId) -> None:
        """See `IdentityDesk`."""
        await enrolment.re_enroll(self._open().intent(device), self._keys(device), self._places(device))

    async def rotate_key(self, device: DeviceId) -> None:
        """See `IdentityDesk`."""
        await enrolment.rotate_key(self._open().intent(device), self._keys(device), self._places(device))

    async def reconcile(self) -> None:
        """See `IdentityDesk`."""
        desk = self._open()
        await reconcile(desk.admin, desk.enrolments, DEVICE_ROLE)

    # --- faults

    async def stop_provider(self) -> None:
        """kill -9. Raises: NotFound when there is none."""
        if self._idp is None:
            raise NotFound("no identity provider runs")
        await self._idp.kill()

    async def start_provider(self) -> None:
        """It runs again, on its port, with all it knew."""
        if self._idp is not None:
            await self._idp.start()

    async def kill_callouts(self) -> None:
        """kill -9 of every one. Raises: NotFound when none runs."""
        if not self._children:
            raise NotFound("no auth callout runs")
        for child in self._children.values():
            child.kill()
            await child.wait()
        self._children.clear()

    async def start_callouts(self) -> None:
        """Start those that do not run, and wait until they take questions."""
        environment = {"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(self._folder)}
        program = (sys.executable, "-m", "fleet", "callout", "run", "--config", str(self._config))
        for name in CALLOUTS:
            if name not in self._children:
                log = self._folder / f"{name}.log"
                begin = log.stat().st_size if log.exists() else 0
                self._children[name] = await Child.start(program, log, environment)
                await self._answers(self._children[name], log, begin)

    async def rotate_signing_keys(self) -> None:
        """The provider signs with a new key and publishes no other."""
        desk = self._open()
        listed = json.loads(await ZitadelKeys(desk.http, self._real, desk.provider.issuer).fetch())
        old = [str(key["kid"]) for key in listed["keys"]]
        made = await self._as_admin("POST", "/v2/web_keys", {"rsa": {}})
        await self._as_admin("POST", f"/v2/web_keys/{made['id']}/activate")
        for key in old:
            await self._as_admin("DELETE", f"/v2/web_keys/{key}")

    # --- parts

    async def _answers(self, child: Child, log: Path, begin: int) -> None:
        try:
            async with self._real.timeout(_READY):
                while b"answers for" not in log.read_bytes()[begin:]:
                    if not child.alive:
                        raise Unavailable(f"the auth callout ended at once: see {log.name}")
                    await self._real.sleep(_LOOK_AGAIN)
        except TimeoutError:
            raise Unavailable(f"the auth callout took no questions within {_READY}: see {log.name}") from None

    async def _stop_callouts(self) -> None:
        await asyncio.gather(*(child.stop(self._real, _GRACE) for child in self._children.values()))

    async def _open_desk(self, provider: Provider) -> _Desk:
        bus = NatsBus(self._nats.url, DESK, PasswordFile(self._nats.login(DESK)), self._real, SystemChance())
        bus.start()
        self._parts.push_async_callback(bus.close)
        http = HttpClient(self._real)
        self._parts.push_async_callback(http.close)
        exchange = Exchange(http, self._real, provider.issuer)
        key = read_admin_key("the provider's key file", provider.admin_key_file.read_bytes())
        admin = ZitadelAdmin(exchange, key, provider.organization, provider.project)
        async with self._real.timeout(_READY):
            while not bus.is_connected():
                await self._real.sleep(_LOOK_AGAIN)
        return _Desk(provider, admin, Enrolments(bus), http)

    def _open(self) -> _Desk:
        if self._desk is None:
            raise Unavailable("the target was not started")
        return self._desk

    def _keys(self, device: DeviceId) -> FileDeviceKeys:
        return FileDeviceKeys(self._roots[device], RsaKeyMaker())

    def _places(self, device: DeviceId) -> Places:
        desk = self._open()
        mint = ZitadelMint(desk.http, self._real, key_below(self._roots[device]))
        return Places(desk.admin, desk.enrolments, mint, self._real)

    async def _as_admin(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        """A request that the product never sends: what a person does at the provider's own console."""
        desk = self._open()
        return await desk.as_admin(method, path, body or {}, self._real)


@dataclass(frozen=True, slots=True)
class _Desk:
    provider: Provider
    admin: ZitadelAdmin
    enrolments: Enrolments
    http: HttpClient

    def intent(self, device: DeviceId) -> DeviceEnrollmentIntent:
        return DeviceEnrollmentIntent(device=device, issuer=self.provider.issuer, project=self.provider.project)

    async def as_admin(self, method: str, path: str, body: Mapping[str, object], clock: WallClock) -> dict[str, object]:
        key = read_admin_key("the provider's key file", self.provider.admin_key_file.read_bytes())
        token = await JwtProfile(Exchange(self.http, clock, self.provider.issuer)).token(
            Account(key.user, key.key, SCOPES), key.private
        )
        headers = (("Authorization", f"Bearer {token.text}"), ("Content-Type", "application/json"))
        request = HttpRequest(method, f"{self.provider.issuer}{path}", headers, json.dumps(body).encode())
        answer = await self.http.send(request)
        if answer.status != 200:
            raise Refused(f"{path}: the provider answered with status {answer.status}")
        found = json.loads(answer.body)
        if not isinstance(found, dict):
            raise Refused(f"{path}: the provider's answer cannot be read")
        return found

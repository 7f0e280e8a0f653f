"""The commands about identities: `fleet login`, and of `fleet device` all but `show` and `create`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar, assert_never

import typer
from rich.console import Console

from fleet.adapters.clock import WallClock
from fleet.adapters.http_client import HttpClient
from fleet.adapters.zitadel import ZitadelMint, key_below
from fleet.adapters.zitadel_admin import AdminKey, ZitadelAdmin, read_admin_key
from fleet.adapters.zitadel_exchange import Exchange
from fleet.adapters.zitadel_people import DeviceCodeLogin
from fleet.commands import enrolments as fleet_enrolments
from fleet.commands.config import FleetConfig, IdentityConfig, load
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId
from fleet.identity.auth import AdminAuth, DeviceEnrollmentIntent, KeyInFile, KeyInSecret
from fleet.identity.device_keys import FOLDER, FileDeviceKeys
from fleet.identity.enrolment import Places, re_enroll, revoke, rotate_key
from fleet.identity.enrolments import Enrolments
from fleet.identity.keys import RsaKeyMaker
from fleet.identity.reconcile import Reconciled, Unclear, reconcile
from fleet.roots.bus import Connection, with_connection
from fleet.roots.secrets import secret_store
from fleet.scores.enroll import DeviceAlreadyEnrolled, DeviceEnrolled, FleetDeviceEnrollScore, interpret

T = TypeVar("T")

PEOPLE: Final = ("openid", "profile")

ConfigFile = Annotated[Path, typer.Option("--config", help="JSON file that says where the bus and the provider are.")]
Root = Annotated[
    Path, typer.Option(help="Where the device's / is: the device itself, or its card mounted on another machine.")
]


@dataclass(frozen=True, slots=True)
class _Work:
    """One run of a command that is about the identity of one device."""

    score: FleetDeviceEnrollScore
    keys: FileDeviceKeys
    places: Places

    @property
    def intent(self) -> DeviceEnrollmentIntent:
        return self.score.intent


def register(device_command: typer.Typer, command: typer.Typer) -> None:
    """Add the commands."""
    device_command.command("enroll")(_enroll)
    device_command.command("list")(_list)
    device_command.command("revoke")(_revoke)
    device_command.command("rotate-key")(_rotate)
    device_command.command("re-enroll")(_re_enroll)
    device_command.command("reconcile")(_reconcile)
    command.command("login")(_login)


def _enroll(name: str, config: ConfigFile, root: Root = Path("/")) -> None:
    """Give a device its identity; run on the device, where its private key is made and stays.

    Running it again finishes what was not finished, and changes nothing where everything stands.
    """

    async def work(run: _Work) -> None:
        match await interpret(run.score, run.keys, run.places):
            case DeviceEnrolled(auth):
                print(f"device {name} enrolled as user {auth.user} with key {auth.key}")
            case DeviceAlreadyEnrolled(auth):
                print(f"device {name} is enrolled already, as user {auth.user} with key {auth.key}")

    _with_device(name, config, root, work)


def _rotate(name: str, config: ConfigFile, root: Root = Path("/")) -> None:
    """Give a device another key, on the device. It uses the new one from its next login; the old one is removed."""

    async def work(run: _Work) -> None:
        auth = await rotate_key(run.intent, run.keys, run.places)
        print(f"device {name} has key {auth.key}")

    _with_device(name, config, root, work)


def _re_enroll(name: str, config: ConfigFile, root: Root = Path("/")) -> None:
    """Admit a device again, on the device, with another key. Nothing that it had before is good any more."""

    async def work(run: _Work) -> None:
        auth = await re_enroll(run.intent, run.keys, run.places)
        print(f"device {name} enrolled again as user {auth.user} with key {auth.key}")

    _with_device(name, config, root, work)


def _revoke(
    name: str, config: ConfigFile, reason: Annotated[str, typer.Option(help="For people; kept in the record.")] = ""
) -> None:
    """Refuse a device from now on: its connection is cut, its tokens are no good on the bus, it gets no new ones."""

    async def work(made: Connection, places: Places) -> None:
        await revoke(DeviceId(name), reason, places)
        print(f"device {name} is revoked")

    DeviceId(name)
    _with_places(load(config), Path("/"), work)


def _reconcile(
    config: ConfigFile,
    only_look: Annotated[bool, typer.Option("--only-look", help="Say what is; change nothing.")] = False,
) -> None:
    """After the bus was restored from an older store: admit and revoke what the provider knows and the bus does not.

    Exits with 1 while anything is left that only a person can decide.
    """
    told = load(config)
    found: list[Reconciled] = []

    async def work(made: Connection, places: Places) -> None:
        found.append(await reconcile(places.idp, places.enrolments, _identity(told).role, only_look))

    _with_places(told, Path("/"), work)
    (seen,) = found
    fleet_enrolments.show_reconciled(seen, only_look, Console())
    if seen.unreadable or any(isinstance(finding, Unclear) for finding in seen.findings):
        raise typer.Exit(1)


def _list(
    config: ConfigFile, as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False
) -> None:
    """Show which user each device is, and whether it is let in."""
    seen = with_connection(load(config), lambda made: fleet_enrolments.collect(Enrolments(made.bus)))
    if as_json:
        print(seen.to_json())
    else:
        fleet_enrolments.show(seen, Console())


def _login(
    config: ConfigFile,
    save: Annotated[Path | None, typer.Option(help="Where the token is kept; else token.json beside --config.")] = None,
) -> None:
    """Sign in as a person: confirm a code in any browser."""
    told = load(config)
    identity = _identity(told)
    if identity.app is None:
        raise InvalidValue('nothing says as which app people sign in: add "app" to "identity" in --config')
    asyncio.run(_signed_in(identity, identity.app, save or config.parent / "token.json"))


async def _signed_in(identity: IdentityConfig, app: str, file: Path) -> None:
    clock = WallClock()
    http = HttpClient(clock)
    try:
        login = DeviceCodeLogin(Exchange(http, clock, identity.issuer), app, PEOPLE)
        begun = await login.begin()
        print(f"open {begun.where_complete} and confirm {begun.user_code}", flush=True)
        token = await login.finish(begun)
    finally:
        await http.close()
    ends = clock.wall() + (token.expires - clock.monotonic())
    _write_private(file, json.dumps({"access_token": token.text, "expires": ends.utc()}))
    print(f"signed in until {ends.utc()}")


# --- what is chosen here ------------------------------------------------------------------------------


def _with_device(name: str, config: Path, root: Path, work: Callable[[_Work], Awaitable[None]]) -> None:
    told = load(config)
    identity = _identity(told)
    intent = DeviceEnrollmentIntent(
        device=DeviceId(name), issuer=identity.issuer, project=identity.project, role=identity.role
    )
    score = FleetDeviceEnrollScore(intent=intent, admin=_admin(identity))
    _prepare(root)

    async def with_device(made: Connection, places: Places) -> None:
        await work(_Work(score, FileDeviceKeys(root, RsaKeyMaker()), places))

    _with_places(told, root, with_device)


def _with_places(config: FleetConfig, root: Path, work: Callable[[Connection, Places], Awaitable[None]]) -> None:
    async def with_bus(made: Connection) -> None:
        async with _places(config, made, root) as places:
            await work(made, places)

    with_connection(config, with_bus)


@asynccontextmanager
async def _places(config: FleetConfig, made: Connection, root: Path) -> AsyncIterator[Places]:
    identity = _identity(config)
    key = await _admin_key(config, _admin(identity))
    http = HttpClient(made.clock)
    try:
        exchange = Exchange(http, made.clock, identity.issuer)
        admin = ZitadelAdmin(exchange, key, identity.organization, identity.project)
        mint = ZitadelMint(http, made.clock, key_below(root))
        yield Places(admin, Enrolments(made.bus), mint, made.clock)
    finally:
        await http.close()


async def _admin_key(config: FleetConfig, admin: AdminAuth) -> AdminKey:
    match admin.key:
        case KeyInFile(path=path):
            try:
                return read_admin_key(str(path), Path(path).read_bytes())
            except OSError as error:
                raise InvalidValue(f"{path} cannot be read: {error.strerror}") from error
        case KeyInSecret(name=name):
            async with secret_store(config.secrets) as store:
                return read_admin_key(f"secret {name}", (await store.read(name)).value)
        case _:
            assert_never(admin.key)


def _admin(identity: IdentityConfig) -> AdminAuth:
    return AdminAuth(issuer=identity.issuer, organization=identity.organization, key=identity.admin)


def _identity(config: FleetConfig) -> IdentityConfig:
    if config.identity is None:
        raise InvalidValue('nothing says where the identity provider is: add "identity" to --config')
    return config.identity


def _prepare(root: Path) -> None:
    """Make the folder of the agent, where the root looks like that of a device."""
    if not (root / "etc").is_dir():
        raise InvalidValue(f"{root} has no folder etc: --root is the / of a device")
    (root / str(FOLDER.parent).lstrip("/")).mkdir(mode=0o755, exist_ok=True)


def _write_private(path: Path, text: str) -> None:
    """Mode 0600, whatever stood there; whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        os.replace(beside, path)
    except OSError as error:
        raise InvalidValue(f"{path} cannot be written: {error.strerror}") from error

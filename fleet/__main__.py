"""The `fleet` command: chooses the adapters, and starts the operator or talks to its objects.

Exit codes: 0 done, 1 it failed (the reason is on standard error), 2 the input was wrong and nothing was done.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer
import uvicorn
from pydantic import ValidationError
from rich.console import Console

from fleet.adapters.clock import WallClock
from fleet.adapters.nats_admin import NatsAdmin
from fleet.commands import device as fleet_device
from fleet.commands import rollout as fleet_rollout
from fleet.commands import secrets as fleet_secrets
from fleet.commands import status as fleet_status
from fleet.commands import tables, words
from fleet.commands.config import (
    FleetConfig,
    ReleasesConfig,
    explain,
    load,
    replica_name,
)
from fleet.contracts.errors import FleetError, InvalidValue
from fleet.contracts.ids import Architecture, DeploymentName, DeviceId, ObjectName, Version
from fleet.contracts.layout import BUCKETS
from fleet.contracts.objects import Device, HaltOnly, Metadata, Object, RollBackGroup, RunState, Selector
from fleet.contracts.podman import Container, PodmanScore
from fleet.contracts.time import Duration
from fleet.operator.loop import run_operator
from fleet.operator.ports import OperatorConfig, OperatorPorts
from fleet.releases.build import RUNNING_PYTHON, build
from fleet.releases.defects.catalogue import Misbehaviour
from fleet.releases.defects.catalogue import find as find_defect
from fleet.releases.faulty import build_faulty
from fleet.releases.server import app as release_app
from fleet.roots import identity as identity_commands
from fleet.roots.bus import Connection, connection, with_connection
from fleet.roots.callout import callout_command
from fleet.roots.secrets import secret_store
from fleet.scores import podman, upgrade
from fleet.scores.outcome import Changed, Created, Unchanged, ensure
from fleet.scores.upgrade import AgentUpgradeScore
from fleet.secrets.given import content_of, keep
from fleet.secrets.registry import SecretMade
from fleet.secrets.registry import install as install_secrets
from fleet.secrets.registry import rotate as rotate_secret
from fleet.secrets.store import Secrets

T = TypeVar("T")
O = TypeVar("O", bound=Object)  # noqa: E741 - the one-letter name of the type variable, as in the ports

FAILED, WRONG_INPUT = 1, 2

command = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Operate a fleet of devices."
)
operator_command = typer.Typer(no_args_is_help=True, help="The operator.")
release_command = typer.Typer(no_args_is_help=True, help="Releases of the agent.")
rollout_command = typer.Typer(no_args_is_help=True, help="Rollouts of a release.")
deployment_command = typer.Typer(no_args_is_help=True, help="Workloads on devices.")
device_command = typer.Typer(no_args_is_help=True, help="Devices of the fleet.")
bus_command = typer.Typer(no_args_is_help=True, help="The message bus.")
secret_command = typer.Typer(no_args_is_help=True, help="Secrets of the installation. No value is ever shown.")
command.add_typer(operator_command, name="operator")
command.add_typer(release_command, name="release")
command.add_typer(rollout_command, name="rollout")
command.add_typer(deployment_command, name="deployment")
command.add_typer(device_command, name="device")
command.add_typer(bus_command, name="bus")
command.add_typer(secret_command, name="secret")
command.add_typer(callout_command, name="callout")
identity_commands.register(device_command, command)

ConfigFile = Annotated[Path, typer.Option("--config", help="JSON file that says where the bus and the releases are.")]
Labels = Annotated[list[str] | None, typer.Option("--label", help="name=value; may be given several times.")]


def main() -> None:
    """Entry point."""
    try:
        command()
    except InvalidValue as error:
        _complain(str(error), WRONG_INPUT)
    except ValidationError as error:
        _complain(explain(error), WRONG_INPUT)
    except FleetError as error:
        _complain(str(error) or type(error).__name__, FAILED)


def _complain(text: str, code: int) -> None:
    print(f"fleet: {text}", file=sys.stderr)
    sys.exit(code)


# --- what is chosen here ------------------------------------------------------------------------------


def _with_secrets(config: FleetConfig, work: Callable[[Secrets], Awaitable[T]]) -> T:
    async def whole() -> T:
        async with secret_store(config.secrets) as store:
            return await work(store)

    return asyncio.run(whole())


# --- operator -----------------------------------------------------------------------------------------


@operator_command.command("run")
def operator_run(
    config: ConfigFile,
    replica: Annotated[
        str | None,
        typer.Option(
            help="Name of this replica in the lease; each that runs needs its own. "
            "Else `replica` of --config, else the host's name."
        ),
    ] = None,
) -> None:
    """Run the operator until it is told to stop (SIGTERM, SIGINT).

    Any number of replicas may run: the one that holds the lease acts, the others stand by. A replica that lost the
    lease ends with code 75 and is to be started again.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    told = load(config)
    raise typer.Exit(asyncio.run(_operate(told, replica_name(replica, told, socket.gethostname()))))


async def _operate(config: FleetConfig, replica: ObjectName) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with connection(config) as made, _serving(config.releases):
        ports = OperatorPorts(made.clock, made.chance, made.bus, made.objects)
        return await run_operator(ports, OperatorConfig(replica=replica), stop)


class _ReleaseServer(uvicorn.Server):
    """A server that leaves signals to the program it is part of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _serving(releases: ReleasesConfig | None) -> AsyncIterator[None]:
    """Serve releases meanwhile, in this process and on this loop."""
    if releases is None:
        yield
        return
    application = release_app(releases.folder)
    with _bound(releases) as listening:
        logging.getLogger("fleet.releases").info("releases are served on port %s", listening.getsockname()[1])
        settings = uvicorn.Config(application, log_config=None, access_log=False, lifespan="off")
        server = _ReleaseServer(settings)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listening]))
            try:
                yield
            finally:
                server.should_exit = True


def _bound(releases: ReleasesConfig) -> socket.socket:
    try:
        return socket.create_server((releases.host, releases.port))
    except OSError as error:
        where = f"{releases.host}:{releases.port}"
        raise InvalidValue(f"releases cannot be served on {where}: {error.strerror}") from error


# --- objects ------------------------------------------------------------------------------------------


@command.command()
def status(
    config: ConfigFile, as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False
) -> None:
    """Show devices, deployments, rollouts and unreadable entries."""
    seen = with_connection(load(config), lambda made: fleet_status.collect(made.bus, made.objects))
    if as_json:
        print(seen.to_json())
    else:
        tables.show(seen, Console())


@rollout_command.command("create")
def rollout_create(
    name: str,
    config: ConfigFile,
    artefact: Annotated[list[Path], typer.Option(help="Release file; one per architecture.")],
    group: Annotated[
        list[str] | None,
        typer.Option(help="NAME[:label=value,…][@COUNT or @SHARE%][+SOAK]; in the order of their turns."),
    ] = None,
    soak: Annotated[str, typer.Option(help="How long each group has to stay healthy before the next begins.")] = "0s",
    max_failed: Annotated[
        str | None, typer.Option(help="COUNT or SHARE% of a group: more failures halt the rollout.")
    ] = None,
    rollback_artefact: Annotated[
        list[Path] | None, typer.Option(help="On a halt, bring the group back to this release file.")
    ] = None,
    window: Annotated[
        list[str] | None, typer.Option(help="When devices may begin, such as 'mon-fri 22:00 4h'. At all times if none.")
    ] = None,
    time_zone: Annotated[str, typer.Option(help="Of the windows, by its IANA name.")] = "UTC",
    releases_url: Annotated[str | None, typer.Option(help="Where devices fetch releases; else from --config.")] = None,
) -> None:
    """Upgrade devices to a release, or change what a rollout of that name asks for."""
    told = load(config)
    served_at = releases_url or (told.releases.url if told.releases is not None else None)
    if served_at is None:
        raise InvalidValue(
            "nothing says where devices fetch releases: give --releases-url, or releases.url in --config"
        )
    back = tuple(words.artefact(file, served_at.rstrip("/")) for file in rollback_artefact or [])
    score = AgentUpgradeScore(
        name=ObjectName(name),
        artefacts=tuple(words.artefact(file, served_at.rstrip("/")) for file in artefact),
        groups=tuple(words.group(text, Duration.parse(soak)) for text in group or ["all"]),
        max_failed=None if max_failed is None else words.tolerance(max_failed),
        on_halt=RollBackGroup(artefacts=back) if back else HaltOnly(),
        windows=words.windows(window or [], time_zone),
    )
    outcome = with_connection(told, lambda made: upgrade.interpret(score, made.objects))
    version, groups = score.artefacts[0].release.version, len(score.groups)
    print(f"rollout {name} {_word(outcome)}: {version} for {groups} group(s)")
    if outcome.object.spec.run is not RunState.RUNNING:
        print(f"it stays {outcome.object.spec.run}")


@rollout_command.command("pause")
def rollout_pause(name: str, config: ConfigFile) -> None:
    """Give no more upgrade slots. Devices that hold one finish."""
    _steer(name, config, RunState.PAUSED)


@rollout_command.command("resume")
def rollout_resume(name: str, config: ConfigFile) -> None:
    """Let a paused rollout go on."""
    _steer(name, config, RunState.RUNNING)


@rollout_command.command("abort")
def rollout_abort(name: str, config: ConfigFile) -> None:
    """End a rollout where it stands. Devices that hold an upgrade slot finish, all others stay as they are."""
    _steer(name, config, RunState.ABORTED)


def _steer(name: str, config: Path, state: RunState) -> None:
    rollout = ObjectName(name)
    outcome = with_connection(load(config), lambda made: upgrade.set_run_state(rollout, state, made.objects))
    now = {RunState.PAUSED: "paused", RunState.RUNNING: "running", RunState.ABORTED: "aborted"}[state]
    print(f"rollout {name} is {'already ' if isinstance(outcome, Unchanged) else ''}{now}")


@rollout_command.command("retry")
def rollout_retry(name: str, config: ConfigFile) -> None:
    """Try the devices that failed again, also those that quarantined the release. Lifts a halt and an abort."""
    rollout = ObjectName(name)
    outcome = with_connection(load(config), lambda made: upgrade.retry(rollout, made.objects))
    print(f"rollout {name} tries again (retry {outcome.object.spec.retry})")


@rollout_command.command("status")
def rollout_status(name: str, config: ConfigFile) -> None:
    """Show a rollout, its groups, and the devices that failed or wait, with reasons."""
    rollout = ObjectName(name)
    seen = with_connection(load(config), lambda made: fleet_rollout.collect(rollout, made.bus, made.objects))
    fleet_rollout.show(seen, Console())


@deployment_command.command("create")
def deployment_create(
    name: str,
    config: ConfigFile,
    image: Annotated[str, typer.Option(help="What to run.")],
    select: Annotated[list[str] | None, typer.Option(help="label=value of the devices; all when not given.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="name=value for the container. No secrets.")] = None,
    argument: Annotated[list[str] | None, typer.Option(help="A word of the container's command.")] = None,
) -> None:
    """Run a container on devices, or change what a deployment of that name asks for."""
    container = Container(
        name=DeploymentName(name),
        image=image,
        command=tuple(argument or ()),
        environment=tuple(words.pairs(env or []).items()),
    )
    score, selector = PodmanScore(containers=(container,)), Selector(match_labels=words.pairs(select or []))
    outcome = with_connection(
        load(config), lambda made: podman.interpret(score, ObjectName(name), selector, made.objects)
    )
    print(f"deployment {name} {_word(outcome)}")


@device_command.command("show")
def device_show(
    name: str, config: ConfigFile, as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False
) -> None:
    """Show everything known of one device: its instances, its upgrade with the reason, its workloads, bad entries."""
    device = DeviceId(name)
    seen = with_connection(load(config), lambda made: fleet_device.collect(device, made.bus, made.objects))
    if as_json:
        print(seen.to_json())
    else:
        fleet_device.show(seen, Console())


@device_command.command("create")
def device_create(name: str, config: ConfigFile, label: Labels = None) -> None:
    """Make a device known to the fleet, or add labels to it."""
    item = Device(metadata=Metadata(name=ObjectName(name), labels=words.pairs(label or [])))
    outcome = with_connection(load(config), lambda made: ensure(made.objects, item))
    print(f"device {name} {_word(outcome)}")


def _word(outcome: Created[O] | Changed[O] | Unchanged[O]) -> str:
    match outcome:
        case Created():
            return "created"
        case Changed():
            return "changed"
        case Unchanged():
            return "unchanged"


# --- installation -------------------------------------------------------------------------------------


@bus_command.command("prepare")
def bus_prepare(config: ConfigFile) -> None:
    """Make the buckets, or check that they stand as they should. Part of the installation."""

    async def work(made: Connection) -> None:
        admin = NatsAdmin(made.bus)
        for spec in BUCKETS:
            await admin.ensure_bucket(spec)

    with_connection(load(config), work)
    print(f"{len(BUCKETS)} buckets stand")


@release_command.command("build")
def release_build(
    version: str,
    folder: Annotated[Path, typer.Option(help="Written to this folder.")],
    architecture: Annotated[Architecture, typer.Option(help="Of the devices.")] = Architecture.AARCH64,
    python: Annotated[str, typer.Option(help="Minor version of the interpreter on the devices.")] = RUNNING_PYTHON,
    defect: Annotated[
        str | None, typer.Option(help="Build a release that misbehaves like this, to see that a fleet survives it.")
    ] = None,
    defect_after: Annotated[
        str | None, typer.Option(help="When the defect shows, such as 30s, for one that takes a time.")
    ] = None,
) -> None:
    """Build the agent of this source as a release."""
    if defect is None:
        if defect_after is not None:
            raise InvalidValue("--defect-after says when a defect shows: it needs --defect")
        built = build(Version(version), architecture, folder, python=python)
    else:
        after = None if defect_after is None else Duration.parse(defect_after)
        misbehaviour = Misbehaviour(find_defect(defect), after)
        built = build_faulty(Version(version), architecture, folder, misbehaviour, python=python)
        print(words.warning(misbehaviour, folder, built.release))
    print(f"{built.path}: {built.release}, {built.size} bytes")


# --- secrets ------------------------------------------------------------------------------------------


@secret_command.command("prepare")
def secret_prepare(config: ConfigFile) -> None:
    """Make the secrets that are missing. Part of the installation; running it again changes nothing."""
    stand = _with_secrets(load(config), install_secrets)
    made = sum(isinstance(item, SecretMade) for item in stand)
    print(f"{len(stand)} secrets stand: {made} made, {len(stand) - made} kept")


@secret_command.command("keep")
def secret_keep(
    name: str, file: Annotated[Path, typer.Argument(help="Remove it afterwards.")], config: ConfigFile
) -> None:
    """Keep what somebody else made, such as the key file of the provider's service account. Overwrites nothing."""
    kept = _with_secrets(load(config), lambda store: keep(store, ObjectName(name), content_of(file)))
    print(f"secret {name} has version {kept.version}")


@secret_command.command("list")
def secret_list(
    config: ConfigFile, as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False
) -> None:
    """Show names, versions and ages. Ends with 1 when a secret is damaged or missing."""
    listed = _with_secrets(load(config), lambda store: fleet_secrets.collect(store, WallClock().wall()))
    if as_json:
        print(listed.to_json())
    else:
        fleet_secrets.show(listed, Console())
    raise typer.Exit(0 if listed.is_whole else FAILED)


@secret_command.command("rotate")
def secret_rotate(
    name: str,
    config: ConfigFile,
    last: Annotated[int, typer.Option(help="The version to replace, as `fleet secret list` shows it.", min=1)],
) -> None:
    """Make a new version of one secret; the one before it is kept. Repeating the command rotates nothing twice."""
    rotated = _with_secrets(load(config), lambda store: rotate_secret(store, ObjectName(name), last))
    print(f"secret {name} has version {rotated.version}")


if __name__ == "__main__":
    main()

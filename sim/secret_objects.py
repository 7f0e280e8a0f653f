"""A stand-in for the Secret objects of a Kubernetes API server. It is not one.

What it takes from the API server are the rules by which two writers do not overwrite each other: a create of a name
that stands is a conflict (409), a replace under another resource version is a conflict (409), one of a name that does
not stand is not found (404), and each write that changes something gives a version that was never used before. A
replace without a version is a conflict here, because nothing of this project asks for an unguarded one. It knows
no access rules, no admission and no size limit. The real server is exercised with the same suite when there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fleet.capabilities.secrets import SecretObject
from fleet.contracts.errors import Conflict, NotFound


class StandInSecretObjects:
    """The SecretObjects port in memory. Any number of clients may share one."""

    def __init__(self) -> None:
        self._items: dict[str, SecretObject] = {}
        self._version = 0

    async def get(self, name: str) -> SecretObject:
        """As the port says."""
        item = self._items.get(name)
        if item is None:
            raise NotFound(f'secrets "{name}" not found')
        return item

    async def create(self, item: SecretObject) -> SecretObject:
        """As the port says."""
        if item.name in self._items:
            raise Conflict(f'secrets "{item.name}" already exists')
        return self._store(item)

    async def replace(self, item: SecretObject) -> SecretObject:
        """As the port says. A replace that changes nothing keeps the version, as on the server."""
        stored = await self.get(item.name)
        if item.resource_version != stored.resource_version:
            raise Conflict(f'secrets "{item.name}": the object has been modified')
        if (item.labels, item.data) == (stored.labels, stored.data):
            return stored
        return self._store(item)

    async def names(self, label: tuple[str, str]) -> tuple[str, ...]:
        """As the port says."""
        key, value = label
        return tuple(sorted(name for name, item in self._items.items() if item.labels.get(key) == value))

    def damage(self, name: str, change: Callable[[dict[str, bytes]], None]) -> None:
        """Change the data of an object behind everybody's back."""
        item = self._items[name]
        data = dict(item.data)
        change(data)
        self._store(replace(item, data=data))

    def remove(self, name: str) -> None:
        """Delete an object, as a person would."""
        del self._items[name]

    def _store(self, item: SecretObject) -> SecretObject:
        self._version += 1
        stored = replace(item, labels=dict(item.labels), data=dict(item.data), resource_version=str(self._version))
        self._items[item.name] = stored
        return stored

"""Secrets as Kubernetes Secret objects: created by a POST that never overwrites, rotated under their resource version.

The fields of a secret are the keys of its data, so that a pod mounts `value` and finds the newest value.
"""

from __future__ import annotations

from typing import Final

from fleet.capabilities.secrets import SecretObject, SecretObjects
from fleet.contracts.ids import ObjectName
from fleet.secrets import codec
from fleet.secrets.documents import Held, Kept

LABEL: Final = ("app.kubernetes.io/managed-by", "harmony-fleet")
PREFIX: Final = "fleet-secret-"


class KubernetesDocuments:
    """Documents as the Secrets of one namespace, each named after its secret behind a prefix.

    Args:
        namespace: for the texts of errors; `objects` is bound to it.
    """

    def __init__(self, objects: SecretObjects, namespace: str) -> None:
        self._objects = objects
        self._namespace = namespace

    async def get(self, name: ObjectName) -> Held:
        """As the port says."""
        item = await self._objects.get(f"{PREFIX}{name}")
        where = f"Secret {self._namespace}/{item.name}"
        if item.labels.get(LABEL[0]) != LABEL[1]:
            raise codec.damaged(where, f"it lacks the label {LABEL[0]}={LABEL[1]}")
        return Held(codec.decode(where, name, item.data), item.resource_version)

    async def create(self, kept: Kept) -> None:
        """As the port says."""
        await self._objects.create(_object(kept, ""))

    async def replace(self, kept: Kept, token: str) -> None:
        """As the port says."""
        await self._objects.replace(_object(kept, token))

    async def names(self) -> tuple[ObjectName, ...]:
        """As the port says. A labelled Secret that is not named like one of ours is none."""
        stems = (name.removeprefix(PREFIX) for name in await self._objects.names(LABEL) if name.startswith(PREFIX))
        return tuple(sorted(ObjectName(stem) for stem in stems if ObjectName.pattern.fullmatch(stem)))


def _object(kept: Kept, resource_version: str) -> SecretObject:
    return SecretObject(f"{PREFIX}{kept.name}", dict([LABEL]), codec.encode(kept), resource_version)

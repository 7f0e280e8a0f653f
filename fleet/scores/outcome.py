"""What can come of asking for an object, and the one way of asking: create it, change it, or leave it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from fleet.capabilities.objects import Objects
from fleet.contracts.errors import Conflict, NotFound
from fleet.contracts.objects import Object

O = TypeVar("O", bound=Object)  # noqa: E741 - the one-letter name of the type variable, as in the ports
O_co = TypeVar("O_co", bound=Object, covariant=True)

_TRIES = 5


@dataclass(frozen=True, slots=True)
class Created(Generic[O_co]):
    """There was none of that name; there is now."""

    object: O_co


@dataclass(frozen=True, slots=True)
class Changed(Generic[O_co]):
    """It asked for something else before."""

    object: O_co


@dataclass(frozen=True, slots=True)
class Unchanged(Generic[O_co]):
    """It asks for exactly that already; nothing was written."""

    object: O_co


async def ensure(objects: Objects, wanted: O) -> Created[O] | Changed[O] | Unchanged[O]:
    """Make the object of that name ask for what `wanted` does; labels that `wanted` does not name are kept.

    Raises:
        Conflict: others kept writing the same object.
        InvalidValue: something unreadable stands under the name.
        Unavailable, TimedOut, Disconnected: running it again is safe.
    """
    for _ in range(_TRIES - 1):
        try:
            return await _try(objects, wanted)
        except (Conflict, NotFound):
            continue
    return await _try(objects, wanted)


async def _try(objects: Objects, wanted: O) -> Created[O] | Changed[O] | Unchanged[O]:
    try:
        stands = await objects.get(type(wanted), wanted.name)
    except NotFound:
        return Created(await objects.create(wanted))
    labels = {**stands.metadata.labels, **wanted.metadata.labels}
    metadata = stands.metadata.model_copy(update={"labels": labels})
    changed = wanted.changed(metadata=metadata)
    if _spec(changed) == _spec(stands) and labels == stands.metadata.labels:
        return Unchanged(stands)
    return Changed(await objects.replace(changed))


def _spec(item: Object) -> object:
    spec: object = getattr(item, "spec")  # noqa: B009 - every kind has one, the base class does not declare it
    return spec

"""How an object changes, whichever store keeps it: what create, replace and replace-status take from the caller.

Kubernetes with the status subresource on: the spec and the status are written apart, the generation grows with the
spec alone, and a change that changes nothing is none.
"""

from __future__ import annotations

from typing import TypeVar

from fleet.contracts.errors import Conflict
from fleet.contracts.objects import Object

O = TypeVar("O", bound=Object)  # noqa: E741 - the one-letter name of the type variable, as in the ports


def created(item: O, uid: str) -> O:
    """A new object as it is stored: its status is that of an object nobody has looked at yet."""
    metadata = item.metadata.model_copy(update={"uid": uid, "generation": 1, "resource_version": ""})
    return item.changed(metadata=metadata, status=type(item).model_fields["status"].default)


def replaced(stored: O, item: O) -> O:
    """`stored` with the labels and the spec of `item`. The very same object when nothing would change.

    Raises:
        Conflict: `item` was not made from `stored`.
    """
    _check_version(stored, item)
    spec, labels = _part(item, "spec"), item.metadata.labels
    if spec == _part(stored, "spec") and labels == stored.metadata.labels:
        return stored
    grown = stored.metadata.generation + (spec != _part(stored, "spec"))
    metadata = stored.metadata.model_copy(update={"labels": labels, "generation": grown})
    return stored.changed(metadata=metadata, spec=spec)


def status_replaced(stored: O, item: O) -> O:
    """`stored` with the status of `item`. The very same object when nothing would change.

    Raises:
        Conflict: `item` was not made from `stored`.
    """
    _check_version(stored, item)
    status = _part(item, "status")
    return stored if status == _part(stored, "status") else stored.changed(status=status)


def at_version(item: O, resource_version: str) -> O:
    """The object with the version the store gave it."""
    return item.changed(metadata=item.metadata.model_copy(update={"resource_version": resource_version}))


def to_json(item: Object) -> bytes:
    """The object as JSON with its wire names."""
    return item.__pydantic_serializer__.to_json(item, by_alias=True)


def _part(item: Object, name: str) -> object:
    part: object = getattr(item, name)
    return part


def _check_version(stored: Object, item: Object) -> None:
    if item.metadata.resource_version != stored.metadata.resource_version:
        raise Conflict(f"{type(item).kind_name} {item.name}: the object was changed since it was read")

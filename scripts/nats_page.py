"""The page docs/reference/nats-layout.md, from the registry of the NATS layout."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Final, get_type_hints

from fleet.contracts import layout, permissions
from fleet.contracts.ids import DeploymentName, DeviceId, Slot
from fleet.contracts.layout import BUCKETS, Address, Bucket, Subject
from fleet.contracts.objects import KINDS
from fleet.contracts.records import Record
from scripts.tables import section

_DEVICE: Final = DeviceId("device")
_PLACEHOLDERS: Final[dict[type, object]] = {
    DeviceId: _DEVICE,
    DeploymentName: DeploymentName("deployment"),
    Slot: Slot.A,
}
_WRITERS: Final = {
    Bucket.DESIRED: "operator",
    Bucket.INFO: "that device",
    Bucket.STATE: "that device",
    Bucket.HEARTBEAT: "that device",
    Bucket.OBJECTS: "people and the operator",
    Bucket.IDENTITY: "enrolment",
}

_HEAD: Final = """\
# NATS layout

This page is generated from `fleet/contracts/layout.py` and `fleet/contracts/permissions.py` by `make docs`.

Every value is a JSON record with a schema version `v`; the records are defined in `fleet/contracts/records.py`. A
reader accepts its own major version only. From a writer one minor version ahead it drops the fields it does not know.
Whatever else stands under a key is skipped, counted and reported, never acted on.
"""


def page() -> str:
    """The whole page."""
    return "\n".join((_HEAD, _buckets(), _keys(), _subjects(), _permissions(), _bounds()))


def _buckets() -> str:
    rows = (
        (
            f"`{spec.bucket}`",
            _WRITERS[spec.bucket],
            str(spec.history),
            "yes" if spec.rollup else "no",
            f"`{spec.republished_to}.<key>`",
        )
        for spec in BUCKETS
    )
    return section("Buckets", "", ("bucket", "writer", "history", "rollup headers", "republished to"), rows)


def _keys() -> str:
    rows = [
        (f"`{address.bucket}`", _shown(address.key), f"`{address.record.__name__}`", _first_line(address.record))
        for address in _called()
        if isinstance(address, Address)
    ]
    rows.append(("`objects`", "`<kind>.<name>`", ", ".join(f"`{kind}`" for kind in KINDS), "The objects people write."))
    return section("Keys", "", ("bucket", "key", "record", "content"), rows)


def _subjects() -> str:
    rows = (
        (_shown(item.name), f"`{item.request.__name__}`", f"`{item.reply.__name__}`", _first_line(item.request))
        for item in _called()
        if isinstance(item, Subject)
    )
    return section("Request and reply", "", ("subject", "request", "reply", "meaning"), rows)


def _permissions() -> str:
    granted = permissions.of_device(_DEVICE)
    rows = [("publish", _shown(subject)) for subject in granted.publish]
    rows += [("subscribe", _shown(subject)) for subject in granted.subscribe]
    return section("What a device may do", "", ("right", "subject"), rows)


def _bounds() -> str:
    return f"A key has at most {layout.MAX_KEY_BYTES} bytes, a value at most {layout.MAX_VALUE_BYTES // 1024} KiB.\n"


def _called() -> Iterator[object]:
    """What each function of the registry names, in the order of the file, with placeholders for its arguments."""
    for name, function in vars(layout).items():
        if not inspect.isfunction(function) or function.__module__ != layout.__name__ or name.startswith("_"):
            continue
        hints = get_type_hints(function)
        answer = hints.pop("return")
        if getattr(answer, "__origin__", answer) in (Address, Subject) and set(hints.values()) <= set(_PLACEHOLDERS):
            yield function(*(_PLACEHOLDERS[kind] for kind in hints.values()))


def _shown(text: str) -> str:
    """A subject or key with its placeholders marked as such."""
    parts = text.replace("_INBOX_device", "_INBOX_<device>").split(".")
    marks = {"device": "<device>", "deployment": "<deployment>", Slot.A.value: "<slot>"}
    return f"`{'.'.join(marks.get(part, part) for part in parts)}`"


def _first_line(record: type[Record]) -> str:
    return (inspect.getdoc(record) or "").splitlines()[0]

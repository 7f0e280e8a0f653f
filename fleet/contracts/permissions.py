"""What each client may do on the bus, as subject patterns: one source for the simulated and the real server.

A device may write its own keys of `info`, `state` and `heartbeat`, read its own keys one by one by direct get,
ask for its upgrade slot, and hear what is meant for it. It can list nothing: the filter of a listing stands in
the body of the request, where no permission reaches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fleet.contracts.ids import DeviceId


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subject patterns one client may publish on and subscribe to. Replies to requests are always allowed."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


EVERYTHING = Permissions(publish=(">",), subscribe=(">",))
"""For the operator, which writes the desired state of all devices, and for the harness."""


DEVICE_ROOT: Final = "_R_."
"""What stands before every subject but inboxes in the account of the devices, on the wire (ADR-030).

Whoever asks chooses where the answer goes, and the server delivers it there without asking what the asker may publish:
a device could have its own record delivered as another device's desired release. The server takes no subject with this
beginning as the address of an answer.
"""

REGISTRY_OF_CALLOUT = Permissions(
    publish=("$JS.API.DIRECT.GET.KV_identity", "$JS.API.DIRECT.GET.KV_identity.>"),
    subscribe=("_INBOX_callout-registry.>", "fleet.identity.>"),
)
"""For the auth callout, where it reads who is which device."""

SYSTEM_OF_CALLOUT = Permissions(
    publish=("$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.SERVER.*.KICK"),
    subscribe=("_INBOX_callout-system.>",),
)
"""For the auth callout in the account of the system, where it cuts connections."""

ENROLMENT = Permissions(
    publish=("$KV.identity.*", "$JS.API.DIRECT.GET.KV_identity", "$JS.API.DIRECT.GET.KV_identity.>"),
    subscribe=("_INBOX_enrolment.>", "fleet.identity.>"),
)
"""For enrolment and revocation, which alone write who is which device."""


def on_the_wire(permissions: Permissions) -> Permissions:
    """The same permissions in the account of the devices, as the server has to be told."""
    return Permissions(
        publish=tuple(DEVICE_ROOT + pattern for pattern in permissions.publish),
        subscribe=tuple(
            pattern if pattern.startswith("_INBOX_") else DEVICE_ROOT + pattern for pattern in permissions.subscribe
        ),
    )


def inbox_prefix(client: str) -> str:
    """The prefix of the subjects on which a client gets its answers: its own, so that no other can listen to them."""
    return f"_INBOX_{client}"


def of_device(device: DeviceId) -> Permissions:
    """What one device may do."""
    return Permissions(
        publish=(
            f"$KV.info.{device}",
            f"$KV.state.{device}.>",
            f"$KV.heartbeat.{device}.>",
            f"$JS.API.DIRECT.GET.KV_desired.$KV.desired.{device}.>",
            f"$JS.API.DIRECT.GET.KV_info.$KV.info.{device}",
            f"$JS.API.DIRECT.GET.KV_state.$KV.state.{device}.>",
            f"fleet.lock.{device}",
        ),
        subscribe=(
            f"{inbox_prefix(device)}.>",
            f"fleet.desired.{device}",
            f"fleet.desired.{device}.>",
            f"fleet.stop.{device}",
        ),
    )

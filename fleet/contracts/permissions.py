"""What each client may do on the bus, as subject patterns: one source for the simulated and the real server.

A device may write its own keys of `info`, `state` and `heartbeat`, read its own keys one by one by direct get,
ask for its upgrade slot, and hear what is meant for it. It can list nothing: the filter of a listing stands in
the body of the request, where no permission reaches.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.contracts.ids import DeviceId


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subject patterns one client may publish on and subscribe to. Replies to requests are always allowed."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


EVERYTHING = Permissions(publish=(">",), subscribe=(">",))
"""For the operator, which writes the desired state of all devices, and for the harness."""


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

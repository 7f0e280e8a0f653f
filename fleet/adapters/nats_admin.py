"""Making buckets: what the installation does and programs must not."""

from __future__ import annotations

import json

from fleet.adapters import nats_messages as messages
from fleet.adapters.nats import NatsBus
from fleet.contracts.errors import Refused, TimedOut, Unavailable
from fleet.contracts.keys import MAX_MESSAGE_BYTES
from fleet.contracts.layout import BucketSpec


class NatsAdmin:
    """The BusAdmin port, over the connection of a client that may use the JetStream API."""

    def __init__(self, bus: NatsBus) -> None:
        self._bus = bus

    async def ensure_bucket(self, spec: BucketSpec) -> None:
        """As the port says. The server itself compares the configurations."""
        request = json.dumps(stream_config(spec)).encode()
        frame = await self._bus.call_api(f"$JS.API.STREAM.CREATE.KV_{spec.bucket.value}", request)
        if messages.is_no_responders(frame):
            raise Unavailable("the server does not offer JetStream now")
        match json.loads(frame.payload):
            case {"error": {"err_code": messages.STREAM_EXISTS}}:
                raise Refused(f"bucket {spec.bucket} exists with another configuration")
            case {"error": dict(error)}:
                raise messages.refusal(error)
            case {"config": dict()}:
                return
            case _:
                raise TimedOut("the server's answer cannot be read")


def stream_config(spec: BucketSpec) -> dict[str, object]:
    """The stream behind a bucket."""
    return {
        "name": f"KV_{spec.bucket.value}",
        "subjects": [f"$KV.{spec.bucket.value}.>"],
        "max_msgs_per_subject": spec.history,
        "max_msg_size": MAX_MESSAGE_BYTES,
        "discard": "new",
        "storage": "file",
        "num_replicas": 1,
        "allow_direct": True,
        "deny_delete": True,
        "allow_rollup_hdrs": spec.rollup,
        "republish": {"src": f"$KV.{spec.bucket.value}.>", "dest": f"{spec.republished_to}.>"},
    }

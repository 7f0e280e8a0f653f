"""What a hostile device tries: as `dev-1`, with a good token of its own, against `dev-2`, the operator and the server.

Subjects are tried both with the root of the devices' account and without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from fleet.contracts.layout import Bucket
from fleet.contracts.permissions import DEVICE_ROOT
from tests.fleet.identity.callout.raw import pub

INBOX = "_INBOX_dev-1.evil"
ROOTS = (DEVICE_ROOT, "")
VICTIM_KEYS = {
    Bucket.DESIRED: ("dev-2.agent", "dev-2.workloads", "dev-1.agent"),
    Bucket.INFO: ("dev-2",),
    Bucket.STATE: ("dev-2.upgrade", "dev-2.workload.web"),
    Bucket.HEARTBEAT: ("dev-2.a",),
    Bucket.OBJECTS: ("device.dev-2",),
    Bucket.IDENTITY: ("dev-2", "dev-1"),
}
TRICKS = ("*", ">", "*.upgrade", "dev-1*", "dev-1*.upgrade", "dev-*.upgrade", "*.*", "dev-1", "DEV-2.upgrade")
HEADERS: tuple[tuple[str, ...], ...] = (
    (),
    ("Nats-Rollup: all",),
    ("Nats-Rollup: sub",),
    ("KV-Operation: DEL",),
    ("KV-Operation: PURGE", "Nats-Rollup: sub"),
    ("Nats-Expected-Last-Subject-Sequence: 1",),
    ("Nats-TTL: 1s",),
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One thing to try.

    Args:
        what: for whoever reads the report.
        frames: what is sent.
        own: an answer about the device's own keys is no breach; only others' are.
        overhears: it is to hear what others say, so that they have to say something.
    """

    what: str
    frames: bytes
    own: bool = False
    overhears: bool = False


def attempts() -> Iterator[Attempt]:
    """All of them."""
    yield from _writes()
    yield from _own_keys_with_hostile_headers()
    yield from _reads()
    yield from _api()
    yield from _system()
    yield from _messages_to_others()
    yield from _answers_sent_elsewhere()
    yield from _subscriptions()


def _asks(what: str, subject: str, body: object = b"", **more: bool) -> Iterator[Attempt]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    for root in ROOTS:
        yield Attempt(f"{what}: {root}{subject}", pub(root + subject, content, INBOX), **more)


def _writes() -> Iterator[Attempt]:
    for bucket, keys in VICTIM_KEYS.items():
        for key in (*keys, *_tricks(bucket)):
            for headers in HEADERS if key in keys else HEADERS[:2]:
                for root in ROOTS:
                    subject = f"{root}$KV.{bucket.value}.{key}"
                    yield Attempt(f"write {subject} {headers}", pub(subject, b"EVIL", INBOX, headers))
                    if not headers:
                        yield Attempt(f"write unacknowledged {subject}", pub(subject, b"EVIL"))


def _tricks(bucket: Bucket) -> tuple[str, ...]:
    """Keys that are somebody's else's; `dev-1` in the bucket `info` is the device's own."""
    return tuple(key for key in TRICKS if (bucket, key) != (Bucket.INFO, "dev-1"))


def _own_keys_with_hostile_headers() -> Iterator[Attempt]:
    """Allowed subjects, whose headers ask for what concerns the whole bucket, or pretend to be the server's."""
    for subject in ("$KV.state.dev-1.upgrade", "$KV.state.dev-1.>", "$KV.info.dev-1", "$KV.heartbeat.dev-1.a"):
        for headers in (
            ("Nats-Rollup: all",),
            ("Nats-Rollup: sub",),
            ("nats-rollup: all",),
            ("Nats-Rollup: sub", "Nats-Rollup: all"),
            ("KV-Operation: PURGE", "Nats-Rollup: all"),
            ("Nats-Subject: $KV.state.dev-2.upgrade", "Nats-Stream: KV_state", "Nats-Sequence: 999999"),
            ("X: y\r\nNats-Rollup: all",),
            ("Nats-Expected-Stream: KV_desired",),
            ("Nats-Msg-Id: 1",),
            ("Nats-Marker-Reason: Purge",),
            ("Nats-Schedule: @at 2026-01-01T00:00:00Z", "Nats-Schedule-Target: $KV.desired.dev-2.agent"),
            ("Nats-Request-Info: {}",),
        ):
            yield Attempt(
                f"own {subject} with {headers}", pub(DEVICE_ROOT + subject, b"EVIL", INBOX, headers), own=True
            )


def _reads() -> Iterator[Attempt]:
    for bucket, keys in VICTIM_KEYS.items():
        api = f"$JS.API.DIRECT.GET.KV_{bucket.value}"
        for key in (*keys, *_tricks(bucket)):
            if (bucket, key) != (Bucket.DESIRED, "dev-1.agent"):
                yield from _asks("read", f"{api}.$KV.{bucket.value}.{key}")
        for body in _read_bodies(bucket):
            yield from _asks(f"read {body}", api, body)
            yield from _asks(f"read {body}", f"$JS.API.STREAM.MSG.GET.KV_{bucket.value}", body)
            own = f"{api}.$KV.{bucket.value}.dev-1.upgrade"
            yield from _asks(f"read by own subject {body}", own, body, own=True)
            crossed = f"{api}.$KV.state.dev-1.upgrade"
            yield from _asks(f"read by own subject of another bucket {body}", crossed, body, own=True)


def _read_bodies(bucket: Bucket) -> tuple[object, ...]:
    below = f"$KV.{bucket.value}."
    return (
        {"last_by_subj": f"{below}{VICTIM_KEYS[bucket][0]}"},
        {"seq": 1},
        {"seq": 1, "next_by_subj": f"{below}>", "batch": 100},
        {"multi_last": [f"{below}>"]},
        {"multi_last": [f"{below}dev-2.>", f"{below}dev-2"], "batch": 10},
    )


def _api() -> Iterator[Attempt]:
    for bucket in Bucket:
        stream = f"KV_{bucket.value}"
        config = {"name": stream, "subjects": [f"$KV.{bucket.value}.>"], "allow_rollup_hdrs": True}
        for verb, body in (
            ("STREAM.INFO", {"subjects_filter": ">"}),
            ("STREAM.INFO", {}),
            ("STREAM.PURGE", {}),
            ("STREAM.PURGE", {"filter": f"$KV.{bucket.value}.dev-2.>"}),
            ("STREAM.DELETE", {}),
            ("STREAM.UPDATE", config),
            ("STREAM.MSG.DELETE", {"seq": 1, "no_erase": False}),
            ("STREAM.SNAPSHOT", {"deliver_subject": INBOX}),
            ("STREAM.RESTORE", {"config": config, "state": {}}),
            ("STREAM.PEER.REMOVE", {"peer": "x"}),
            ("STREAM.LEADER.STEPDOWN", {}),
            ("CONSUMER.LIST", {}),
            ("CONSUMER.NAMES", {}),
        ):
            yield from _asks(f"{body}", f"$JS.API.{verb}.{stream}", body)
        yield from _consumers(bucket, stream)
    for subject in (
        "INFO",
        "STREAM.LIST",
        "STREAM.NAMES",
        "ACCOUNT.PURGE.FLEET",
        "META.LEADER.STEPDOWN",
        "SERVER.REMOVE",
    ):
        yield from _asks("api", f"$JS.API.{subject}", {})
    thief = {
        "name": "THIEF",
        "subjects": ["fleet.>", "_R_.>"],
        "storage": "memory",
        "sources": [{"name": "KV_identity"}],
    }
    yield from _asks("new stream", "$JS.API.STREAM.CREATE.THIEF", thief)


def _consumers(bucket: Bucket, stream: str) -> Iterator[Attempt]:
    targets = (INBOX, "_INBOX_dev-2.literal", f"{DEVICE_ROOT}fleet.desired.dev-2.agent", "fleet.desired.dev-2.agent")
    for target in targets:
        config = {"deliver_subject": target, "ack_policy": "none", "deliver_policy": "all", "mem_storage": True}
        filtered = {**config, "filter_subject": f"$KV.{bucket.value}.>", "name": "evil"}
        durable = {**config, "durable_name": "evil"}
        for subject, body in (
            (f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config}),
            (f"CONSUMER.CREATE.{stream}.evil", {"stream_name": stream, "config": {**config, "name": "evil"}}),
            (f"CONSUMER.CREATE.{stream}.evil.$KV.{bucket.value}.>", {"stream_name": stream, "config": filtered}),
            (f"CONSUMER.DURABLE.CREATE.{stream}.evil", {"stream_name": stream, "config": durable}),
        ):
            yield from _asks(f"deliver to {target}", f"$JS.API.{subject}", body)
    for verb in ("INFO", "DELETE", "PAUSE", "RESET", "MSG.NEXT", "LEADER.STEPDOWN"):
        yield from _asks("consumer", f"$JS.API.CONSUMER.{verb}.{stream}.theirs", {})


def _system() -> Iterator[Attempt]:
    for subject in (
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.SERVER.PING.CONNZ",
        "$SYS.REQ.SERVER.PING.JSZ",
        "$SYS.REQ.ACCOUNT.FLEET.CONNZ",
        "$SYS.REQ.ACCOUNT.PING.CONNZ",
        "$SYS.REQ.ACCOUNT.DEVICES.SUBSZ",
        "$SYS.REQ.USER.INFO",
        "$SYS.REQ.USER.AUTH",
        "$SYS.REQ.CLAIMS.UPDATE",
        "$SYS.REQ.SERVER.X.KICK",
        "$SYS.REQ.SERVER.X.RELOAD",
        "$SYS.ACCOUNT.FLEET.CONNECT",
        "$JS.ACK.KV_desired.theirs.1.1.1.1.0",
        "$JS.FC.KV_desired.theirs.x",
        "$JS.EVENT.ADVISORY.API",
    ):
        yield from _asks("system", subject, {"cid": 1})


def _messages_to_others() -> Iterator[Attempt]:
    for subject in (
        "fleet.stop.dev-2",
        "fleet.stop.*",
        "fleet.stop.dev-1",
        "fleet.lock.dev-2",
        "fleet.lock.*",
        "fleet.lock.>",
        "fleet.desired.dev-2.agent",
        "fleet.desired.dev-2.workloads",
        "fleet.desired.>",
        "fleet.state.dev-2.upgrade",
        "fleet.heartbeat.dev-2.a",
        "fleet.identity.dev-1",
        "_INBOX_dev-2.literal",
        "_INBOX_operator.x.1",
        "_INBOX_callout.x.1",
        "_R_.aaaaaa.bbbbbb",
    ):
        yield from _asks("message", subject, b"EVIL")


def _answers_sent_elsewhere() -> Iterator[Attempt]:
    """Allowed questions, whose answers are to go where the device may not publish (ADR-030)."""
    questions = (
        "$JS.API.DIRECT.GET.KV_state.$KV.state.dev-1.upgrade",
        "$JS.API.DIRECT.GET.KV_state.$KV.state.dev-1.missing",
        "$KV.state.dev-1.upgrade",
        "fleet.lock.dev-1",
    )
    targets = (
        "$KV.desired.dev-2.agent",
        "$KV.state.dev-2.upgrade",
        "$KV.identity.dev-1",
        "$KV.objects.device.dev-2",
        "fleet.desired.dev-2.agent",
        "fleet.stop.dev-2",
        "fleet.lock.dev-2",
        "fleet.state.dev-2.upgrade",
        "$JS.API.STREAM.PURGE.KV_desired",
        "$JS.API.STREAM.DELETE.KV_state",
        "$JS.API.STREAM.DELETE.KV_identity",
        "$JS.API.CONSUMER.DELETE.KV_desired.theirs",
        "$SYS.REQ.USER.AUTH",
        "$SYS.REQ.SERVER.PING.CONNZ",
        "$JS.ACK.KV_desired.theirs.1.1.1.1.0",
        "_GR_.x.y",
    )
    for question in questions:
        for target in targets:
            for root in ROOTS:
                frames = pub(DEVICE_ROOT + question, b"EVIL", root + target)
                yield Attempt(f"{question} with its answer to {root}{target}", frames)


def _subscriptions() -> Iterator[Attempt]:
    patterns = (
        ">",
        "*",
        "*.>",
        "*.*.>",
        "fleet.>",
        "fleet.*.>",
        "fleet.*.*",
        "fleet.desired.>",
        "fleet.desired.*",
        "fleet.desired.*.agent",
        "fleet.desired.dev-2.>",
        "fleet.desired.dev-2",
        "fleet.stop.*",
        "fleet.stop.>",
        "fleet.stop.dev-2",
        "fleet.lock.*",
        "fleet.lock.dev-2",
        "fleet.state.>",
        "fleet.heartbeat.>",
        "fleet.identity.>",
        "$KV.>",
        "$KV.desired.>",
        "$JS.>",
        "$JS.API.>",
        "$JS.ACK.>",
        "$SYS.>",
        "$SYS.REQ.USER.AUTH",
        "$SYS.REQ.USER.AUTH fleet-callout",
        "_INBOX.>",
        "_INBOX_operator.>",
        "_INBOX_dev-2.>",
        "_INBOX_dev-2.literal",
        "*.desired.dev-2.>",
        "fleet.desired.dev-2.> group",
    )
    for sid, pattern in enumerate(patterns, 100):
        for root, number in ((DEVICE_ROOT, sid * 2), ("", sid * 2 + 1)):
            yield Attempt(f"listen to {root}{pattern}", f"SUB {root}{pattern} {number}\r\n".encode(), overhears=True)

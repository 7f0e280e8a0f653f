"""What a NATS server offers, row by row: modelled here, or left out and why. The conformance suite holds this table.

It fails when something is in neither column: a method of the port, an operation of a client library, a header the
server's program knows, a field of a stream's configuration. It fails when a row says `modelled` and nothing of that
kind was done to both makers in a run, and when it says `left out` and the port offers it all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Part(Enum):
    """Where an operation comes from. The text says what the suite compares the rows with."""

    PORT = "The bus port"
    LIBRARY = "Key-value operations of a client library"
    HEADERS = "Headers of a message"
    STREAM = "Configuration of a stream"
    API = "The JetStream API"
    CONNECTION = "Connections"
    SERVER = "The server as a process"


@dataclass(frozen=True, slots=True)
class Modelled:
    """The model does it. `by` names the operations of the suite that show it, each of which has to be run."""

    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """The model does it, and stories of another suite in `tests/conformance` hold it against a real server."""

    suite: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The model lacks it."""

    because: str


@dataclass(frozen=True, slots=True)
class Row:
    """One operation."""

    part: Part
    name: str
    standing: Modelled | Told | LeftOut


def _rows(part: Part, **standings: Modelled | LeftOut) -> tuple[Row, ...]:
    return tuple(Row(part, name, standing) for name, standing in standings.items())


def _header(**by_name: Modelled | LeftOut) -> tuple[Row, ...]:
    return tuple(Row(Part.HEADERS, name.replace("_", "-"), standing) for name, standing in by_name.items())


def _by(*names: str) -> Modelled:
    return Modelled(names)


def _shown(name: str) -> Modelled:
    return Modelled((f"header {name}",))


_NO_SOURCE: Final = LeftOut("the buckets have neither mirrors nor sources")
_NO_CONSUMER: Final = LeftOut("nothing consumes: devices may not, and reading is by direct get and republished writes")
_OF_SCHEDULES: Final = LeftOut("means something beside `Nats-Schedule` alone, which is refused")
_OF_BATCHES: Final = LeftOut("means something beside `Nats-Batch-Id` alone, which is refused")
_OF_TRACES: Final = LeftOut("nobody traces messages")
_SAID_BY_SERVER: Final = LeftOut("the server says it, to consumers; in a write it is any header")
_NOT_SET: Final = LeftOut("not set: the buckets have the server's default")
_ONE_SERVER: Final = LeftOut("there is one server")
_INSTALLER: Final = LeftOut("the installation's business, once; no program calls it")

PORT: Final = (
    Row(Part.PORT, "Bus.on_session", _by("Crash", "Reopen")),
    Row(Part.PORT, "Bus.is_connected", _by("Reopen")),
    Row(Part.PORT, "Bus.may_log_in", _by("MayLogIn")),
    Row(Part.PORT, "Bus.put", _by("Put")),
    Row(Part.PORT, "Bus.post", _by("Post")),
    Row(Part.PORT, "Bus.update", _by("Update")),
    Row(Part.PORT, "Bus.delete", _by("Delete")),
    Row(Part.PORT, "Bus.get", _by("Get")),
    Row(Part.PORT, "Bus.entries", _by("Entries")),
    Row(Part.PORT, "Bus.listen", _by("Listen")),
    Row(Part.PORT, "Bus.request", _by("Request")),
    Row(Part.PORT, "Bus.serve", _by("Serve")),
    Row(Part.PORT, "Bus.close", _by("Reopen")),
    Row(Part.PORT, "Subscription.refused", _by("Listen", "Serve")),
    Row(Part.PORT, "Subscription.close", _by("EndSubscription")),
    Row(Part.PORT, "BusAdmin.ensure_bucket", _by("Ensure")),
)

LIBRARY: Final = (
    Row(Part.LIBRARY, "get(revision)", LeftOut("nobody asks for older values")),
    *_rows(
        Part.LIBRARY,
        put=_by("Put"),
        update=_by("Update"),
        create=_by("Update"),
        delete=_by("Delete"),
        get=_by("Get"),
        keys=_by("Entries"),
        history=LeftOut("nobody asks for older values; what is kept of them comes back when a tail is lost"),
        purge=LeftOut("needs a rollup header, which the buckets refuse"),
        purge_deletes=LeftOut("needs a rollup header, which the buckets refuse"),
        watch=_NO_CONSUMER,
        watchall=_NO_CONSUMER,
        status=_INSTALLER,
    ),
)

HEADERS: Final = (
    Row(Part.HEADERS, "any other line", _shown("of any other name")),
    *_header(
        KV_Operation=_shown("KV-Operation"),
        Nats_Expected_Stream=_shown("Nats-Expected-Stream"),
        Nats_Expected_Last_Sequence=_shown("Nats-Expected-Last-Sequence"),
        Nats_Expected_Last_Subject_Sequence=_shown("Nats-Expected-Last-Subject-Sequence"),
        Nats_Expected_Last_Msg_Id=_shown("Nats-Expected-Last-Msg-Id"),
        Nats_Rollup=_shown("Nats-Rollup"),
        Nats_TTL=_shown("Nats-TTL"),
        Nats_Marker_Reason=_shown("Nats-Marker-Reason"),
        Nats_Schedule=_shown("Nats-Schedule"),
        Nats_Incr=_shown("Nats-Incr"),
        Nats_Batch_Id=_shown("Nats-Batch-Id"),
        Nats_Stream_Source=_shown("Nats-Stream-Source"),
        Nats_Sequence=_shown("Nats-Sequence"),
        Nats_Subject=_shown("Nats-Subject"),
        Nats_Num_Pending=_shown("Nats-Num-Pending"),
        Status=_shown("Status"),
        Nats_Msg_Id=LeftOut(
            "no writer of ours sets it, so nothing of ours is taken for a repetition; what the server remembers ends "
            "by its clock"
        ),
        Nats_Expected_Last_Subject_Sequence_Subject=LeftOut(
            "no writer of ours sets it; it can only refuse the writer's own write"
        ),
        Nats_Batch_Sequence=_OF_BATCHES,
        Nats_Batch_Commit=_OF_BATCHES,
        Nats_Batch=_OF_BATCHES,
        Nats_Counter_Sources=LeftOut("means something beside `Nats-Incr` alone, which is refused"),
        Nats_Schedule_Next=_OF_SCHEDULES,
        Nats_Schedule_Rollup=_OF_SCHEDULES,
        Nats_Schedule_Source=_OF_SCHEDULES,
        Nats_Schedule_Target=_OF_SCHEDULES,
        Nats_Schedule_TTL=_OF_SCHEDULES,
        Nats_Schedule_Time_Zone=_OF_SCHEDULES,
        Nats_Scheduler=_OF_SCHEDULES,
        Nats_Stream=_SAID_BY_SERVER,
        Nats_Stream_Identity=_SAID_BY_SERVER,
        Nats_Last_Consumer=_SAID_BY_SERVER,
        Nats_Last_Stream=_SAID_BY_SERVER,
        Nats_Last_Sequence=_SAID_BY_SERVER,
        Nats_Time_Stamp=_SAID_BY_SERVER,
        Nats_UpTo_Sequence=_SAID_BY_SERVER,
        Nats_Msg_Size=_SAID_BY_SERVER,
        Nats_Pending_Bytes=_SAID_BY_SERVER,
        Nats_Pending_Messages=_SAID_BY_SERVER,
        Nats_Consumer_Stalled=_SAID_BY_SERVER,
        Nats_Pin_Id=_SAID_BY_SERVER,
        Nats_Wrong_Pin_Id=_SAID_BY_SERVER,
        Description=_SAID_BY_SERVER,
        Nats_Response_Type=_SAID_BY_SERVER,
        Nats_Request_Info=LeftOut("says who asked, to services of another account; there is one account"),
        Nats_Server_Xkey=LeftOut("belongs to the auth callout, whose requests are not modelled"),
        Nats_Required_Api_Level=LeftOut("belongs to requests to the API, which no program makes"),
        Nats_No_Masking=LeftOut("belongs to websockets"),
        Nats_Expected=LeftOut("the common beginning of other names, and none itself"),
        Nats_Trace_Dest=_OF_TRACES,
        Nats_Trace_Hop=_OF_TRACES,
        Nats_Trace_Only=_OF_TRACES,
        Nats_Trace_Origin_Account=_OF_TRACES,
    ),
)

STREAM: Final = _rows(
    Part.STREAM,
    name=_by("Ensure"),
    subjects=_by("RawWrite"),
    max_msgs_per_subject=_by("Ensure", "LoseTail"),
    max_msg_size=_by("RawWrite"),
    num_replicas=_by("Put"),
    storage=_by("Crash"),
    allow_direct=_by("Get", "Entries"),
    allow_rollup_hdrs=_shown("Nats-Rollup"),
    allow_msg_ttl=_shown("Nats-TTL"),
    allow_msg_schedules=_shown("Nats-Schedule"),
    allow_atomic=_shown("Nats-Batch-Id"),
    allow_msg_counter=_shown("Nats-Incr"),
    republish=_by("Listen"),
    deny_delete=_by("RawRequest"),
    deny_purge=LeftOut("off: the installation may purge; a device may not ask for it"),
    max_bytes=LeftOut("no limit is set: the buckets grow by keys alone, and a full one would stop every device"),
    max_msgs=LeftOut("no limit is set"),
    max_age=LeftOut("no entry expires: an old one is as true as a new one"),
    discard=LeftOut("says what happens at a limit, and none is set"),
    discard_new_per_subject=LeftOut("says what happens at a limit, and none is set"),
    subject_delete_marker_ttl=LeftOut("no entry expires, so there are no markers but forged ones"),
    duplicate_window=LeftOut("see `Nats-Msg-Id`"),
    max_consumers=_NO_CONSUMER,
    consumer_limits=_NO_CONSUMER,
    retention=_NO_CONSUMER,
    mirror=_NO_SOURCE,
    sources=_NO_SOURCE,
    mirror_direct=_NO_SOURCE,
    subject_transform=_NO_SOURCE,
    placement=_ONE_SERVER,
    allow_batched=_NOT_SET,
    persist_mode=_NOT_SET,
    compression=_NOT_SET,
    description=_NOT_SET,
    metadata=_NOT_SET,
    first_seq=_NOT_SET,
    no_ack=_NOT_SET,
    sealed=_NOT_SET,
    template_owner=_NOT_SET,
)

API: Final = _rows(
    Part.API,
    add_stream=_by("Ensure"),
    update_stream=LeftOut("a bucket is never changed: another configuration is refused"),
    delete_stream=_INSTALLER,
    purge_stream=_INSTALLER,
    delete_msg=LeftOut("the buckets refuse it, and a device may not ask for it"),
    get_msg=LeftOut("the key stands in the body, where no permission reaches; reading is by direct get"),
    get_last_msg=_by("Get"),
    stream_info=_INSTALLER,
    streams_info=_INSTALLER,
    streams_info_iterator=_INSTALLER,
    find_stream_name_by_subject=_INSTALLER,
    account_info=_INSTALLER,
    add_consumer=_NO_CONSUMER,
    consumer_info=_NO_CONSUMER,
    consumers_info=_NO_CONSUMER,
    delete_consumer=_NO_CONSUMER,
    pause_consumer=_NO_CONSUMER,
    resume_consumer=_NO_CONSUMER,
    reset_consumer=_NO_CONSUMER,
)

CONNECTION: Final = (
    Row(Part.CONNECTION, "permissions by subject", _by("Put", "Listen", "RawWrite", "RawRequest")),
    Row(Part.CONNECTION, "what is forbidden is reported at once", _by("Put", "Listen", "Request")),
    Row(Part.CONNECTION, "no responders", _by("Request")),
    Row(Part.CONNECTION, "several who serve one subject", _by("Serve", "Request")),
    Row(Part.CONNECTION, "subscriptions come back by themselves", _by("Crash", "Listen")),
    Row(Part.CONNECTION, "keys and values of any bytes", _by("RawWrite")),
    Row(Part.CONNECTION, "a line or a message over the server's limit", _by("RawWrite")),
    Row(
        Part.CONNECTION,
        "a carriage return in a key whose write has a header",
        LeftOut("the server lists such a key with a blank in its place; no key of the layout has one"),
    ),
    Row(Part.CONNECTION, "core subscriptions to `$KV.>`", LeftOut("they see refused writes; nobody of ours has one")),
    Row(
        Part.CONNECTION,
        "accounts",
        LeftOut("there is one; the callout's suite shows what crosses between two"),
    ),
    Row(
        Part.CONNECTION,
        "an answer to where the asker says",
        LeftOut("a question of the model is answered to whoever asked; see ADR-030"),
    ),
    Row(Part.CONNECTION, "queue groups", LeftOut("the callouts alone share the requests of a subject")),
    Row(Part.CONNECTION, "wildcards before the last token", LeftOut("no subscription of ours has one")),
    Row(Part.CONNECTION, "tokens, the auth callout, and the end of a login", Told("test_callout_conformance.py")),
    Row(
        Part.CONNECTION,
        "signatures and seals of the callout, and passwords",
        LeftOut("a client without a token is known by its name or not at all"),
    ),
    Row(Part.CONNECTION, "the wire protocol", LeftOut("what a client library does with it is the adapter's test")),
    Row(Part.CONNECTION, "TLS and websockets", LeftOut("they change nothing of what is modelled")),
    Row(Part.CONNECTION, "slow consumers", LeftOut("a connection of the model is cut or it is not")),
    Row(Part.CONNECTION, "pings", LeftOut("the moment at which one goes unanswered is computed when a link is cut")),
)

SERVER: Final = (
    Row(Part.SERVER, "kill -9 and restart", _by("Crash")),
    Row(Part.SERVER, "loss of an acknowledged tail, with reuse of its revisions", _by("LoseTail")),
    Row(Part.SERVER, "restart on an older copy of its store", _by("Keep", "Restore")),
    Row(Part.SERVER, "the time it takes to act", LeftOut("it costs nothing, and a restarted server serves at once")),
    Row(Part.SERVER, "damage to the files of its store", LeftOut("the loss of a tail stands for what it does to us")),
    Row(Part.SERVER, "a full disk", LeftOut("like a server that is down, for whoever writes")),
    Row(Part.SERVER, "lame duck mode and reload", LeftOut("like a restart, for whoever is connected")),
    Row(Part.SERVER, "clusters and leaf nodes", _ONE_SERVER),
)

SURFACE: Final = PORT + LIBRARY + HEADERS + STREAM + API + CONNECTION + SERVER


def modelled() -> tuple[Row, ...]:
    """The rows of what the model does."""
    return tuple(row for row in SURFACE if not isinstance(row.standing, LeftOut))

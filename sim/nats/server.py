"""The server: buckets, connections, who may do what, republished writes, requests and their answers.

Synchronous throughout: a message that arrives is acted on in full before the next one, and what follows from it
is put on the links of those it concerns.
"""

from __future__ import annotations

from typing import Final, Protocol

from fleet.capabilities.bus import Entry, Stored
from fleet.capabilities.callout import Admission
from fleet.contracts.errors import FleetError, InvalidValue, NotPermitted, Refused, TooLarge, Unavailable
from fleet.contracts.ids import Revision
from fleet.contracts.layout import Bucket, BucketSpec
from fleet.contracts.permissions import Permissions
from fleet.contracts.time import Duration
from sim.kernel import Kernel
from sim.nats.auth import Callouts
from sim.nats.deadlines import Deadlines
from sim.nats.headers import Lines, size_of
from sim.nats.pipe import Pipe
from sim.nats.store import MAX_SUBJECT_BYTES, KvStore, is_subject
from sim.nats.subjects import (
    Interest,
    direct_get_subject,
    listing_subject,
    may_publish,
    may_subscribe,
    value_subject,
)
from sim.network import Network, Route

STALE_AFTER: Final = Duration.seconds(60)
"""A connection to which nothing could be sent for this long is closed by the server (its pings go unanswered)."""
MAX_PAYLOAD_BYTES: Final = 1024 * 1024
"""At a longer message, header included, the server ends the connection."""
RAW_WRITER: Final = "raw"
"""The writer of entries that came by `store_raw`."""
_FRAME: Final = 96
"""Bytes of protocol around a message: verb, subjects, sizes, headers."""
_MAX_ALLOWED_REMEMBERED: Final = 4096


class Observer(Protocol):
    """Told of everything the server accepts, at once and in order. Must not raise."""

    def stored(self, bucket: Bucket, key: str, revision: Revision, writer: str, value: bytes) -> None:
        """A write was accepted. `writer` is the authenticated client."""
        ...

    def deleted(self, bucket: Bucket, key: str, revision: Revision, writer: str) -> None:
        """A delete marker was accepted."""
        ...

    def requested(self, subject: str, sender: str, payload: bytes) -> None:
        """A request was published, whether or not anybody serves it."""
        ...

    def read(self, client: str, bucket: Bucket, key: str, allowed: bool) -> None:
        """A client asked for the entry of a key, or for those under a prefix. Unless `allowed` it was told nothing."""
        ...

    def listened(self, client: str, pattern: str, allowed: bool) -> None:
        """A client subscribed. Unless `allowed`, nothing came of it."""
        ...


class Client(Protocol):
    """The client's end of a connection, as the server addresses it. Everything arrives by the connection's pipe."""

    def accepted(self, session: Session) -> None:
        """The connection is established."""
        ...

    def turned_away(self, attempt: int) -> None:
        """A connection request with a token was turned down."""
        ...

    def ended(self, session: Session) -> None:
        """The connection is over."""
        ...

    def link_changed(self) -> None:
        """A link between the two was cut or mended. Not a message: how it is known without sending pings."""
        ...

    def answered(self, session: Session, call: int, answer: object) -> None:
        """The answer to a call; a `FleetError` when it was refused."""
        ...

    def not_permitted(self, session: Session, subscription: object, pattern: str) -> None:
        """A subscription that may hear nothing of a pattern."""
        ...

    def republished(self, session: Session, subscription: object, entry: Entry) -> None:
        """A stored write that a subscription asked for."""
        ...

    def requested(self, session: Session, subscription: object, subject: str, payload: bytes, ticket: Ticket) -> None:
        """A request for a subject that the client serves."""
        ...


Ticket = tuple["Session", int]
"""Where the answer to a request goes: the asking session and its call."""


class Session:
    """The server's end of one connection. Its public methods are what a client's messages do when they arrive."""

    def __init__(
        self,
        server: NatsServer,
        name: str,
        client: Client,
        attempt: int,
        down: Route,
        kernel: Kernel,
        permissions: Permissions,
    ) -> None:
        self.name = name
        self.client = client
        self.attempt = attempt
        self.open = True
        self._server = server
        self._permissions = permissions
        self._may_write: dict[tuple[Bucket, str], bool] = {}
        self._subscriptions: dict[object, tuple[str, ...]] = {}
        self._route = down
        self._kernel = kernel
        self.down = Pipe(down, kernel, self._stalled)

    def welcome(self) -> None:
        """Tell the client that the connection stands."""
        self.down.send(_FRAME, self.client.accepted, self)

    def write(self, call: int, bucket: Bucket, key: str, value: bytes | None, expected: int | None) -> None:
        """Store a value (None: a delete marker)."""
        if not self.open:
            self.reset()
            return
        if not self._may(bucket, key):
            self._forbid(call, value_subject(bucket, key))
            return
        try:
            entry = self._server.store(bucket).write(key, value, expected)
        except FleetError as error:
            self._answer(call, _FRAME, error)
            return
        self._server.accepted(entry, self.name)
        self._answer(call, _FRAME, entry.revision)

    def post(self, bucket: Bucket, key: str, value: bytes) -> None:
        """Store a value; nobody asked for an answer, so that whatever goes wrong is not told."""
        if not self.open:
            self.reset()
            return
        if not self._may(bucket, key):
            return
        try:
            entry = self._server.store(bucket).write(key, value)
        except FleetError:
            return
        self._server.accepted(entry, self.name)

    def get(self, call: int, bucket: Bucket, key: str) -> None:
        """Direct get of one key."""
        allowed = self._lets(call, direct_get_subject(bucket, key))
        self._server.was_read(self.name, bucket, key, allowed)
        if not allowed:
            return
        try:
            entry = self._server.store(bucket).newest(key)
        except Unavailable as error:
            self._answer(call, _FRAME, error)
            return
        self._answer(call, _FRAME + _size(entry), entry)

    def list(self, call: int, bucket: Bucket, prefix: str) -> None:
        """Direct get of all keys under a prefix."""
        allowed = self._lets(call, listing_subject(bucket))
        self._server.was_read(self.name, bucket, prefix, allowed)
        if not allowed:
            return
        try:
            entries = self._server.store(bucket).list(prefix)
        except Unavailable as error:
            self._answer(call, _FRAME, error)
            return
        self._answer(call, sum(_FRAME + _size(entry) for entry in entries), entries)

    def subscribe(self, subscription: object, patterns: tuple[str, ...]) -> None:
        """Listen; the client is told of the patterns it may not listen to."""
        if not self.open:
            self.reset()
            return
        allowed = tuple(pattern for pattern in patterns if may_subscribe(self._permissions, pattern))
        self._server.was_listened(self.name, patterns, allowed)
        self._subscriptions[subscription] = allowed
        for pattern in patterns:
            if pattern in allowed:
                self._server.interest.add(pattern, (self, subscription))
            else:
                self.down.send(_FRAME, self.client.not_permitted, self, subscription, pattern)

    def unsubscribe(self, subscription: object) -> None:
        """Listen no more."""
        for pattern in self._subscriptions.pop(subscription, ()):
            self._server.interest.remove(pattern, (self, subscription))

    def request(self, call: int, subject: str, payload: bytes) -> None:
        """Pass a request to all who serve the subject; answer at once when nobody does."""
        if not self._lets(call, subject):
            return
        if not self._server.requested(subject, self.name, payload, (self, call)):
            self._answer(call, _FRAME, Unavailable(f"nobody serves {subject}"))

    def reply(self, ticket: Ticket, payload: bytes) -> None:
        """Pass an answer to whoever asked, if that connection still stands."""
        if not self.open:
            self.reset()
            return
        asker, call = ticket
        if asker.open:
            asker._answer(call, _FRAME + len(payload), payload)

    def finish(self) -> None:
        """The client closed the connection."""
        self.close()

    def close(self) -> None:
        """Forget the connection. The client is not told."""
        if not self.open:
            return
        self.open = False
        for subscription in tuple(self._subscriptions):
            self.unsubscribe(subscription)
        self.down.close()
        self._server.sessions.pop(self, None)

    def end(self) -> None:
        """End the connection, and let the client know that it has ended."""
        self.close()
        self.reset()

    def reset(self) -> None:
        """Tell the client that there is no such connection, as a host does that gets a message for a closed one."""
        self._route.send(_FRAME, self.client.ended, self)

    def push(self, subscription: object, entry: Entry) -> None:
        """Send a stored write to the client."""
        self.down.send(_FRAME + _size(entry), self.client.republished, self, subscription, entry)

    def ask(self, subscription: object, subject: str, payload: bytes, ticket: Ticket) -> None:
        """Send a request to the client."""
        size = _FRAME + len(payload)
        self.down.send(size, self.client.requested, self, subscription, subject, payload, ticket)

    def _answer(self, call: int, size: int, answer: object) -> None:
        self.down.send(size, self.client.answered, self, call, answer)

    def _lets(self, call: int, subject: str) -> bool:
        if not self.open:
            self.reset()
            return False
        allowed = may_publish(self._permissions, subject)
        if not allowed:
            self._forbid(call, subject)
        return allowed

    def _forbid(self, call: int, subject: str) -> None:
        """The real server answers nothing, and reports beside the call what is not permitted: the client knows."""
        self._answer(call, _FRAME, NotPermitted(f"not permitted to publish to {subject}"))

    def _may(self, bucket: Bucket, key: str) -> bool:
        place = (bucket, key)
        allowed = self._may_write.get(place)
        if allowed is None:
            if len(self._may_write) >= _MAX_ALLOWED_REMEMBERED:
                self._may_write.clear()
            allowed = self._may_write[place] = may_publish(self._permissions, value_subject(bucket, key))
        return allowed

    def _stalled(self) -> None:
        if self.open:
            self._kernel.after(STALE_AFTER, self._close_if_stalled)

    def _close_if_stalled(self) -> None:
        if self.down.stalled:
            self.close()


class NatsServer:
    """One server with its store. `host` is its node on the network, which has to exist."""

    def __init__(self, kernel: Kernel, network: Network, host: str = "nats") -> None:
        self.kernel = kernel
        self.network = network
        self.host = host
        self.up = True
        self.sessions: dict[Session, None] = {}
        self.interest: Interest[tuple[Session, object]] = Interest()
        self.deadlines = Deadlines(kernel)
        """Of the calls of all its clients."""
        self.callouts: Callouts | None = None
        """Who is asked about clients with a token; None when such clients are refused."""
        self._stores: dict[Bucket, KvStore] = {}
        self._permissions: dict[str, Permissions] = {}
        self._passwords: dict[str, str] = {}
        self._observers: tuple[Observer, ...] = ()
        self._clients_at: dict[str, dict[Client, None]] = {}
        network.on_change(self._link_changed)

    def ensure_bucket(self, spec: BucketSpec) -> None:
        """Make a bucket, or do nothing when it stands as specified. Raises: Refused when it stands otherwise."""
        store = self._stores.setdefault(spec.bucket, KvStore(spec))
        if store.spec != spec:
            raise Refused(f"bucket {spec.bucket} exists with another configuration")

    def permit(self, client: str, permissions: Permissions, password: str | None = None) -> None:
        """Let a client in, with these permissions from its next connection on. With a password: only with that one."""
        self._permissions[client] = permissions
        if password is not None:
            self._passwords[client] = password

    def permissions(self, client: str) -> Permissions:
        """What a client may do. Raises: Refused for an unknown one."""
        try:
            return self._permissions[client]
        except KeyError:
            raise Refused("Authorization Violation") from None

    def observe(self, observer: Observer) -> None:
        """Tell `observer` of everything accepted from now on."""
        self._observers = (*self._observers, observer)

    def store(self, bucket: Bucket) -> KvStore:
        """A bucket's entries. Raises: Unavailable when there is no such bucket (no responders)."""
        try:
            return self._stores[bucket]
        except KeyError:
            raise Unavailable(f"there is no bucket {bucket}") from None

    def publish_raw(self, client: str, bucket: Bucket, key: bytes, lines: Lines, value: bytes) -> Revision:
        """Write as a client that keeps to no rule: any key, any lines of a header, any value.

        Raises:
            NotPermitted, Unavailable; otherwise as `KvStore.write_raw`.
        """
        if not self.up:
            raise Unavailable("the server is down")
        name = key.decode("utf-8", "surrogateescape")
        if len(key) > MAX_SUBJECT_BYTES:
            raise TooLarge("maximum control line exceeded")
        if size_of(lines) + len(value) > MAX_PAYLOAD_BYTES:
            raise TooLarge("maximum payload violation")
        if not is_subject(name) or not may_publish(self.permissions(client), value_subject(bucket, name)):
            raise NotPermitted("not permitted")  # no permission covers what is no subject, not even that of everything
        entry = self.store(bucket).write_raw(name, lines, value)
        self.accepted(entry, client)
        return entry.revision

    def store_raw(self, bucket: Bucket, key: bytes, value: bytes | None) -> Revision:
        """Write any bytes under any key (None: a delete marker), past every permission.

        Raises:
            Unavailable: the server is down. TooLarge; Refused for a key that no subject can carry.
        """
        if not self.up:
            raise Unavailable("the server is down")
        entry = self.store(bucket).write(key.decode("utf-8", "surrogateescape"), value)
        self.accepted(entry, RAW_WRITER)
        return entry.revision

    def lose_tail(self, bucket: Bucket, count: int) -> tuple[str, ...]:
        """The server's machine lost power: the newest `count` acknowledged writes of a bucket are gone.

        Call it while the server is down. Revisions are reused and no client is told.

        Returns:
            The keys whose newest write is another one now.

        Raises:
            InvalidValue: the server is up, or the model does not remember that many.
        """
        if self.up:
            raise InvalidValue("a running server loses nothing: stop it first")
        return self.store(bucket).lose_tail(count)

    def stop(self) -> None:
        """The server process dies (kill -9): every connection ends, what it stored stays."""
        self.up = False
        for session in tuple(self.sessions):
            session.close()
            session.reset()

    def start(self) -> None:
        """The server process runs again on what it had stored."""
        self.up = True

    def attend(self, client: Client, host: str) -> None:
        """Tell a client of changes of its host's link, until `leave`."""
        self._clients_at.setdefault(host, {})[client] = None

    def leave(self, client: Client, host: str) -> None:
        """Tell it no more."""
        self._clients_at.get(host, {}).pop(client, None)

    def connect(self, name: str, client: Client, attempt: int, host: str, password: str | None = None) -> Session:
        """A client's connection request arrived; `attempt` is the client's own number for it.

        Raises:
            Unavailable: the server is down. Refused: unknown client, or another password.
        """
        if not self.up:
            raise Unavailable("connection refused")
        if self._passwords.get(name, password) != password:
            raise Refused("Authorization Violation")
        return self._session(name, client, attempt, host, self.permissions(name))

    def connect_by_token(self, name: str, token: str, client: Client, attempt: int, host: str) -> None:
        """A client's connection request arrived that shows a token: a callout is asked, and the client is told.

        Raises:
            Unavailable: the server is down. Refused: it asks no callout.
        """
        if not self.up:
            raise Unavailable("connection refused")
        callouts = self.callouts
        if callouts is None:
            raise Refused("Authorization Violation")
        down = self.network.route(self.host, host)

        def decided(decision: Admission | FleetError) -> None:
            if not isinstance(decision, Admission) or not self.up:
                down.send(_FRAME, client.turned_away, attempt)
                return
            session = self._session(decision.device, client, attempt, host, decision.permissions)
            callouts.admitted(session, decision)
            session.welcome()

        callouts.ask(name, token, decided)

    def _session(self, name: str, client: Client, attempt: int, host: str, permissions: Permissions) -> Session:
        route = self.network.route(self.host, host)
        session = Session(self, name, client, attempt, route, self.kernel, permissions)
        self.sessions[session] = None
        return session

    def accepted(self, entry: Entry, writer: str) -> None:
        """A write was stored: tell the observers, and republish it to whoever listens."""
        for observer in self._observers:
            if isinstance(entry, Stored):
                observer.stored(entry.bucket, entry.key, entry.revision, writer, entry.value)
            else:
                observer.deleted(entry.bucket, entry.key, entry.revision, writer)
        for session, subscription in self.interest.of(f"fleet.{entry.bucket}.{entry.key}"):
            session.push(subscription, entry)

    def was_read(self, client: str, bucket: Bucket, key: str, allowed: bool) -> None:
        """A client asked for entries: tell the observers."""
        for observer in self._observers:
            observer.read(client, bucket, key, allowed)

    def was_listened(self, client: str, patterns: tuple[str, ...], allowed: tuple[str, ...]) -> None:
        """A client subscribed: tell the observers."""
        for observer in self._observers:
            for pattern in patterns:
                observer.listened(client, pattern, pattern in allowed)

    def requested(self, subject: str, sender: str, payload: bytes, ticket: Ticket) -> bool:
        """A request was published. False when nobody serves the subject."""
        for observer in self._observers:
            observer.requested(subject, sender, payload)
        servers = self.interest.of(subject)
        for session, subscription in servers:
            session.ask(subscription, subject, payload, ticket)
        return bool(servers)

    def _link_changed(self, host: str) -> None:
        for client in tuple(self._clients_at.get(host, ())):
            client.link_changed()


def _size(entry: Entry | None) -> int:
    if entry is None:
        return 0
    return len(entry.key) + (len(entry.value) if isinstance(entry, Stored) else 0)

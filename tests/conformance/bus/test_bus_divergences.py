"""The suite has been seen to notice: small divergences planted into the model, each found within a few courses.

The courses are tried on the model with the divergence and on the model without, which costs milliseconds; the first one
that differs has to differ from the real server in the same way, and without the divergence in none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import Phase

from fleet.capabilities.bus import Deleted, Entry, Stored
from fleet.contracts.errors import Conflict, FleetError, Refused
from fleet.contracts.ids import Revision
from fleet.contracts.layout import Bucket
from sim.nats import server as model_server
from sim.nats import store as model_store
from sim.nats.headers import Lines, refusal
from sim.nats.server import NatsServer, Session
from sim.nats.store import KvStore
from tests.conformance.bus.drive import Seen
from tests.conformance.bus.labs import Makers
from tests.conformance.bus.machine import Divergence, compare, explore
from tests.conformance.bus.operations import Operation

Patch = pytest.MonkeyPatch
COURSES: Final = 100
SEEDS: Final = (1, 2, 3, 4)
"""In so many courses of so many runs each has to be found: twice as many as one `make test` runs."""


def a_deleted_key_counts_as_never_written(patch: Patch) -> None:
    write = KvStore.write

    def forgetful(store: KvStore, key: str, value: bytes | None, expected: int | None = None) -> Entry:
        if expected is not None and isinstance(store.newest(key), Deleted):
            if expected != 0:
                raise Conflict("wrong last sequence: 0")
            expected = None
        return write(store, key, value, expected)

    patch.setattr(KvStore, "write", forgetful)


def refused_writes_are_republished(patch: Patch) -> None:
    write = Session.write

    def leaking(session: Session, call: int, bucket: Bucket, key: str, value: bytes | None, last: int | None) -> None:
        server = session._server
        before = server.store(bucket).sequence
        write(session, call, bucket, key, value, last)
        if value is not None and server.store(bucket).sequence == before:
            server.accepted(Stored(bucket, key, Revision(before + 1), value), session.name)

    patch.setattr(Session, "write", leaking)


def revisions_are_counted_per_key(patch: Patch) -> None:
    accept = KvStore._accept

    def counting(store: KvStore, key: str, value: bytes | None, before: tuple[Entry, ...]) -> Entry:
        store._sequence = before[-1].revision if before else 0
        return accept(store, key, value, before)

    patch.setattr(KvStore, "_accept", counting)


def a_prefix_is_any_beginning(patch: Patch) -> None:
    def listing(store: KvStore, prefix: str) -> tuple[Entry, ...]:
        found = [entries[-1] for key, entries in store._entries.items() if key.startswith(prefix)]
        return tuple(sorted(found, key=lambda entry: entry.revision))

    patch.setattr(KvStore, "list", listing)


def a_listing_hides_what_was_deleted(patch: Patch) -> None:
    listing = KvStore.list
    patch.setattr(
        KvStore,
        "list",
        lambda store, prefix: tuple(entry for entry in listing(store, prefix) if isinstance(entry, Stored)),
    )


def a_header_that_is_refused_is_ignored(patch: Patch) -> None:
    def lenient(lines: Lines, bucket: Bucket, sequence: int, newest: int) -> FleetError | None:
        error = refusal(lines, bucket, sequence, newest)
        return None if isinstance(error, Refused) and "rollup" in str(error) else error

    patch.setattr(model_store, "refusal", lenient)


def a_lost_tail_keeps_its_numbers(patch: Patch) -> None:
    lose = KvStore.lose_tail

    def counting_on(store: KvStore, count: int) -> tuple[str, ...]:
        before = store._sequence
        lost = lose(store, count)
        store._sequence = before
        return lost

    patch.setattr(KvStore, "lose_tail", counting_on)


def a_device_may_write_everywhere(patch: Patch) -> None:
    patch.setattr(model_server, "may_publish", lambda permissions, subject: True)


def a_crash_loses_the_newest_write(patch: Patch) -> None:
    stop = NatsServer.stop

    def losing(server: NatsServer) -> None:
        stop(server)
        for store in server._stores.values():
            store.lose_tail(min(1, store.remembered))

    patch.setattr(NatsServer, "stop", losing)


def a_subscription_is_lost_with_the_connection(patch: Patch) -> None:
    subscribe = Session.subscribe

    def once(session: Session, subscription: object, patterns: tuple[str, ...]) -> None:
        if session.attempt == 1:
            subscribe(session, subscription, patterns)

    patch.setattr(Session, "subscribe", once)


DIVERGENCES: Final[tuple[Callable[[Patch], None], ...]] = (
    a_deleted_key_counts_as_never_written,
    refused_writes_are_republished,
    revisions_are_counted_per_key,
    a_prefix_is_any_beginning,
    a_listing_hides_what_was_deleted,
    a_header_that_is_refused_is_ignored,
    a_lost_tail_keeps_its_numbers,
    a_device_may_write_everywhere,
    a_crash_loses_the_newest_write,
    a_subscription_is_lost_with_the_connection,
)


class Models:
    """The model with a divergence, and without."""

    def __init__(self, makers: Makers, plant: Callable[[Patch], None]) -> None:
        self._makers = makers
        self._plant = plant

    def on_model(self, course: tuple[Operation, ...]) -> list[Seen]:
        with Patch.context() as patch:
            self._plant(patch)
            return self._makers.on_model(course)

    def on_server(self, course: tuple[Operation, ...]) -> list[Seen]:
        return self._makers.on_model(course)


def first_that_differs(models: Models) -> tuple[Operation, ...]:
    for number in SEEDS:
        try:
            explore(models, COURSES, number, (Phase.generate,), has_tour=False)
        except Divergence as found:
            return found.course
    raise AssertionError("no course has shown the divergence")


@pytest.mark.real
@pytest.mark.parametrize("plant", DIVERGENCES, ids=lambda plant: plant.__name__)
def test_a_divergence_is_found(plant: Callable[[Patch], None], makers: Makers) -> None:
    course = first_that_differs(Models(makers, plant))
    compare(makers, course, 0)
    with Patch.context() as patch:
        plant(patch)
        with pytest.raises(Divergence):
            compare(makers, course, 0)

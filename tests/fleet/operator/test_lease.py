"""Who acts: the election's decisions, event by event, and as a model with delays, cuts, crashes and clocks of any time.

The model is the whole argument of ADR-013 made executable: whatever happens, no replica sends anything while another
one, which took the lease later, may send as well, and each one stops `leader_lease - leader_deadline` before that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from fleet.contracts.ids import ObjectName
from fleet.contracts.lease import OPERATOR_LEASE, Lease, LeaseSpec, micro_time
from fleet.contracts.objects import Metadata
from fleet.contracts.time import Duration, Instant
from fleet.operator.lease import (
    Create,
    Elector,
    LeaseRefused,
    LeaseSeen,
    LeaseWritten,
    Leave,
    Look,
    Replace,
    Rest,
    Rested,
    Step,
    StoreSilent,
)
from fleet.operator.ports import OperatorTimings

TIMINGS = OperatorTimings()
WALL = Instant(1_800_000_000 * 10**9)
GAP = TIMINGS.leader_lease - TIMINGS.leader_deadline


def at(seconds: float) -> Instant:
    return Instant(round(seconds * 1e9))


def elector(replica: str = "operator-0", token: str = "0") -> Elector:
    return Elector(ObjectName(replica), token, TIMINGS)


def held_by(holder: str, version: str = "1", duration: int = 15) -> Lease:
    now = micro_time(WALL)
    spec = LeaseSpec(holder_identity=holder, lease_duration_seconds=duration, acquire_time=now, renew_time=now)
    return Lease(metadata=Metadata(name=OPERATOR_LEASE, resource_version=version), spec=spec)


def stored(step: Step, version: str) -> Lease:
    assert isinstance(step, Create | Replace)
    return step.lease.changed(metadata=step.lease.metadata.model_copy(update={"resource_version": version}))


def leading(sent: float = 0.0) -> Elector:
    brain = elector()
    create = brain.next(LeaseSeen(None, at(sent), WALL))
    brain.next(LeaseWritten(stored(create, "1"), at(sent), at(sent), WALL))
    assert brain.leads
    return brain


def test_the_first_one_makes_the_lease_and_acts() -> None:
    brain = elector()
    assert brain.begin() == Look()
    create = brain.next(LeaseSeen(None, at(1), WALL))
    assert isinstance(create, Create)
    assert create.lease.spec.holder_identity == "operator-0_0"
    assert create.lease.spec.lease_duration_seconds == 15
    assert brain.next(LeaseWritten(stored(create, "1"), at(1), at(2), WALL)) == Rest(Duration.seconds(4))
    assert brain.leads
    assert brain.acts(at(2))


def test_a_leader_acts_from_when_it_sent_not_from_when_it_was_answered() -> None:
    brain = leading(sent=0)
    renewal = brain.next(Rested(at(5), WALL))
    assert isinstance(renewal, Replace)
    brain.next(LeaseWritten(stored(renewal, "2"), at(5), at(9), WALL))
    assert brain.acts(Instant(at(15) - 1))
    assert not brain.acts(at(15))
    assert brain.exposed == at(20)


def test_a_standby_waits_for_a_whole_lease_without_a_change() -> None:
    brain = elector("operator-1", "1")
    assert brain.next(LeaseSeen(held_by("operator-0_0", "1"), at(0), WALL)) == Rest(TIMINGS.leader_retry)
    assert brain.next(Rested(at(2), WALL)) == Look()
    brain.next(LeaseSeen(held_by("operator-0_0", "2"), at(10), WALL))
    assert isinstance(brain.next(LeaseSeen(held_by("operator-0_0", "2"), Instant(at(25) - 1), WALL)), Rest)
    taken = brain.next(LeaseSeen(held_by("operator-0_0", "2"), at(25), WALL))
    assert isinstance(taken, Replace)
    assert taken.lease.metadata.resource_version == "2"
    assert taken.lease.spec.holder_identity == "operator-1_1"
    assert taken.lease.spec.lease_transitions == 1


def test_the_time_in_the_lease_is_not_looked_at() -> None:
    brain = elector("operator-1", "1")
    ancient = held_by("operator-0_0")
    long_past = ancient.changed(spec=ancient.spec.model_copy(update={"renew_time": "1970-01-01T00:00:00.000000Z"}))
    assert isinstance(brain.next(LeaseSeen(long_past, at(0), WALL)), Rest)


def test_a_longer_lease_of_the_holder_is_respected() -> None:
    brain = elector("operator-1", "1")
    brain.next(LeaseSeen(held_by("operator-0_0", duration=60), at(0), WALL))
    assert isinstance(brain.next(LeaseSeen(held_by("operator-0_0", duration=60), at(59), WALL)), Rest)
    assert isinstance(brain.next(LeaseSeen(held_by("operator-0_0", duration=60), at(60), WALL)), Replace)


def test_a_lease_given_back_is_taken_at_once() -> None:
    assert isinstance(elector().next(LeaseSeen(held_by(""), at(0), WALL)), Replace)


def test_a_new_start_of_the_same_replica_does_not_wait_for_itself_but_only_when_it_begins() -> None:
    assert isinstance(elector(token="1").next(LeaseSeen(held_by("operator-0_0"), at(0), WALL)), Replace)
    later = elector(token="1")
    later.next(LeaseSeen(held_by("operator-1_7"), at(0), WALL))
    assert isinstance(later.next(LeaseSeen(held_by("operator-0_0", "2"), at(2), WALL)), Rest)


def test_a_leader_leaves_when_another_one_holds_the_lease_or_it_is_gone() -> None:
    for found in (held_by("operator-1_1", "9"), held_by("operator-0_9", "9"), held_by("", "9"), None):
        brain = leading()
        assert brain.next(LeaseRefused(at(6), WALL)) == Look()
        assert isinstance(brain.next(LeaseSeen(found, at(6), WALL)), Leave)
        assert not brain.acts(at(6))


def test_a_leader_that_could_not_renew_goes_on_when_nobody_took_its_lease() -> None:
    brain = leading(sent=0)
    assert brain.next(StoreSilent(at(10), WALL)) == Rest(TIMINGS.leader_retry)
    assert not brain.acts(at(12))
    assert brain.next(Rested(at(60), WALL)) == Look()
    renewal = brain.next(LeaseSeen(held_by("operator-0_0", "1"), at(60), WALL))
    assert isinstance(renewal, Replace)
    brain.next(LeaseWritten(stored(renewal, "2"), at(60), at(61), WALL))
    assert brain.acts(at(61))


def test_a_write_that_changed_nothing_renews_nothing() -> None:
    brain = leading(sent=0)
    renewal = brain.next(Rested(at(5), WALL))
    brain.next(LeaseWritten(stored(renewal, "1"), at(5), at(5), WALL))
    assert not brain.acts(at(10))


def test_only_the_own_lease_is_given_back() -> None:
    brain = leading()
    given = brain.released(held_by("operator-0_0"), WALL)
    assert given is not None
    assert given.spec.holder_identity == ""
    assert brain.released(held_by("operator-0_1"), WALL) is None


# --- the model ---------------------------------------------------------------------------------------


@dataclass(eq=False)
class Message:
    """A call of a replica on its way to the store, or its answer on the way back."""

    replica: Replica
    step: Look | Create | Replace
    sent: Instant
    answer: LeaseSeen | LeaseWritten | LeaseRefused | None = None


@dataclass(eq=False)
class Replica:
    """One start of a replica with a clock of its own offset."""

    brain: Elector
    offset: int
    step: Step = field(default_factory=Look)
    rests_until: int = 0
    waiting: Message | None = None
    gave_up_at: int = 0


@dataclass
class Store:
    """What the conformance suite proves of the real ones: create-only, and replace by version."""

    lease: Lease | None = None
    versions: count[int] = field(default_factory=lambda: count(1))

    def take(self, message: Message, now: Instant, wall: Instant) -> LeaseSeen | LeaseWritten | LeaseRefused:
        match message.step:
            case Look():
                return LeaseSeen(self.lease, now, wall)
            case Create() if self.lease is not None:
                return LeaseRefused(now, wall)
            case Replace(lease=item) if self.lease is None or item.metadata != self.lease.metadata:
                return LeaseRefused(now, wall)
            case Create() | Replace():
                self.lease = stored(message.step, str(next(self.versions)))
                return LeaseWritten(self.lease, message.sent, now, wall)


class Model(RuleBasedStateMachine):
    """Replicas, a store, and a network that delays, loses and reorders whatever it likes."""

    timings = TIMINGS

    def __init__(self) -> None:
        super().__init__()
        self.now = 10**12
        self.store = Store()
        self.replicas: list[Replica] = []
        self.under_way: list[Message] = []
        self.tokens = count()

    def clock(self, replica: Replica) -> Instant:
        return Instant(self.now + replica.offset)

    def wall(self, replica: Replica) -> Instant:
        return Instant(WALL + 7 * replica.offset)

    @initialize(offsets=st.lists(st.integers(-(10**11), 10**11), min_size=2, max_size=3))
    def start(self, offsets: list[int]) -> None:
        self.replicas = [self._begin(f"operator-{number}", offset) for number, offset in enumerate(offsets)]

    def _begin(self, name: str, offset: int) -> Replica:
        return Replica(Elector(ObjectName(name), str(next(self.tokens)), self.timings), offset)

    @rule(seconds=st.sampled_from([0.01, 0.5, 1.0, 2.0, 4.9, 5.0, 9.99, 10.0, 15.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)

    @rule(number=st.integers(0, 2))
    def a_replica_takes_its_turn(self, number: int) -> None:
        replica = self.replicas[number % len(self.replicas)]
        match replica.step:
            case Look() | Create() | Replace() if replica.waiting is None:
                replica.waiting = Message(replica, replica.step, self.clock(replica))
                self.under_way.append(replica.waiting)
                replica.gave_up_at = self.now + TIMINGS.request
            case Look() | Create() | Replace() if self.now >= replica.gave_up_at:
                self._tell(replica, StoreSilent(self.clock(replica), self.wall(replica)))
            case Rest() if self.now >= replica.rests_until:
                self._tell(replica, Rested(self.clock(replica), self.wall(replica)))
            case Leave():
                self._restart(replica)
            case _:
                pass

    @rule(number=st.integers(0, 2), turns=st.integers(1, 4))
    def the_network_is_quick(self, number: int, turns: int) -> None:
        """Some turns of one replica, without delay: random steps alone would hardly ever lead anybody to office."""
        replica = self.replicas[number % len(self.replicas)]
        for _ in range(turns):
            if isinstance(replica.step, Rest):
                self.now = max(self.now, replica.rests_until)
            self.a_replica_takes_its_turn(number)
            while replica.waiting is not None and replica.waiting in self.under_way:
                self.under_way.remove(replica.waiting)
                self._arrive(replica.waiting)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 50))
    def a_message_arrives(self, which: int) -> None:
        """At the store, which acts and answers; or the answer at its replica, where it may come too late."""
        self._arrive(self.under_way.pop(which % len(self.under_way)))

    def _arrive(self, message: Message) -> None:
        replica = message.replica
        if message.answer is None:
            message.answer = self.store.take(message, self.clock(replica), self.wall(replica))
            self.under_way.append(message)
        elif replica.waiting is message and self.now < replica.gave_up_at:
            self._tell(replica, replace(message.answer, at=self.clock(replica)))

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 50))
    def a_message_is_lost(self, which: int) -> None:
        self.under_way.pop(which % len(self.under_way))

    @rule(number=st.integers(0, 2))
    def a_replica_is_killed_and_started_again(self, number: int) -> None:
        self._restart(self.replicas[number % len(self.replicas)])

    def _restart(self, replica: Replica) -> None:
        self.replicas[self.replicas.index(replica)] = self._begin(replica.brain.replica, replica.offset // 2)

    def _tell(self, replica: Replica, event: LeaseSeen | LeaseWritten | LeaseRefused | StoreSilent | Rested) -> None:
        replica.waiting = None
        before = replica.brain.leads
        replica.step = replica.brain.next(event)
        if isinstance(replica.step, Rest):
            replica.rests_until = self.now + replica.step.length
        if replica.brain.leads and not before:
            self._took_office(replica)

    def _took_office(self, replica: Replica) -> None:
        """Everybody else stopped `GAP` before this one could have taken the lease."""
        for other in self.replicas:
            if other is not replica and other.brain.leads:
                silent_for = self.clock(other) - (other.brain.exposed - GAP)
                assert silent_for >= GAP, (other.brain.identity, silent_for)

    @invariant()
    def at_most_one_acts(self) -> None:
        acting = [replica for replica in self.replicas if replica.brain.acts(self.clock(replica))]
        assert len(acting) <= 1, [replica.brain.identity for replica in acting]
        if acting and self.store.lease is not None:
            assert self.store.lease.spec.holder_identity == acting[0].brain.identity


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestModel = Model.TestCase


class Hasty(Model):
    """The same with a leader that acts for longer than its lease."""

    timings = replace(TIMINGS, leader_deadline=Duration.seconds(20))


class Impatient(Model):
    """The same with a standby that takes the lease before it has run out."""

    timings = replace(TIMINGS, leader_lease=Duration.seconds(8), leader_deadline=Duration.seconds(10))


def standby_takes_over_as_soon_as_it_can(model: Model) -> None:
    model.start([0, 7])
    model.the_network_is_quick(0, 2)
    model.the_network_is_quick(1, 1)
    model.time_passes(8.0)
    model.the_network_is_quick(1, 3)
    model.at_most_one_acts()
    model.time_passes(5.0)
    model.the_network_is_quick(1, 2)
    model.at_most_one_acts()


def test_the_model_lets_a_standby_take_over() -> None:
    model = Model()
    standby_takes_over_as_soon_as_it_can(model)
    assert model.replicas[1].brain.acts(model.clock(model.replicas[1]))


@pytest.mark.parametrize("broken", [Hasty, Impatient])
def test_the_model_finds_what_breaks_the_promise(broken: type[Model]) -> None:
    with pytest.raises(AssertionError):
        standby_takes_over_as_soon_as_it_can(broken())

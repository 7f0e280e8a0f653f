"""The state machine that makes courses, and the comparison at the end of each.

Hypothesis chooses the operations, and leaves whole kinds of them out of some courses, which makes longer runs of the
others. The operations are collected and run in one go when the course is complete: on the model, then on the server.
A course has at most one fate that needs the server killed, because that costs as much as a hundred operations.
"""

from __future__ import annotations

import os
from collections import Counter
from enum import Enum
from typing import ClassVar, Final, Protocol

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from fleet.contracts.layout import MAX_VALUE_BYTES, Bucket
from tests.conformance.bus import operations as do
from tests.conformance.bus.drive import Seen, shown
from tests.conformance.bus.operations import Guess, Operation

EXAMPLES: Final = int(os.environ.get("FLEET_CONFORMANCE_EXAMPLES", "200"))
SEED: Final = int(os.environ.get("FLEET_CONFORMANCE_SEED", "1"))
STEPS: Final = 40
_COMMAND: Final = ".venv/bin/pytest tests/conformance/bus"
HEADER_LINES: Final = (
    b"KV-Operation: DEL",
    b"KV-Operation: PURGE",
    b"KV-Operation: MARK",
    b"Nats-Marker-Reason: MaxAge",
    b"Nats-TTL: 1",
    b"Nats-TTL: 5s",
    b"Nats-TTL: never",
    b"Nats-TTL: 0",
    b"Nats-TTL: soon",
    b"Nats-TTL:",
    b"Nats-Rollup: sub",
    b"Nats-Rollup: all",
    b"Nats-Rollup: bogus",
    b"Nats-Expected-Stream: KV_state",
    b"Nats-Expected-Stream: other",
    b"Nats-Expected-Last-Sequence: 0",
    b"Nats-Expected-Last-Sequence: 2",
    b"Nats-Expected-Last-Sequence: abc",
    b"Nats-Expected-Last-Subject-Sequence: 0",
    b"Nats-Expected-Last-Subject-Sequence: 1",
    b"Nats-Expected-Last-Subject-Sequence: abc",
    b"Nats-Expected-Last-Subject-Sequence:",
    b"Nats-Expected-Last-Msg-Id: x",
    b"Nats-Schedule: @at 2030-01-01T00:00:00Z",
    b"Nats-Incr: 1",
    b"Nats-Batch-Id: b",
    b"Nats-Stream-Source: x",
    b"Nats-Num-Pending: 3",
    b"Nats-Sequence: 999",
    b"Nats-Subject: $KV.state.dev-2.a",
    b"Status: 404",
    *do.MEANINGLESS,
)
RAW_KEYS: Final = (
    b"dev-1.a",
    b"dev-1.b",
    b"dev-2.a",
    b"dev-10.a",
    b"dev-1",
    b"dev-1.\xff\xfe",
    "dev-1.é".encode(),
    b"dev-1.\x00",
    b"dev-1.a\x0bb",
    b"dev-1.a\rb",
    b"dev-1.:#%",
    b"dev-1.*",
    b"dev-1.>",
    b"*",
    b">",
    b"dev-1..a",
    b"dev-1.a.",
    b".a",
    b"dev-1." + b"x" * 3800,
    b"dev-1." + b"x" * 4200,
)
FORBIDDEN: Final = (
    "$JS.API.STREAM.INFO.KV_state",
    "$JS.API.STREAM.PURGE.KV_state",
    "$JS.API.STREAM.DELETE.KV_state",
    "$JS.API.STREAM.UPDATE.KV_state",
    "$JS.API.STREAM.MSG.GET.KV_state",
    "$JS.API.STREAM.MSG.DELETE.KV_state",
    "$JS.API.STREAM.NAMES",
    "$JS.API.CONSUMER.CREATE.KV_desired",
    "$JS.API.CONSUMER.CREATE.KV_desired.x.$KV.desired.>",
    "$JS.API.DIRECT.GET.KV_desired",
    "$JS.API.DIRECT.GET.KV_state.$KV.state.dev-10.a",
)


class Fate(Enum):
    """What befalls the server in a course, once."""

    CALM = "calm"
    CRASH = "crash"
    TAIL = "tail"
    OLDER = "older"


clients = st.sampled_from(["operator", "operator", "operator", "dev-1", "dev-1", "dev-2"])
buckets = st.sampled_from([Bucket.STATE, Bucket.DESIRED])
OTHER_KEYS: Final = ("dev-1.b", "dev-2.a", "dev-10.a", "dev-1", "dev-1.a.b", "dev-1.*", "a..b")
keys = st.sampled_from(["dev-1.a"] * 5 + ["dev-1.b", "dev-10.a"] * 2 + list(OTHER_KEYS))
"""Most of what can go wrong needs several operations on one key."""
values = st.one_of(
    st.sampled_from([b"1", b"", b"\xff\x00", b"x" * MAX_VALUE_BYTES, b"x" * (MAX_VALUE_BYTES + 1)]),
    st.binary(max_size=4),
)
raw_values = st.sampled_from([b"r"] * 6 + [b"", b"\xff\xfe\x00", b"x" * 66_561, b"x" * 66_000, b"x" * 1_048_577])
prefixes = st.sampled_from(["", "dev-1", "dev-1", "dev-1", "dev-2", "dev-1.a", "dev-10", "never"])
guesses = st.sampled_from([Guess.NEWEST] * 3 + list(Guess))
subjects = st.sampled_from(["fleet.stop.dev-1", "fleet.stop.dev-2", "fleet.lock.dev-1", "fleet.lock.dev-2"])
served = st.one_of(subjects, st.just("fleet.lock.*"))

others = st.one_of(
    st.builds(do.RawRequest, st.sampled_from(["dev-1", "dev-2"]), st.sampled_from(FORBIDDEN)),
    st.builds(do.Ensure, buckets, st.sampled_from([1, 8])),
    st.builds(do.Reopen, clients),
    st.builds(do.MayLogIn, clients),
)
"""What depends on nothing that came before it, and would crowd out what does."""


_A: Final = ("operator", Bucket.STATE, "dev-1.a")
TOUR: Final[tuple[tuple[Operation, ...], ...]] = (
    tuple(do.RawWrite("operator", Bucket.STATE, b"dev-1.a", (line,), b"r") for line in HEADER_LINES),
    (
        do.Listen("operator", Bucket.STATE, "dev-1"),
        do.Serve("dev-1", "fleet.stop.dev-1", b"!"),
        do.Put(*_A, b"1"),
        do.Update(*_A, b"2", Guess.NEWEST),
        do.Post("dev-1", Bucket.STATE, "dev-1.b", b"3"),
        do.Delete(*_A, None),
        do.MayLogIn("operator"),
        do.Get(*_A),
        do.Entries("operator", Bucket.STATE, "dev-1"),
        do.Request("operator", "fleet.stop.dev-1", b"q"),
        do.RawRequest("dev-1", FORBIDDEN[0]),
        do.Ensure(Bucket.STATE, 8),
        do.EndSubscription(0),
        do.Reopen("dev-1"),
    ),
    (do.Listen("operator", Bucket.STATE, ""), do.Put(*_A, b"1"), do.Crash(), do.Put(*_A, b"2")),
    (do.Put(*_A, b"1"), do.Put(*_A, b"2"), do.LoseTail(Bucket.STATE, 1), do.Put(*_A, b"3")),
    (do.Put(*_A, b"1"), do.Keep(), do.Put(*_A, b"2"), do.Restore(), do.Put(*_A, b"3")),
)
"""Courses that every run begins with: whatever chance leaves out, each operation is done once."""


class Divergence(AssertionError):
    """The two makers showed something different in a course."""

    def __init__(self, story: str, course: tuple[Operation, ...]) -> None:
        super().__init__(story, course)
        self.course = course

    def __str__(self) -> str:
        return str(self.args[0])


class Makers(Protocol):
    """What runs courses: the model, and what it is compared with."""

    def on_model(self, course: tuple[Operation, ...]) -> list[Seen]:
        """What the model shows."""
        ...

    def on_server(self, course: tuple[Operation, ...]) -> list[Seen]:
        """What the other shows."""
        ...


class Courses(RuleBasedStateMachine):
    """Collects a course, and compares."""

    makers: ClassVar[Makers]
    number: ClassVar[int]
    executed: ClassVar[Counter[str]]
    ran: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self.course: list[Operation] = []
        self.fate = Fate.CALM

    def teardown(self) -> None:
        course = tuple(self.course)
        self.run_course(course)

    @classmethod
    def run_course(cls, course: tuple[Operation, ...]) -> None:
        """Compare a course, and count it. Raises: Divergence."""
        compare(cls.makers, course, cls.number)
        cls.ran += 1
        for operation in course:
            cls.executed.update(do.features(operation))

    @initialize(fate=st.sampled_from([Fate.CALM] * 8 + [Fate.CRASH, Fate.TAIL, Fate.TAIL, Fate.OLDER]))
    def begin(self, fate: Fate) -> None:
        self.fate = fate

    @rule(client=clients, bucket=buckets, key=keys, value=values)
    def put(self, client: str, bucket: Bucket, key: str, value: bytes) -> None:
        self.course.append(do.Put(client, bucket, key, value))

    @rule(client=clients, bucket=buckets, key=keys, value=values)
    def post(self, client: str, bucket: Bucket, key: str, value: bytes) -> None:
        self.course.append(do.Post(client, bucket, key, value))

    @rule(client=clients, bucket=buckets, key=keys, value=values, last=guesses)
    def update(self, client: str, bucket: Bucket, key: str, value: bytes, last: Guess) -> None:
        self.course.append(do.Update(client, bucket, key, value, last))

    @rule(client=clients, bucket=buckets, key=keys, last=st.one_of(st.none(), guesses))
    def delete(self, client: str, bucket: Bucket, key: str, last: Guess | None) -> None:
        self.course.append(do.Delete(client, bucket, key, last))

    @rule(client=clients, bucket=buckets, key=keys)
    def get(self, client: str, bucket: Bucket, key: str) -> None:
        self.course.append(do.Get(client, bucket, key))

    @rule(client=clients, bucket=buckets, prefix=prefixes)
    def entries(self, client: str, bucket: Bucket, prefix: str) -> None:
        self.course.append(do.Entries(client, bucket, prefix))

    @rule(client=clients, bucket=buckets, prefix=prefixes)
    def listen(self, client: str, bucket: Bucket, prefix: str) -> None:
        self.course.append(do.Listen(client, bucket, prefix))

    @rule(client=clients, subject=served, answer=st.sampled_from([b"!", b"", None]))
    def serve(self, client: str, subject: str, answer: bytes | None) -> None:
        self.course.append(do.Serve(client, subject, answer))

    @rule(number=st.integers(0, 3))
    def end_subscription(self, number: int) -> None:
        self.course.append(do.EndSubscription(number))

    @rule(client=clients, subject=subjects, payload=st.sampled_from([b"", b"q", b"x" * (MAX_VALUE_BYTES + 1)]))
    def request(self, client: str, subject: str, payload: bytes) -> None:
        self.course.append(do.Request(client, subject, payload))

    @rule(
        user=clients,
        bucket=buckets,
        key=st.sampled_from([b"dev-1.a"] * 8 + list(RAW_KEYS)),
        lines=st.lists(st.sampled_from(HEADER_LINES), max_size=3),
        value=raw_values,
    )
    def write_raw(self, user: str, bucket: Bucket, key: bytes, lines: list[bytes], value: bytes) -> None:
        known = () if b"\r" in key else tuple(lines)  # left out: see the surface
        self.course.append(do.RawWrite(user, bucket, key, known, value))

    @rule(operation=others)
    def another(self, operation: Operation) -> None:
        self.course.append(operation)

    @precondition(lambda self: self.fate is Fate.CRASH and not self.has(do.Crash))
    @rule()
    def crash(self) -> None:
        self.course.append(do.Crash())

    @precondition(lambda self: self.fate is Fate.TAIL and not self.has(do.LoseTail))
    @rule(bucket=buckets, writes=st.integers(1, 4))
    def lose_tail(self, bucket: Bucket, writes: int) -> None:
        self.course.append(do.LoseTail(bucket, writes))

    @precondition(lambda self: self.fate is Fate.OLDER and not self.has(do.Restore))
    @rule()
    def keep_or_restore(self) -> None:
        self.course.append(do.Restore() if self.has(do.Keep) else do.Keep())

    def has(self, kind: type[Operation]) -> bool:
        return any(isinstance(operation, kind) for operation in self.course)


def compare(makers: Makers, course: tuple[Operation, ...], number: int) -> None:
    """Run a course on both makers. Raises: Divergence at the first operation that shows something different."""
    model, server = makers.on_model(course), makers.on_server(course)
    if model == server:
        return
    for step, (ours, real) in enumerate(zip(model, server, strict=True)):
        if ours != real:
            raise Divergence(_story(course[: step + 1], number, ours, real), course)


def explore(
    makers: Makers, examples: int, number: int, phases: tuple[Phase, ...] = tuple(Phase), has_tour: bool = True
) -> type[Courses]:
    """Make and compare courses. The answer knows how many ran, and what they exercised. Raises: Divergence."""

    class Run(Courses):
        executed: ClassVar[Counter[str]] = Counter()
        ran = 0

    Run.makers = makers
    Run.number = number
    limits = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[phase for phase in phases if phase is not Phase.explain],
        suppress_health_check=list(HealthCheck),
    )
    for course in TOUR if has_tour else ():
        Run.run_course(course)
    run_state_machine_as_test(seed(number)(Run), settings=limits)
    return Run


def _story(course: tuple[Operation, ...], number: int, ours: Seen, real: Seen) -> str:
    done = [f"  {place}. {_cut(operation)}" for place, operation in enumerate(course, 1)]
    return "\n".join(
        (
            "the model and the server differ at the last of these operations:",
            *done,
            f"  model:  {shown(ours)}",
            f"  server: {shown(real)}",
            f"again: FLEET_CONFORMANCE_SEED={number} FLEET_CONFORMANCE_EXAMPLES={EXAMPLES} {_COMMAND}",
        )
    )


def _cut(operation: Operation) -> str:
    text = repr(operation)
    return text if len(text) <= 200 else f"{text[:200]}…"

"""Every codec answers any bytes with a value or with `InvalidValue`, and what it took it writes and reads again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import statefile
from agent.events import AttemptRecord
from agent.store import KeptWorkload, KeptWorkloads, QuarantineMark, TrialCount, VerifiedMark
from fleet.adapters import objects as standalone
from fleet.capabilities.bus import Stored
from fleet.capabilities.objects import InvalidObject
from fleet.capabilities.secrets import Secret
from fleet.contracts import layout, nkeys
from fleet.contracts.errors import InvalidValue, Refused
from fleet.contracts.ids import BootId, ObjectName, Revision, Slot
from fleet.contracts.keys import check_key, shown
from fleet.contracts.layout import Bucket, Invalid, Valid
from fleet.contracts.objects import (
    AgentRollout,
    Deployment,
    DeploymentSpec,
    Device,
    Metadata,
    Object,
    RolloutGroup,
    RolloutSpec,
)
from fleet.contracts.records import DesiredWorkload, Record, ReleaseManifest
from fleet.contracts.time import Instant
from fleet.secrets import codec
from fleet.secrets.documents import Kept
from tests.fuzz.hostile import (
    ARTEFACT,
    ATTEMPT,
    NEW,
    OLD,
    REQUESTS,
    STORED,
    altered,
    entries,
    fuzzed,
    json_values,
    keys,
    revisions,
    values,
)

WORKLOAD = next(record for record in STORED if isinstance(record, DesiredWorkload))
META = Metadata(name=ObjectName("thing"))
OBJECTS: tuple[Object, ...] = (
    Device(metadata=META),
    Deployment(metadata=META, spec=DeploymentSpec(score=WORKLOAD.score)),
    AgentRollout(
        metadata=META, spec=RolloutSpec(artefacts=(ARTEFACT,), groups=(RolloutGroup(name=ObjectName("all")),))
    ),
)
STATE_FILES = (
    AttemptRecord(attempt=ATTEMPT, release=NEW, previous=OLD, origin=Slot.A, boot=BootId("boot-1")),
    KeptWorkloads(workloads=(KeptWorkload(revision=Revision(3), desired=WORKLOAD),)),
    QuarantineMark(version=NEW.version, reason="it crashes", attempt=ATTEMPT),
    VerifiedMark(version=OLD.version, sha256=OLD.sha256, before=NEW),
    TrialCount(sha256=NEW.sha256, starts=2),
    ReleaseManifest(version=OLD.version, sha256=OLD.sha256, size=5, unpacked="x"),
)


@fuzzed
@given(entries(*STORED), revisions)
def test_any_entry_is_valid_or_invalid(entry: tuple[Bucket, str, bytes], revision: Revision) -> None:
    bucket, key, value = entry
    found = layout.read(bucket, key, value, revision)
    match found:
        case Valid(record):
            assert layout.address_of(record).key == key
            assert layout.read(bucket, key, layout.encode(record), revision) == found
        case Invalid():
            assert found.reason
            assert len(found.reason) < 4000


@fuzzed
@given(st.sampled_from([*STORED, *REQUESTS]).flatmap(lambda record: st.tuples(st.just(type(record)), values(record))))
def test_any_record_is_read_or_refused(asked: tuple[type[Record], bytes]) -> None:
    kind, value = asked
    try:
        record = layout.decode(kind, value)
    except InvalidValue:
        return
    assert layout.decode(kind, layout.encode(record)) == record


@fuzzed
@given(
    st.sampled_from(OBJECTS).flatmap(
        lambda item: st.tuples(st.just(type(item)), altered(item.model_dump_json().encode()) | st.binary(max_size=60))
    )
)
def test_any_object_is_read_or_invalid(asked: tuple[type[Object], bytes]) -> None:
    kind, value = asked
    entry = Stored(Bucket.OBJECTS, f"{kind.kind_name}.thing", Revision(5), value)
    found = standalone._read(kind, entry)
    if isinstance(found, InvalidObject):
        assert found.reason
    else:
        assert (found.name, found.metadata.resource_version) == ("thing", "5")


@fuzzed
@given(keys)
def test_any_key_is_taken_or_refused_and_can_be_shown(key: str) -> None:
    assert shown(key).isprintable()
    try:
        check_key(key)
    except Refused:
        return
    assert key.isascii()


@fuzzed
@given(
    st.sampled_from(STATE_FILES).flatmap(
        lambda value: st.tuples(
            st.just(type(value)),
            altered(statefile.encode(value))
            | st.binary(max_size=60)
            | json_values.map(lambda found: json.dumps(found).encode()),
        )
    )
)
def test_any_state_file_is_read_or_refused(asked: tuple[type[AttemptRecord], bytes]) -> None:
    kind, data = asked
    try:
        value = statefile.decode(kind, data)
    except InvalidValue:
        return
    assert statefile.decode(kind, statefile.encode(value)) == value


def respelt(content: bytes) -> bytes:
    """As this program spells JSON: otherwise nothing gets further than that check."""
    try:
        return json.dumps(json.loads(content), indent=1, sort_keys=True).encode() + b"\n"
    except (ValueError, RecursionError):
        return content


SECRET = Kept(
    Secret(ObjectName("a"), 2, Instant(9), b"second-value"), Secret(ObjectName("a"), 1, Instant(3), b"first-value")
)


@fuzzed
@given(altered(codec.to_json(codec.encode(SECRET))).map(respelt) | st.binary(max_size=60))
def test_any_secret_file_is_whole_or_refused_and_never_quoted(content: bytes) -> None:
    try:
        kept = codec.decode("here", ObjectName("a"), codec.from_json("here", content))
    except InvalidValue as error:
        said = str(error)
    else:
        assert kept == SECRET
        return
    assert "second-value" not in said
    assert "first-value" not in said


@fuzzed
@given(st.binary(max_size=70))
def test_any_nkey_seed_is_read_or_refused(seed: bytes) -> None:
    try:
        kind, secret = nkeys.decode_seed(seed)
    except InvalidValue:
        return
    assert nkeys.encode_seed(kind, secret).rstrip(b"=") == seed.rstrip(b"=")


def test_the_corpus_is_valid() -> None:
    """A corpus of invalid records would fuzz nothing but the first check."""
    for record in STORED:
        address = layout.address_of(record)
        assert isinstance(layout.read(address.bucket, address.key, layout.encode(record), Revision(1)), Valid)
    for value in STATE_FILES:
        assert statefile.decode(type(value), statefile.encode(value)) == value
    with pytest.raises(InvalidValue):
        layout.decode(DesiredWorkload, b"{}")

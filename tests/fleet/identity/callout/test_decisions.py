"""Who is let in as which device, and whose connection has to end."""

from __future__ import annotations

from fleet.capabilities.bus import Deleted, Entry, Stored
from fleet.capabilities.callout import Connected
from fleet.contracts import layout
from fleet.contracts.ids import DeviceId, Revision
from fleet.contracts.layout import Bucket
from fleet.contracts.permissions import of_device
from fleet.contracts.records import Admitted, Enrolment, Revoked
from fleet.contracts.time import Duration, Instant
from fleet.identity.callout.brain import Allow, Refuse, decide, has_to_end
from fleet.identity.callout.roster import Ambiguous, Nobody, Roster
from fleet.identity.callout.tokens import Unacceptable, UnknownKey, Verified

T = Instant(1_800_000_000 * 10**9)
LATER = T + Duration.seconds(60)
DEV = DeviceId("dev-1")
TOKEN = Verified("u-1", T, T + Duration.minutes(60))
CONNECTION = Connected("c", DEV, T)


def admitted(revision: int, device: str = "dev-1", user: str = "u-1", since: Instant = T) -> Entry:
    return stored(revision, device, Enrolment(device=DeviceId(device), user=user, standing=Admitted(tokens_from=since)))


def revoked(revision: int, device: str = "dev-1", user: str = "u-1", at: Instant = LATER) -> Entry:
    return stored(revision, device, Enrolment(device=DeviceId(device), user=user, standing=Revoked(at=at)))


def stored(revision: int, key: str, enrolment: Enrolment) -> Entry:
    return Stored(Bucket.IDENTITY, key, Revision(revision), layout.encode(enrolment))


def garbage(revision: int, key: str = "dev-1") -> Entry:
    return Stored(Bucket.IDENTITY, key, Revision(revision), b"\xff{")


def gone(revision: int, key: str = "dev-1") -> Entry:
    return Deleted(Bucket.IDENTITY, key, Revision(revision))


def roster(*entries: Entry) -> Roster:
    made = Roster()
    before = made.complete
    made.replace(entries)
    assert (before, made.complete) == (False, True)
    return made


def refusal(found: Allow | Refuse) -> str:
    assert isinstance(found, Refuse)
    return found.reason


def test_an_enrolled_user_is_its_device_until_its_token_expires() -> None:
    found = decide(TOKEN, roster(admitted(1), admitted(2, "dev-2", "u-2")))
    assert isinstance(found, Allow)
    assert (found.admission.device, found.admission.expires) == (DEV, TOKEN.expires)
    assert found.admission.permissions == of_device(DEV)


def test_everybody_else_is_refused_with_a_reason() -> None:
    assert "no device" in refusal(decide(TOKEN, roster()))
    assert "no device" in refusal(decide(TOKEN, roster(admitted(1, user="u-2"))))
    assert refusal(decide(TOKEN, roster(revoked(1)))) == "dev-1 is revoked"
    assert "before its enrolment" in refusal(decide(TOKEN, roster(admitted(1, since=LATER))))
    assert "does not list" in refusal(decide(UnknownKey("k"), roster(admitted(1))))
    assert refusal(decide(Unacceptable("why"), roster(admitted(1)))) == "why"
    assert "no device" in refusal(decide(TOKEN, roster(garbage(1))))
    assert "no device" in refusal(decide(TOKEN, roster(gone(1))))


def test_a_user_of_two_devices_is_neither() -> None:
    both = roster(admitted(1), admitted(2, "dev-2"))
    assert both.of_user("u-1") == Ambiguous((DeviceId("dev-1"), DeviceId("dev-2")))
    assert "dev-1, dev-2" in refusal(decide(TOKEN, both))
    both.apply(admitted(3, "dev-2", "u-2"))
    assert isinstance(decide(TOKEN, both), Allow)


def test_pushes_move_the_roster_on_and_never_back() -> None:
    known = roster(admitted(1))
    known.apply(revoked(3))
    known.apply(admitted(2))
    assert refusal(decide(TOKEN, known)) == "dev-1 is revoked"
    known.apply(admitted(4, since=LATER))
    assert isinstance(decide(Verified("u-1", LATER, TOKEN.expires), known), Allow)
    known.apply(admitted(5, user="u-9"))
    assert isinstance(known.of_user("u-1"), Nobody)


def test_an_unreadable_entry_is_told_once_and_healed_by_a_write() -> None:
    known = roster(admitted(1))
    (told,) = known.apply(garbage(2))
    assert told.revision == 2
    assert known.replace([garbage(2)]) == ()
    assert len(known.replace([garbage(3)])) == 1
    assert known.devices == 0
    known.apply(admitted(4))
    assert isinstance(decide(TOKEN, known), Allow)
    assert len(known.replace([admitted(4), garbage(5, "no such key\x00")])) == 1


def test_an_older_store_does_not_undo_a_revocation() -> None:
    known = roster(admitted(1), revoked(9))
    for _ in range(2):
        known.replace([admitted(1)])
        assert refusal(decide(TOKEN, known)) == "dev-1 is revoked"
    known.replace([admitted(2, since=LATER)])
    assert isinstance(decide(Verified("u-1", LATER, TOKEN.expires), known), Allow)
    known.replace([admitted(1)])
    assert isinstance(decide(TOKEN, known), Allow)


def test_a_new_write_to_an_older_store_counts() -> None:
    known = roster(revoked(9))
    known.replace([])
    known.apply(admitted(2))
    assert isinstance(decide(TOKEN, known), Allow)
    known.replace([admitted(2)])
    assert isinstance(decide(TOKEN, known), Allow)


def test_connections_end_with_what_admitted_them() -> None:
    assert not has_to_end(CONNECTION, roster(admitted(1)))
    assert has_to_end(CONNECTION, roster(revoked(1)))
    assert has_to_end(CONNECTION, roster(gone(1)))
    assert has_to_end(CONNECTION, roster(admitted(1, since=LATER)))
    assert not has_to_end(CONNECTION, roster(admitted(1), revoked(2, "dev-2", "u-2")))


def test_what_cannot_be_read_or_was_lost_ends_no_connection() -> None:
    assert not has_to_end(CONNECTION, roster(garbage(1)))
    assert not has_to_end(CONNECTION, roster())

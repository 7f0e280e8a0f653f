"""Decides who comes in and whose connection has to end: pure functions of a verified token and the enrolments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from fleet.capabilities.bus import Deleted
from fleet.capabilities.callout import Admission, Connected
from fleet.contracts.layout import Invalid, Valid
from fleet.contracts.permissions import of_device
from fleet.contracts.records import Admitted, Enrolment, Revoked
from fleet.identity.callout.roster import Ambiguous, Nobody, Roster
from fleet.identity.callout.tokens import Unacceptable, UnknownKey, Verification, Verified


@dataclass(frozen=True, slots=True)
class Allow:
    """The client is that device, with the permissions of that device, until its token expires."""

    admission: Admission


@dataclass(frozen=True, slots=True)
class Refuse:
    """It is turned away. The reason is for the callout's own log."""

    reason: str


def decide(verification: Verification, roster: Roster) -> Allow | Refuse:
    """Who the client is, if anybody."""
    match verification:
        case Unacceptable(reason=reason):
            return Refuse(reason)
        case UnknownKey():
            return Refuse("the token is signed by a key that the provider does not list")
        case Verified():
            return _identify(verification, roster)
        case _:
            assert_never(verification)


def _identify(token: Verified, roster: Roster) -> Allow | Refuse:
    found = roster.of_user(token.user)
    match found:
        case Nobody():
            return Refuse(f"user {token.user!r} is no device of this fleet")
        case Ambiguous(devices=devices):
            return Refuse(f"user {token.user!r} is enrolled as several devices: {', '.join(devices)}")
        case Enrolment():
            return _admit(token, found)
        case _:
            assert_never(found)


def _admit(token: Verified, enrolment: Enrolment) -> Allow | Refuse:
    device = enrolment.device
    match enrolment.standing:
        case Revoked():
            return Refuse(f"{device} is revoked")
        case Admitted(tokens_from=tokens_from) if token.issued < tokens_from:
            return Refuse(f"{device} shows a token from before its enrolment")
        case Admitted():
            return Allow(Admission(device, token.user, token.issued, token.expires, of_device(device)))
        case _:
            assert_never(enrolment.standing)


def has_to_end(connection: Connected, roster: Roster) -> bool:
    """Whether a connection that stands would not be let in any more.

    An entry that cannot be read, or was lost, ends nothing: it says that nobody may come in, not that somebody has to
    go. The connection ends with its token.
    """
    known = roster.of_device(connection.device)
    match known:
        case Valid(record=Enrolment(standing=Admitted(tokens_from=tokens_from))):
            return connection.issued < tokens_from
        case Valid() | Deleted():
            return True
        case Invalid() | None:
            return False
        case _:
            assert_never(known)

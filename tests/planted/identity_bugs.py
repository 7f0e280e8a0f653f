"""Bugs of logins by token: in the callout, in how a device gets its tokens, and in what the two are to each other."""

from __future__ import annotations

from typing import Final

import fleet.identity.callout.brain as callout_brain
from fleet.adapters.token_login import TokenLoginSource
from fleet.adapters.zitadel_exchange import Exchange
from fleet.capabilities.callout import Admission, Connected
from fleet.contracts.auth import FleetDeviceAuth
from fleet.contracts.permissions import of_device
from fleet.contracts.records import Enrolment, Revoked
from fleet.contracts.time import Instant
from fleet.identity.callout import service
from fleet.identity.callout.brain import Allow, Refuse
from fleet.identity.callout.roster import Roster
from fleet.identity.callout.tokens import Verified
from sim.nats import SimBus
from tests.planted.plant import CHECK, STUCK, Bug, Patch

REVOKED: Final = "identity/revoked-and-enrolled-again.toml"
OUT: Final = "revoked-stay-out"


def _connection_left_standing(patch: Patch) -> None:
    def never(connection: Connected, roster: Roster) -> bool:
        return False

    patch.setattr(service, "has_to_end", never)


def _revoked_let_in_again(patch: Patch) -> None:
    real = callout_brain._admit

    def admit(token: Verified, enrolment: Enrolment) -> Allow | Refuse:
        if isinstance(enrolment.standing, Revoked):
            device = enrolment.device
            return Allow(Admission(device, token.user, token.issued, token.expires, of_device(device)))
        return real(token, enrolment)

    patch.setattr(callout_brain, "_admit", admit)


def _token_shown_for_ever(patch: Patch) -> None:
    patch.setattr(TokenLoginSource, "turned_away", lambda source: None)


def _token_not_shared(patch: Patch) -> None:
    def none(source: TokenLoginSource, auth: FleetDeviceAuth) -> None:
        return None

    patch.setattr(TokenLoginSource, "_left_by_others", none)


def _clock_believed(patch: Patch) -> None:
    def now(exchange: Exchange) -> Instant:
        return exchange.clock.wall()

    patch.setattr(Exchange, "now", now)


def _logins_not_tried(patch: Patch) -> None:
    async def yes(bus: SimBus) -> bool:
        return True

    patch.setattr(SimBus, "may_log_in", yes)


BUGS: Final = (
    Bug(
        "connection of a revoked device left standing",
        "a revocation that only new logins notice",
        REVOKED,
        (OUT,),
        _connection_left_standing,
    ),
    Bug(
        "revoked device let in again",
        "it is cut off, and comes back with the token that it has",
        REVOKED,
        (OUT, STUCK),
        _revoked_let_in_again,
    ),
    Bug(
        "token shown again whatever the server says",
        "locked out for hours after a rotation of signing keys",
        "identity/signing-keys-rotated.toml",
        (STUCK,),
        _token_shown_for_ever,
    ),
    Bug(
        "token not shared by the instances",
        "a new release cannot log in while the provider is away",
        "identity/provider-restarted-in-the-overlap.toml",
        (CHECK, STUCK),
        _token_not_shared,
    ),
    Bug(
        "device's own clock believed",
        "assertions from the past or the future after a boot without a time server",
        "identity/clock-wrong-at-boot.toml",
        (CHECK, STUCK),
        _clock_believed,
    ),
    Bug(
        "outage of logins taken for a fault of the release",
        "the old instance is in, so the new one has to be at fault",
        "identity/callout-down-in-the-overlap.toml",
        (CHECK, STUCK),
        _logins_not_tried,
    ),
)

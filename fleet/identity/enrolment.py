"""How a device comes by an identity, changes its key, loses its identity and gets one back.

Each of these is a row of steps at three places: the provider, the device, the bus. Whoever stops between any two of
them runs the same command again: what was done is found, what is missing is done, and what was left over is removed.
Two orders matter. A key is used by the device only after a token was got with it. A revoked device is refused on the
bus first, because that is what takes effect at once, and is admitted there last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fleet.capabilities.clock import Clock
from fleet.capabilities.identity import AccountState, DeviceKeys, IdentityProvider, MachineUser, TokenMint
from fleet.contracts.auth import FleetDeviceAuth, scopes_in
from fleet.contracts.errors import NotFound, NotPermitted, Refused
from fleet.contracts.ids import DeviceId
from fleet.contracts.records import Admitted, Enrolment, Revoked
from fleet.contracts.time import Duration, Instant
from fleet.identity.auth import DeviceEnrollmentIntent
from fleet.identity.enrolments import Enrolments

SHOWS_WITHIN: Final = Duration.seconds(60)
"""A provider may take this long until a key that it took is good for a token."""
BETWEEN_TRIES: Final = Duration.seconds(2)
_SECOND: Final = Duration.seconds(1)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the steps are done, apart from the device."""

    idp: IdentityProvider
    enrolments: Enrolments
    mint: TokenMint
    clock: Clock


@dataclass(frozen=True, slots=True)
class Made:
    """The identity; `is_new` when a key was put into use."""

    auth: FleetDeviceAuth
    is_new: bool


async def enroll(intent: DeviceEnrollmentIntent, keys: DeviceKeys, places: Places) -> Made:
    """Give the device an identity, or finish giving it one; an identity that is whole stays as it is.

    Raises:
        Refused: the device is revoked, or the provider has its user deactivated. Otherwise as the ports.
    """
    found = await places.enrolments.read(intent.device)
    if found.record is not None and isinstance(found.record.standing, Revoked):
        raise Refused(f"device {intent.device} is revoked: only `fleet device re-enroll` admits it again")
    user = await _user(intent, places)
    if user.state is AccountState.INACTIVE:
        raise Refused(f"the provider has user {user.id} deactivated: only `fleet device re-enroll` admits it again")
    auth = await keys.auth()
    is_new = auth is None or not await _is_good(auth, intent, user, places)
    if auth is None or is_new:
        auth = await _proven(intent, user, keys, places)
    if found.record is None or found.record.user != user.id:
        now = await places.idp.now()
        await places.enrolments.write(_admitted(intent.device, user, now), found.revision)
    await keys.commit(auth)
    await _remove_keys(user.id, auth.key, places)
    return Made(auth, is_new)


async def rotate_key(intent: DeviceEnrollmentIntent, keys: DeviceKeys, places: Places) -> FleetDeviceAuth:
    """Give an enrolled device another key. Both keys are good until the device uses the new one.

    Raises:
        Refused: the device is revoked. NotFound: it has no identity. Otherwise as the ports.
    """
    record = await _enrolled(intent.device, places)
    if isinstance(record.standing, Revoked):
        raise Refused(f"device {intent.device} is revoked: only `fleet device re-enroll` admits it again")
    auth = await keys.auth()
    if auth is None or auth.user != record.user:
        raise NotFound(f"there is no identity of {intent.device} on the device: `fleet device enroll` makes one")
    user = MachineUser(record.user, intent.device, AccountState.ACTIVE, True)
    fresh = await _proven(intent, user, keys, places)
    await keys.commit(fresh)
    await _remove_keys(user.id, fresh.key, places)
    return fresh


async def revoke(device: DeviceId, reason: str, places: Places) -> Enrolment:
    """Refuse the device from now on: on the bus, then at the provider.

    The callout refuses it, and ends its connection, as soon as it sees the record. Tokens that the device holds are
    good nowhere on the bus from then on, whatever the provider says; the provider hands out no new ones once it knows.

    Raises:
        NotFound: neither the bus nor the provider knows it. Otherwise as the ports; running it again finishes it.
    """
    found = await places.enrolments.read(device)
    record = found.record
    user = (await places.idp.find_device_user(device)).id if record is None else record.user
    if record is None or not isinstance(record.standing, Revoked):
        record = Enrolment(device=device, user=user, standing=Revoked(at=places.clock.wall(), reason=reason))
        await places.enrolments.write(record, found.revision)
    try:
        await places.idp.deactivate(user)
    except NotFound:
        return record
    await _remove_keys(user, None, places)
    return record


async def re_enroll(intent: DeviceEnrollmentIntent, keys: DeviceKeys, places: Places) -> FleetDeviceAuth:
    """Admit a device again, with another key; nothing that it had before is good any more, on whatever card it is.

    Raises:
        NotFound: neither the bus nor the provider knows it. Otherwise as the ports.
    """
    found = await places.enrolments.read(intent.device)
    if found.record is None:
        await _known_to_the_provider(intent.device, places)
    user = await _user(intent, places)
    await places.idp.reactivate(user.id)
    fresh = await _proven(intent, user, keys, places, alone=True)
    await places.enrolments.write(_admitted(intent.device, user, await _next_second(places)), found.revision)
    await keys.commit(fresh)
    return fresh


async def _enrolled(device: DeviceId, places: Places) -> Enrolment:
    record = (await places.enrolments.read(device)).record
    if record is None:
        raise NotFound(f"device {device} was never enrolled: `fleet device enroll` does that")
    return record


async def _known_to_the_provider(device: DeviceId, places: Places) -> None:
    """A store of the bus that is older than the enrolment has lost its record."""
    try:
        await places.idp.find_device_user(device)
    except NotFound:
        raise NotFound(f"device {device} was never enrolled: `fleet device enroll` does that") from None


async def _user(intent: DeviceEnrollmentIntent, places: Places) -> MachineUser:
    """The device's user, with its role and with tokens that can be verified offline."""
    user = await places.idp.create_device_user(intent.device)
    await places.idp.use_jwt_tokens(user)
    await places.idp.grant_role(user.id, intent.role)
    return user


async def _is_good(auth: FleetDeviceAuth, intent: DeviceEnrollmentIntent, user: MachineUser, places: Places) -> bool:
    """Whether what lies on the device is what would be put there, and the provider knows its key."""
    wanted = (intent.issuer, scopes_in(intent.project), user.id)
    return (auth.issuer, auth.scopes, auth.user) == wanted and auth.key in await places.idp.keys(user.id)


async def _proven(
    intent: DeviceEnrollmentIntent, user: MachineUser, keys: DeviceKeys, places: Places, alone: bool = False
) -> FleetDeviceAuth:
    """An identity with the device's next key, by which a token was got. `alone`: every other key is removed before."""
    key = await keys.next_key()
    expires = await places.idp.now() + intent.key_lifetime
    number = await places.idp.add_key(user.id, key.public, expires)
    if alone:
        await _remove_keys(user.id, number, places)
    auth = FleetDeviceAuth(
        issuer=intent.issuer, scopes=scopes_in(intent.project), user=user.id, key=number, private_key=key.path
    )
    await _try_until_it_shows(auth, places)
    return auth


async def _try_until_it_shows(auth: FleetDeviceAuth, places: Places) -> None:
    """Raises: NotPermitted when no token is to be had by it for a minute."""
    until = places.clock.monotonic() + SHOWS_WITHIN
    while True:
        try:
            await places.mint.mint(auth)
        except NotPermitted:
            if places.clock.monotonic() >= until:
                raise
            await places.clock.sleep(BETWEEN_TRIES)
        else:
            return


async def _remove_keys(user: str, kept: str | None, places: Places) -> None:
    for key in await places.idp.keys(user):
        if key != kept:
            await places.idp.remove_key(user, key)


async def _next_second(places: Places) -> Instant:
    """The provider's next full second, once it has come: no token from before is as young, all from now on are."""
    wanted = await places.idp.now() + _SECOND
    while await places.idp.now() < wanted:
        await places.clock.sleep(Duration.millis(200))
    return wanted


def _admitted(device: DeviceId, user: MachineUser, since: Instant) -> Enrolment:
    return Enrolment(device=device, user=user.id, standing=Admitted(tokens_from=since))

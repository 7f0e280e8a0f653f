"""After the bus was restored from an older store: bring the enrolments back into line with the provider.

The enrolment records stand on the bus, and a store that is older than they are has lost some. A device whose record is
gone stays out although its key is good: nobody has to visit it, because the provider knows it still. A device whose
revocation is gone would be let in for as long as its last token lasts: the provider knows that it is deactivated.

Only what has one right answer is done. What two histories may have led to is told, and left to a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from fleet.capabilities.identity import AccountState, IdentityProvider, MachineUser
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId, Revision
from fleet.contracts.records import Admitted, Enrolment, Revoked
from fleet.identity.enrolments import Enrolments

REASON: Final = "the provider has its user deactivated"


@dataclass(frozen=True, slots=True)
class Admit:
    """The provider lets it in and has a key of its, and the bus knows nothing of it."""

    device: DeviceId
    user: MachineUser


@dataclass(frozen=True, slots=True)
class Refuse:
    """The provider does not let it in, and the bus does or knows nothing of it."""

    device: DeviceId
    user: MachineUser


@dataclass(frozen=True, slots=True)
class Unclear:
    """The two do not agree, and nothing says which is right. `advice` is for people."""

    device: DeviceId
    advice: str


Finding = Admit | Refuse | Unclear


def compare(device: DeviceId, record: Enrolment | None, user: MachineUser | None, has_keys: bool) -> Finding | None:
    """What the two know of one device; None where they agree. `has_keys`: the provider has a key of the user."""
    if user is None:
        return None if record is None or isinstance(record.standing, Revoked) else Unclear(device, _stranger(device))
    if record is None:
        if user.state is AccountState.INACTIVE:
            return Refuse(device, user)
        return Admit(device, user) if has_keys else None
    if record.user != user.id:
        return Unclear(device, f"the bus has user {record.user}, the provider {user.id}: {_again(device)}")
    match record.standing, user.state:
        case (Admitted(), AccountState.ACTIVE) | (Revoked(), AccountState.INACTIVE):
            return None
        case Admitted(), AccountState.INACTIVE:
            return Refuse(device, user)
        case _:
            return Unclear(
                device,
                f"it is revoked on the bus and active at the provider: `fleet device revoke {device}` finishes a "
                f"revocation that was stopped; if it had been enrolled again since, {_again(device)}",
            )


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was found, by device; key and reason of every record that is none; of how many devices the two agree."""

    findings: tuple[Finding, ...]
    unreadable: tuple[tuple[str, str], ...]
    agreed: int


async def reconcile(idp: IdentityProvider, enrolments: Enrolments, role: str, only_look: bool = False) -> Reconciled:
    """Compare every device, and write the records that have one right answer.

    Args:
        role: what the provider's users have that are devices.
        only_look: write nothing.

    Raises:
        As the ports; Conflict when somebody wrote meanwhile. Running it again finishes it.
    """
    users = {user.name: user for user in await idp.device_users(role)}
    listed, unreadable = await enrolments.all()
    records = {str(record.device): record for record in listed}
    names = sorted({*records, *filter(_is_device, users)} - {key for key, _ in unreadable})
    findings: list[Finding] = []
    for name in names:
        device, user = DeviceId(name), users.get(name)
        if compare(device, records.get(name), user, has_keys=True) is None:
            continue
        found = await enrolments.read(device)
        fresh = None if user is None else await idp.find_device_user(device)
        finding = compare(device, found.record, fresh, fresh is not None and bool(await idp.keys(fresh.id)))
        if finding is not None:
            findings.append(finding)
            if not only_look:
                await _settle(finding, found.revision, idp, enrolments)
    return Reconciled(tuple(findings), unreadable, len(names) - len(findings))


async def _settle(finding: Finding, last: Revision, idp: IdentityProvider, enrolments: Enrolments) -> None:
    """Write the record that is right, in place of the one that was compared.

    That one was read before the provider was asked. A revocation writes its record before it tells the provider, and a
    new enrolment after: so neither, under way at the same time, is mistaken for a record that was lost.
    """
    match finding:
        case Admit(device, user):
            standing: Admitted | Revoked = Admitted(tokens_from=await idp.now())
        case Refuse(device, user):
            standing = Revoked(at=await idp.now(), reason=REASON)
        case Unclear():
            return
        case _:
            assert_never(finding)
    await enrolments.write(Enrolment(device=device, user=user.id, standing=standing), last)


def _is_device(name: str) -> bool:
    try:
        DeviceId(name)
    except InvalidValue:
        return False
    return True


def _again(device: DeviceId) -> str:
    return f"run `fleet device re-enroll {device}` on the device"


def _stranger(device: DeviceId) -> str:
    return (
        f"the provider has no such user with the role of a device: {_again(device)}, or `fleet device revoke {device}`"
    )

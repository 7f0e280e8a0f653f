"""Random walks over what an administrator and a device may do, the same at every provider, step for step.

A walk is a number: its steps are drawn from it, and walked at each provider with names of its own. What comes back is
compared, the class of an error included. Ids, times and token texts differ and are left out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from fleet.adapters.zitadel_admin import ZitadelAdmin
from fleet.capabilities.identity import AccountState, MachineUser, PrivateKey
from fleet.contracts.errors import FleetError
from fleet.contracts.ids import DeviceId
from fleet.contracts.time import Duration
from sim.random import Random
from tests.conformance.idp_labs import A_YEAR, Enrolled, Lab

STEPS: Final = 14
_ROLES: Final = ("fleet-device", "fleet-other")
Seen = tuple[str, ...]


@dataclass
class _Device:
    """A device of the walk: what the walker knows of it, whether it is so or not."""

    name: DeviceId
    user: MachineUser
    keys: list[tuple[str, PrivateKey]] = field(default_factory=list)


class Walk:
    """One walk at one provider."""

    def __init__(self, number: int, lab: Lab) -> None:
        self._chance = Random(number * 2654435761 + 1)
        self._lab = lab
        self._admin: ZitadelAdmin = lab.admin()
        self._devices: list[_Device] = []
        self._names = [lab.device() for _ in range(2)]

    async def go(self) -> tuple[Seen, ...]:
        """Every step, and what came of it."""
        seen = [await self._told("create", self._create)]
        steps = list(OPERATIONS.items())
        for _ in range(STEPS):
            name, step = steps[self._chance.randrange(len(steps))]
            seen.append(await self._told(name, lambda step=step: step(self)))  # type: ignore[misc]  # a lambda with a default, to bind the loop's variable
        return tuple(seen)

    async def _told(self, name: str, step: Callable[[], Awaitable[str]]) -> Seen:
        try:
            return name, await step()
        except FleetError as error:
            return name, type(error).__name__

    def _device(self) -> _Device:
        return self._devices[self._chance.randrange(len(self._devices))]

    def _key(self, device: _Device) -> tuple[str, PrivateKey]:
        """One of its keys, removed ones included; now and then one that never was."""
        pick = self._chance.randrange(len(device.keys) + 1)
        return device.keys[pick] if pick < len(device.keys) else ("999", self._lab.keys.make())

    async def _create(self) -> str:
        name = self._names[self._chance.randrange(2)]
        user = await self._admin.create_device_user(name)
        known = next((device for device in self._devices if device.name == name), None)
        if known is None:
            self._devices.append(_Device(name, user))
        return f"{user.state} {user.has_jwt_tokens} {known is None or known.user.id == user.id}"

    async def _find(self) -> str:
        user = await self._admin.find_device_user(self._names[self._chance.randrange(2)])
        return f"{user.state} {user.has_jwt_tokens}"

    async def _list(self) -> str:
        listed = await self._admin.device_users(_ROLES[self._chance.randrange(2)])
        return " ".join(f"{user.name in self._names[:1]} {user.state}" for user in listed if user.name in self._names)

    async def _use_jwt(self) -> str:
        await self._admin.use_jwt_tokens(self._device().user)
        return "done"

    async def _add_key(self) -> str:
        device, key = self._device(), self._lab.keys.make()
        expires = await self._admin.now() + A_YEAR
        device.keys.append((await self._admin.add_key(device.user.id, self._lab.keys.public(key), expires), key))
        return "added"

    async def _list_keys(self) -> str:
        device = self._device()
        listed = await self._admin.keys(device.user.id)
        return " ".join(str(number in listed) for number, _ in device.keys)

    async def _remove_key(self) -> str:
        device = self._device()
        await self._admin.remove_key(device.user.id, self._key(device)[0])
        return "removed"

    async def _grant(self) -> str:
        await self._admin.grant_role(self._device().user.id, _ROLES[self._chance.randrange(2)])
        return "granted"

    async def _switch(self) -> str:
        device, off = self._device(), self._chance.randrange(2)
        await (self._admin.deactivate if off else self._admin.reactivate)(device.user.id)
        return AccountState.INACTIVE if off else AccountState.ACTIVE

    async def _mint(self) -> str:
        device = self._device()
        number, private = self._key(device)
        token = await self._lab.mint(Enrolled(self._admin, device.user, number, private))
        if token.text.count(".") != 2:
            return "opaque"
        claims = await self._lab.claims(token)
        roles = claims.get(f"urn:zitadel:iam:org:project:{self._lab.project}:roles", {})
        assert isinstance(roles, dict)
        audience = claims["aud"]
        assert isinstance(audience, list)
        return f"{claims['sub'] == device.user.id} {self._lab.project in audience} {sorted(roles)}"

    async def _mint_at_a_wrong_time(self) -> str:
        device, early = self._device(), self._chance.randrange(2)
        number, private = self._key(device)
        now = (await self._admin.now()) // 10**9
        wrong = now + 600 if early else now - 3 * Duration.minutes(60) // 10**9
        answer = await self._lab.assertion(Enrolled(self._admin, device.user, number, private), {"iat": wrong})
        return f"status {answer.status}"


OPERATIONS: Final[dict[str, Callable[[Walk], Awaitable[str]]]] = {
    "create a user": Walk._create,
    "look up a user": Walk._find,
    "list the devices": Walk._list,
    "have JWT tokens": Walk._use_jwt,
    "add a key": Walk._add_key,
    "list keys": Walk._list_keys,
    "remove a key": Walk._remove_key,
    "grant a role": Walk._grant,
    "deactivate or reactivate": Walk._switch,
    "token by JWT profile": Walk._mint,
    "token at a wrong time": Walk._mint_at_a_wrong_time,
    "add another key": Walk._add_key,
    "another token by JWT profile": Walk._mint,
}
"""What a step may be; what makes tokens stands here twice, because most of the rest shows in them."""

"""The secret store over any place that keeps documents: made once, read ever after.

The rules that keep a secret from changing by accident stand here, once for all places:

- A value is made only after the place said that there certainly is none. Any other answer is an error.
- It is created only where nothing stands; who comes second reads what the first one made.
- A write whose outcome is unknown is looked up and never repeated. What is found decides.
- Nothing is handed out that was not read back.
"""

from __future__ import annotations

from fleet.capabilities.clock import Clock
from fleet.capabilities.secrets import LARGEST_VALUE, Make, Secret, SecretSeen, SecretUnreadable
from fleet.contracts.errors import Conflict, InvalidValue, NotFound, Refused, TooLarge, Unknown
from fleet.contracts.ids import ObjectName
from fleet.contracts.time import Instant
from fleet.secrets.documents import Documents, Held, Kept


class Secrets:
    """The SecretStore port over a place. Any number of them, in any number of processes, may share one place.

    Args:
        clock: says when a secret was made.
    """

    def __init__(self, documents: Documents, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock

    async def ensure(self, name: ObjectName, make: Make) -> Secret:
        """As the port says."""
        try:
            return await self.read(name)
        except NotFound:
            pass
        kept = Kept(Secret(name, 1, self._now(), _made(name, make)))
        try:
            await self._documents.create(kept)
        except Conflict:
            pass
        except Unknown as error:
            return await self._after_unknown_create(name, error)
        return await self.read(name)

    async def read(self, name: ObjectName) -> Secret:
        """As the port says."""
        return (await self._documents.get(name)).kept.current

    async def previous(self, name: ObjectName) -> Secret:
        """As the port says."""
        previous = (await self._documents.get(name)).kept.previous
        if previous is None:
            raise NotFound(f"the secret {name} was never rotated")
        return previous

    async def rotate(self, name: ObjectName, make: Make, last: int) -> Secret:
        """As the port says."""
        held = await self._documents.get(name)
        if held.kept.current.version != last:
            raise Conflict(f"the newest version of the secret {name} is {held.kept.current.version}, not {last}")
        kept = Kept(Secret(name, last + 1, self._now(), _made(name, make)), held.kept.current)
        try:
            await self._documents.replace(kept, held.token)
        except Unknown as error:
            return await self._after_unknown_replace(held, kept, error)
        return kept.current

    async def names(self) -> tuple[ObjectName, ...]:
        """As the port says."""
        return await self._documents.names()

    async def seen(self) -> tuple[SecretSeen | SecretUnreadable, ...]:
        """As the port says. A secret that is removed meanwhile is left out."""
        found = [await self._seen(name) for name in await self.names()]
        return tuple(item for item in found if item is not None)

    async def _seen(self, name: ObjectName) -> SecretSeen | SecretUnreadable | None:
        try:
            secret = await self.read(name)
        except NotFound:
            return None
        except InvalidValue as error:
            return SecretUnreadable(name, str(error))
        return SecretSeen(name, secret.version, secret.made)

    async def _after_unknown_create(self, name: ObjectName, error: Unknown) -> Secret:
        """What stands there decides. The write may still be under way when nothing does: then nobody knows yet."""
        try:
            return await self.read(name)
        except NotFound:
            raise error from None

    async def _after_unknown_replace(self, held: Held, kept: Kept, error: Unknown) -> Secret:
        """What stands there decides, as long as it tells: ours may stand there, or be what the next writer replaced."""
        now = await self._documents.get(kept.name)
        if kept.current in (now.kept.current, now.kept.previous):
            return kept.current
        if now.token == held.token or now.kept.current.version > kept.current.version + 1:
            raise error
        raise Conflict(f"another version of the secret {kept.name} was written meanwhile: read it again")

    def _now(self) -> Instant:
        return max(self._clock.wall(), Instant(0))


def _made(name: ObjectName, make: Make) -> bytes:
    value = make()
    if not value:
        raise Refused(f"the secret {name} was made empty")
    if len(value) > LARGEST_VALUE:
        raise TooLarge(f"the secret {name} has {len(value)} bytes; {LARGEST_VALUE} is the most")
    return value

"""The secrets of a run's installation: who installs, what stands afterwards, and where a value turns up.

The installations are the production code. What stands is looked at by the harness itself, past the store, at every
change of the place: it remembers what each secret was, and tells the journal in a word how it stands now. No value
leaves here, and nothing that a value could be guessed from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Final, Protocol

from fleet.capabilities.clock import Clock
from fleet.contracts.errors import InvalidValue, NotFound
from fleet.contracts.ids import ObjectName
from fleet.contracts.time import Instant
from fleet.secrets import codec
from fleet.secrets.documents import Documents
from fleet.secrets.registry import GENERATED, Entropy, SecretKept, SecretMade
from fleet.secrets.registry import install as install_secrets
from fleet.secrets.registry import rotate as rotate_secret
from fleet.secrets.store import Secrets
from harness.faults import CorruptSecret, SecretDamage
from harness.targets.secret_search import SecretSearch
from sim.journal import (
    Event,
    InstallRefused,
    Journal,
    SecretDamaged,
    SecretMended,
    SecretRotated,
    SecretShown,
    SecretsInstalled,
    SecretStands,
)

AT_ONCE: Final = 64
"""Events that are searched together: one by one it takes eight times as long."""
CLUSTER, DEVICE = "fleet", "agent"
"""Whose logs are listened to where programs run inside the harness. Those of the cluster use the secrets: they are made
to say everything. An agent is never given one, and hundreds that say everything would slow a run down."""


class SecretPlace(Protocol):
    """Where a run keeps its secrets."""

    def documents(self) -> Documents:
        """What a program that uses the place has of it."""
        ...

    def content(self, name: ObjectName) -> bytes | None:
        """What stands there, as it is; None when nothing does."""
        ...

    def damage(self, name: ObjectName, how: SecretDamage) -> Callable[[], None]:
        """Damage it; the answer undoes that. Raises: NotFound when there is nothing to damage."""
        ...

    def on_change(self, look: Callable[[], None]) -> None:
        """Call back after each change, where the place notices them."""
        ...


def _near(documents: Documents) -> Documents:
    return documents


class Installations:
    """See `SecretDesk`.

    Args:
        now: the time of the journal.
        clock: says when a secret was made.
        entropy: what secrets are made from.
        far: makes of the documents of a place those of one that takes time to answer. Used where several installations
            run at once, so that their steps fall between each other's.
    """

    def __init__(
        self,
        place: SecretPlace,
        journal: Journal,
        now: Callable[[], Instant],
        clock: Clock,
        entropy: Entropy,
        far: Callable[[Documents], Documents] = _near,
    ) -> None:
        self.search_for = SecretSearch()
        self.store = Secrets(place.documents(), clock)
        """For the programs that use the secrets."""
        self._place = place
        self._journal = journal
        self._now = now
        self._clock = clock
        self._entropy = entropy
        self._far = far
        self._number = 0
        self._looked: dict[ObjectName, bytes | None] = {}
        self._known: dict[ObjectName, bytes] = {}
        self._states: dict[ObjectName, str] = {}
        self._rotating: ObjectName | None = None
        self._shown: set[tuple[str, str]] = set()
        self._unsearched: list[tuple[str, bytes]] = []
        place.on_change(self.look)
        journal.subscribe_spelt(self._recorded)

    async def install(self, at_once: int) -> None:
        """See `SecretDesk`."""
        reached = self._far if at_once > 1 else _near
        await asyncio.gather(*(self._install(reached(self._place.documents())) for _ in range(at_once)))

    async def rotate(self, secret: ObjectName) -> None:
        """See `SecretDesk`."""
        last = (await self.store.read(secret)).version
        self._rotating = secret
        try:
            rotated = await rotate_secret(self.store, secret, last, self._entropy)
            self._known.pop(secret, None)
            self._journal.record(SecretRotated(self._now(), secret, rotated.version))
        finally:
            self._rotating = None
        self.look()

    async def damage(self, fault: CorruptSecret) -> Callable[[], Awaitable[None]]:
        """Carry out a fault; the answer ends it. Raises: NotFound when there is no such secret."""
        if self._place.content(fault.secret) is None:
            raise NotFound(f"there is no secret {fault.secret}")
        self._journal.record(SecretDamaged(self._now(), fault.secret, fault.how))
        mend = self._place.damage(fault.secret, fault.how)
        self.look()

        async def end() -> None:
            mend()
            self.look()
            self._journal.record(SecretMended(self._now(), fault.secret))

        return end

    def look(self) -> None:
        """Tell the journal of each secret that stands otherwise than before."""
        for item in GENERATED:
            content = self._place.content(item.name)
            if item.name != self._rotating and (item.name not in self._known or content != self._looked.get(item.name)):
                self._looked[item.name] = content
                self._judge(item.name, content)

    async def search(self) -> None:
        """See `SecretDesk`. What was logged was searched as it came, and nearly all of the journal."""
        self.look()
        self._search_journal()

    def shown_in(self, text: str) -> tuple[str, ...]:
        """See `SecretDesk`."""
        return self.search_for.found_in(text.encode("utf-8", "backslashreplace"))

    def shown(self, text: bytes, where: str) -> None:
        """Something was said there: tell the journal when a value is in it, once for each secret and place."""
        for name in self.search_for.found_in(text):
            if (name, where) not in self._shown:
                self._shown.add((name, where))
                self._journal.record(SecretShown(self._now(), name, where))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Search what the programs that run inside this process log."""
        ears = _Ears(self.shown)
        cluster, device = logging.getLogger(CLUSTER), logging.getLogger(DEVICE)
        level = cluster.level
        cluster.setLevel(min(cluster.getEffectiveLevel(), logging.INFO))
        cluster.addHandler(ears)
        device.addHandler(ears)
        try:
            yield
        finally:
            cluster.setLevel(level)
            cluster.removeHandler(ears)
            device.removeHandler(ears)

    async def _install(self, documents: Documents) -> None:
        self._number += 1
        number, began = self._number, self._now()
        try:
            stand = await install_secrets(Secrets(documents, self._clock), self._entropy)
        except InvalidValue as error:
            self._journal.record(InstallRefused(self._now(), number, began, str(error)))
        else:
            self.look()
            made = tuple(item.secret.name for item in stand if isinstance(item, SecretMade))
            kept = tuple(item.secret.name for item in stand if isinstance(item, SecretKept))
            self._journal.record(SecretsInstalled(self._now(), number, began, made, kept))

    def _judge(self, name: ObjectName, content: bytes | None) -> None:
        state = self._state(name, content)
        if state is not None and state != self._states.get(name):
            self._states[name] = "same" if state == "made" else state
            self._journal.record(SecretStands(self._now(), name, state))

    def _state(self, name: ObjectName, content: bytes | None) -> str | None:
        if content is None:
            return "gone" if name in self._known else None
        try:
            value = codec.decode(name, name, codec.from_json(name, content)).current.value
        except InvalidValue:
            return "unreadable"
        self.search_for.add(name, value)
        digest = sha256(value).digest()
        if name not in self._known:
            self._known[name] = digest
            return "made" if name not in self._states else "same"
        return "same" if digest == self._known[name] else "changed"

    def _recorded(self, event: Event, data: bytes) -> None:
        if not isinstance(event, SecretShown):
            self._unsearched.append((type(event).__name__, data))
        if len(self._unsearched) >= AT_ONCE:
            self._search_journal()

    def _search_journal(self) -> None:
        events, self._unsearched = self._unsearched, []
        if self.search_for.found_in(b"\n".join(data for _, data in events)):
            for kind, data in events:
                self.shown(data, f"the journal, in {kind}")


class _Ears(logging.Handler):
    """Hands everything that is logged on."""

    def __init__(self, shown: Callable[[bytes, str], None]) -> None:
        super().__init__(logging.INFO)
        self._shown = shown
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        text = self._formatter.format(record)
        self._shown(text.encode("utf-8", "backslashreplace"), f"the log of {record.name}")

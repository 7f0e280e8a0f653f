"""The secrets of a run: both places behave alike under damage, and what stands is told in words and nothing else."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fleet.adapters.clock import WallClock
from fleet.capabilities.secrets import Secret
from fleet.contracts.errors import InvalidValue, NotFound
from fleet.contracts.ids import ObjectName
from fleet.contracts.time import Duration, Instant
from fleet.secrets.registry import GENERATED, SYSTEM_ENTROPY
from harness.faults import CorruptSecret, SecretDamage
from harness.targets.installations import Installations, SecretPlace
from harness.targets.local_secret_files import LocalSecretFiles, written
from harness.targets.secret_search import SecretSearch
from harness.targets.sim_secret_files import FOLDER, VirtualSecretFiles
from sim.journal import Event, FileDamaged, Journal, SecretShown, SecretStands, to_json

NAME = ObjectName("nats-callout-issuer")
NAMES = tuple(item.name for item in GENERATED)


class Run:
    """A place with its installations, and all that they told the journal."""

    def __init__(self, place: SecretPlace) -> None:
        self.place = place
        self.journal = Journal()
        self.events: list[Event] = []
        self.journal.subscribe_all(self.events.append)
        self.installed = Installations(place, self.journal, lambda: Instant(0), WallClock(), SYSTEM_ENTROPY)

    def told(self) -> list[str]:
        """Everything since the last time, one line each."""
        lines = [to_json(event).partition(",")[2] for event in self.events]
        self.events.clear()
        return lines

    def value(self) -> Secret:
        return asyncio.run(self.installed.store.read(NAME))


@pytest.fixture(params=["sim", "local"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    made: SecretPlace
    made = (
        VirtualSecretFiles(WallClock())
        if request.param == "sim"
        else LocalSecretFiles(tmp_path / "secrets", WallClock())
    )
    return Run(made)


def do(work: Awaitable[None]) -> None:
    async def whole() -> None:
        await work

    asyncio.run(whole())


def test_the_first_installation_makes_and_the_next_ones_keep(run: Run) -> None:
    do(run.installed.install(1))
    first = run.told()
    assert first[:-1] == [f'"event":"SecretStands","secret":"{name}","state":"made"}}' for name in NAMES]
    assert '"made":["idp-admin-password"' in first[-1]
    do(run.installed.install(2))
    kept = run.told()
    assert len(kept) == 2
    assert all('"made":[],"kept":["idp-admin-password"' in line for line in kept)


@pytest.mark.parametrize("how", SecretDamage)
def test_a_damaged_secret_is_refused_named_and_put_back(run: Run, how: SecretDamage) -> None:
    if how is SecretDamage.WRONG_OWNER and isinstance(run.place, LocalSecretFiles) and os.geteuid() != 0:
        pytest.skip("only the superuser can give files away")
    do(run.installed.install(1))
    before, content = run.value(), run.place.content(NAME)
    run.told()
    end = asyncio.run(run.installed.damage(CorruptSecret(NAME, how, Duration.seconds(1))))
    with pytest.raises(InvalidValue, match=NAME):
        run.value()
    do(run.installed.install(1))
    damaged = run.told()
    assert f'"event":"SecretDamaged","secret":"{NAME}","how":"{how}"' in damaged[0]
    assert '"event":"InstallRefused"' in damaged[-1]
    assert NAME in damaged[-1]
    asyncio.run(_await(end))
    assert run.value() == before
    assert run.place.content(NAME) == content
    do(run.installed.install(1))
    assert '"made":[]' in run.told()[-1]


async def _await(end: Callable[[], Awaitable[None]]) -> None:
    await end()


def test_a_rotation_is_told_and_changes_nothing_else(run: Run) -> None:
    do(run.installed.install(1))
    run.told()
    do(run.installed.rotate(NAME))
    assert run.told() == [f'"event":"SecretRotated","secret":"{NAME}","version":2}}']
    do(run.installed.install(1))
    assert '"made":[]' in run.told()[-1]


def test_a_value_that_changes_otherwise_is_told(run: Run) -> None:
    do(run.installed.install(1))
    other = Run(VirtualSecretFiles(WallClock()))
    do(other.installed.install(1))
    run.told()
    content = other.place.content(NAME)
    assert content is not None
    if isinstance(run.place, LocalSecretFiles):
        (run.place._folder / f"{NAME}.json").write_bytes(content)
    else:
        assert isinstance(run.place, VirtualSecretFiles)
        run.place.image.damage(FOLDER / f"{NAME}.json", content)
    run.installed.look()
    assert run.told() == [f'"event":"SecretStands","secret":"{NAME}","state":"changed"}}']


def test_what_is_not_there_cannot_be_damaged(run: Run) -> None:
    with pytest.raises(NotFound, match=NAME):
        asyncio.run(run.installed.damage(CorruptSecret(NAME, SecretDamage.EMPTY, Duration.seconds(1))))


@pytest.mark.shows_secrets
def test_a_value_in_a_log_or_in_the_journal_is_told_once_and_not_quoted(run: Run) -> None:
    do(run.installed.install(1))
    value = run.value().value
    run.told()
    with run.installed.listening():
        for _ in range(2):
            logging.getLogger("fleet.test").info("%s", value.hex())
    run.journal.record(FileDamaged(Instant(0), "device-001", value.decode()))  # type: ignore[arg-type]  # any text will do
    do(run.installed.search())
    shown = [event for event in run.events if isinstance(event, SecretShown)]
    assert [(event.secret, event.where) for event in shown] == [
        (NAME, "the log of fleet.test"),
        (NAME, "the journal, in FileDamaged"),
    ]
    assert run.installed.shown_in(f"… {value.decode()} …") == (NAME,)


def test_names_are_no_values(run: Run) -> None:
    do(run.installed.install(1))
    assert run.installed.shown_in(" ".join(NAMES)) == ()
    assert not [event for event in run.events if isinstance(event, SecretShown)]
    assert len([event for event in run.events if isinstance(event, SecretStands)]) == len(NAMES)


def test_short_values_are_not_looked_for() -> None:
    search = SecretSearch()
    search.add("short", b"1234567")
    assert search.found_in(b"12345678") == ()


def test_a_run_is_searched_where_no_secret_may_be(tmp_path: Path) -> None:
    for place in (
        "secrets/a.json",
        "nats/nats.conf",
        "nats/logins/operator-0.json",
        "nats/store/block.blk",
        "operator-0.log",
        "releases/file",
        "devices/device-001/usr/bin/fleet-agent-v1",
        "devices/device-001/var/log/agent.log",
        "devices/device-001/etc/fleet-agent/login.json",
    ):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(place.encode())
    assert [place for place, _ in written(tmp_path)] == [
        "devices/device-001/var/log/agent.log",
        "nats/store/block.blk",
        "operator-0.log",
    ]

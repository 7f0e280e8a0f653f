"""The OpenBao client against a stub of the server: what each answer is called, and that nothing is written twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

import httpx2
import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from fleet.adapters.clock import WallClock
from fleet.adapters.openbao import OpenBaoKv
from fleet.contracts.errors import (
    Conflict,
    Disconnected,
    FleetError,
    InvalidValue,
    NotFound,
    NotPermitted,
    Refused,
    TimedOut,
    TooLarge,
    Unavailable,
    Unknown,
)
from fleet.contracts.ids import ObjectName
from fleet.contracts.time import Duration
from fleet.secrets.openbao import OpenBaoDocuments
from fleet.secrets.store import Secrets
from tests.fleet.secrets.openbao_stub import TOKEN, OpenBaoStub, errors

A = ObjectName("a-password")
VALUE = b"the-value-that-never-shows"
Handler = Callable[[httpx2.Request], Coroutine[None, None, httpx2.Response]]


def never() -> bytes:
    raise AssertionError("a value was made although nobody knows that there is none")


class Bao:
    """A stub, and a client of it over a transport that a test may break."""

    def __init__(self, folder: Path) -> None:
        self.stub = OpenBaoStub()
        self.app = httpx2.ASGITransport(self.stub.app)
        self.token = folder / "token"
        self.token.write_text(f"{TOKEN}\n", encoding="ascii")
        self.transport: httpx2.AsyncBaseTransport = self.app

    def handle(self, handler: Handler) -> None:
        """Answer every request with this."""
        self.transport = httpx2.MockTransport(handler)

    def run(self, tell: Callable[[OpenBaoKv, Secrets], Awaitable[object]], mount: str = "secret") -> None:
        async def told() -> None:
            clock = WallClock()
            limit = Duration.millis(300)
            engine = OpenBaoKv("http://openbao.invalid", mount, self.token, clock, limit, self.transport)
            try:
                await tell(engine, Secrets(OpenBaoDocuments(engine, "fleet"), clock))
            finally:
                await engine.close()

        asyncio.run(told())


@pytest.fixture
def bao(tmp_path: Path) -> Bao:
    return Bao(tmp_path)


def refused(bao: Bao, kind: type[FleetError], match: str = ".") -> None:
    """Reading, making and rotating all say this, and no value is made."""

    async def told(engine: OpenBaoKv, secrets: Secrets) -> None:
        acts: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: secrets.read(A),
            lambda: secrets.ensure(A, never),
            lambda: secrets.rotate(A, never, 1),
        )
        for act in acts:
            with pytest.raises(kind, match=match) as caught:
                await act()
            assert type(caught.value) is kind
            assert TOKEN not in str(caught.value)

    bao.run(told)


def test_the_engine_keeps_versions(bao: Bao) -> None:
    async def told(engine: OpenBaoKv, secrets: Secrets) -> None:
        assert await engine.put("fleet/x", {"a": "1"}, 0) == 1
        assert await engine.put("fleet/x", {"a": "2"}, 1) == 2
        for last in (0, 1, 3):
            with pytest.raises(Conflict):
                await engine.put("fleet/x", {"a": "3"}, last)
        found = await engine.get("fleet/x")
        assert (found.version, found.data) == (2, {"a": "2"})
        assert "2" not in repr(found.data and found).replace("version=2", "")
        await engine.put("fleet/below/y", {}, 0)
        assert await engine.names("fleet") == ("x",)
        assert await engine.names("nothing") == ()
        with pytest.raises(NotFound):
            await engine.get("fleet/y")

    bao.run(told)


def test_a_deleted_version_is_an_error_that_says_how_to_get_it_back(bao: Bao) -> None:
    bao.run(lambda engine, secrets: secrets.ensure(A, lambda: VALUE))
    bao.stub.newest(f"fleet/{A}").deleted = True
    refused(bao, InvalidValue, "version 1 of .* was deleted: undelete version 1")
    bao.stub.newest(f"fleet/{A}").deleted = False
    bao.run(lambda engine, secrets: secrets.ensure(A, never))


def test_a_destroyed_version_is_an_error(bao: Bao) -> None:
    bao.run(lambda engine, secrets: secrets.ensure(A, lambda: VALUE))
    bao.stub.newest(f"fleet/{A}").destroyed = True
    refused(bao, InvalidValue, "was destroyed: restore it")


def test_foreign_fields_are_an_error(bao: Bao) -> None:
    bao.run(lambda engine, secrets: engine.put(f"fleet/{A}", {"value": "by-hand"}, 0))
    refused(bao, InvalidValue, "is damaged")
    bao.stub.newest(f"fleet/{A}").data = {"value": 5}
    refused(bao, InvalidValue, "not all texts")


def test_a_sealed_server_certainly_did_nothing(bao: Bao) -> None:
    bao.stub.sealed = True
    refused(bao, Unavailable, "sealed")


def test_a_token_that_may_not_or_expired_is_not_permitted(bao: Bao) -> None:
    bao.stub.tokens.clear()
    refused(bao, NotPermitted, "expired")


def test_a_renewed_token_is_picked_up(bao: Bao) -> None:
    async def told(engine: OpenBaoKv, secrets: Secrets) -> None:
        await secrets.ensure(A, lambda: VALUE)
        bao.stub.tokens = {"another-token"}
        with pytest.raises(NotPermitted):
            await secrets.read(A)
        bao.token.write_text("another-token", encoding="ascii")
        assert (await secrets.read(A)).value == VALUE

    bao.run(told)


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"\xff", b"a\nb"])
def test_a_token_file_that_holds_none_is_named_and_not_quoted(bao: Bao, content: bytes) -> None:
    bao.token.write_bytes(content)
    refused(bao, InvalidValue, "token does not hold an OpenBao token")


def test_a_missing_token_file_is_unavailable(bao: Bao) -> None:
    bao.token.unlink()
    refused(bao, Unavailable, "cannot be read: No such file")


def test_a_wrong_mount_is_no_reason_to_make_anything(bao: Bao) -> None:
    async def told(engine: OpenBaoKv, secrets: Secrets) -> None:
        with pytest.raises(Refused, match="look at the mount"):
            await secrets.ensure(A, never)
        with pytest.raises(Refused):
            await secrets.names()

    bao.run(told, mount="elsewhere")


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (404, b"<html>not found</html>", Disconnected),
        (404, b'{"errors": ["no handler for route"]}', Refused),
        (404, b"{}", Refused),
        (200, b"<html>sign in</html>", Disconnected),
        (200, b"[]", Disconnected),
        (200, b'{"data": {"value": "x"}}', InvalidValue),
        (204, b"", Refused),
        (400, b'{"errors": ["bad"]}', Refused),
        (307, b"", Unavailable),
        (413, b"", TooLarge),
        (429, b"", Unavailable),
        (473, b"", Unavailable),
        (500, b'{"errors": ["internal"]}', Disconnected),
        (502, b"proxy", Disconnected),
        (503, b"proxy", Disconnected),
    ],
)
def test_any_other_answer_is_no_reason_to_make_anything(
    bao: Bao, status: int, content: bytes, kind: type[FleetError]
) -> None:
    async def handler(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=content)

    bao.handle(handler)
    refused(bao, kind)


def test_silence_and_breaks_are_unknown_and_no_route_is_unavailable(bao: Bao) -> None:
    async def silence(request: httpx2.Request) -> httpx2.Response:
        await WallClock().sleep(Duration.seconds(60))
        raise AssertionError

    async def broken(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("broken")

    async def away(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("away")

    for handler, kind in ((silence, TimedOut), (broken, Disconnected), (away, Unavailable)):
        bao.handle(handler)
        refused(bao, kind)


class Lossy(httpx2.AsyncBaseTransport):
    """Loses what a write answers, after it was done or before it reaches the server."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, is_done: bool) -> None:
        self.inner = inner
        self.is_done = is_done
        self.writes = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method != "POST":
            return await self.inner.handle_async_request(request)
        self.writes += 1
        if self.is_done:
            await self.inner.handle_async_request(request)
        await WallClock().sleep(Duration.seconds(60))
        raise AssertionError


def test_a_create_that_timed_out_is_looked_up_and_found(bao: Bao) -> None:
    bao.transport = lossy = Lossy(bao.app, is_done=True)

    async def told(engine: OpenBaoKv, secrets: Secrets) -> None:
        made = await secrets.ensure(A, lambda: VALUE)
        assert (made.version, made.value, lossy.writes) == (1, VALUE, 1)
        assert await secrets.ensure(A, never) == made

    bao.run(told)


def test_a_create_that_timed_out_and_is_not_found_is_unknown_and_not_repeated(bao: Bao) -> None:
    bao.transport = lossy = Lossy(bao.app, is_done=False)

    async def told(engine: OpenBaoKv, secrets: Secrets) -> None:
        with pytest.raises(TimedOut):
            await secrets.ensure(A, lambda: VALUE)
        assert lossy.writes == 1

    bao.run(told)


def test_a_create_that_lands_late_wins_over_the_next(bao: Bao) -> None:
    """The next run finds nothing and makes another value; the late one lands first, and it is what everybody gets."""

    async def told(engine: OpenBaoKv, secrets: Secrets) -> None:
        late: list[bytes] = []

        def lands_meanwhile() -> bytes:
            late.append(b"late-value")
            return b"the-next-value"

        documents = OpenBaoDocuments(engine, "fleet")
        other = Secrets(documents, WallClock())

        class Landing(OpenBaoDocuments):
            async def create(self, kept: object) -> None:
                await other.ensure(A, lambda: late[0])
                await super().create(kept)  # type: ignore[arg-type]  # passed on as it came

        made = await Secrets(Landing(engine, "fleet"), WallClock()).ensure(A, lands_meanwhile)
        assert made.value == b"late-value"

    bao.run(told)


@pytest.mark.parametrize("is_done", [True, False])
def test_a_rotation_that_timed_out_is_looked_up(bao: Bao, is_done: bool) -> None:
    bao.run(lambda engine, secrets: secrets.ensure(A, lambda: VALUE))
    bao.transport = lossy = Lossy(bao.app, is_done)

    async def told(engine: OpenBaoKv, secrets: Secrets) -> None:
        if is_done:
            assert (await secrets.rotate(A, lambda: b"next-value", 1)).version == 2
        else:
            with pytest.raises(TimedOut):
                await secrets.rotate(A, lambda: b"next-value", 1)
        assert (await secrets.read(A)).version == (2 if is_done else 1)
        assert lossy.writes == 1

    bao.run(told)


@pytest.mark.parametrize("answer", [errors(500, "internal"), PlainTextResponse("bad gateway", 502), JSONResponse({})])
def test_a_write_that_was_done_and_answered_badly_is_found(bao: Bao, answer: Response) -> None:
    bao.stub.after_write.append(answer)
    bao.run(lambda engine, secrets: secrets.ensure(A, lambda: VALUE))
    assert bao.stub.writes == 1
    assert len(bao.stub.entries[f"fleet/{A}"].versions) == 1


def test_a_write_answered_badly_before_it_was_done_is_unknown(bao: Bao) -> None:
    bao.stub.before_write.append(errors(500, "internal"))

    async def told(engine: OpenBaoKv, secrets: Secrets) -> None:
        with pytest.raises(Unknown):
            await secrets.ensure(A, lambda: VALUE)

    bao.run(told)
    assert bao.stub.writes == 1

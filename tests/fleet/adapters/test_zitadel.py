"""What answers of the identity provider mean, whatever it answers; and that no error says more than it may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable

import pytest

from fleet.adapters import zitadel_shapes as shapes
from fleet.adapters.zitadel import Account, JwtProfile, ZitadelKeys, assertion, signing_key
from fleet.adapters.zitadel_admin import AdminKey, ZitadelAdmin, read_admin_key
from fleet.adapters.zitadel_exchange import Exchange, date_of
from fleet.capabilities.http import HttpRequest, HttpResponse
from fleet.capabilities.identity import AccountState, MachineUser, PrivateKey
from fleet.contracts.errors import (
    Conflict,
    Disconnected,
    FleetError,
    InvalidValue,
    NotFound,
    NotPermitted,
    Refused,
    TimedOut,
    Unavailable,
)
from fleet.contracts.ids import DeviceId
from fleet.contracts.time import Duration, Instant
from sim.keys import SimKeyMaker
from sim.random import Random
from tests.fleet.adapters.hand_clock import BEGIN, HandClock

ISSUER = "http://idp.test"
SECRET = "token-of-the-administrator"
KEY = SimKeyMaker(Random(3)).make()
ACCOUNT = Account("1", "2", ("openid",))
DISCOVERED = {
    "issuer": ISSUER,
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/keys",
    "device_authorization_endpoint": f"{ISSUER}/device",
}
Answer = HttpResponse | FleetError


def answer(status: int, body: object, date: str = "Fri, 15 Jan 2027 08:00:00 GMT") -> HttpResponse:
    return HttpResponse(status, (("date", date),), json.dumps(body).encode())


MINTED = answer(200, {"access_token": SECRET, "expires_in": 3600})


class Scripted:
    """An Http port that answers by path, one answer after the other; the last one for ever."""

    def __init__(self, **answers: list[Answer]) -> None:
        self.asked: list[HttpRequest] = []
        self._answers: dict[str, list[Answer]] = {
            "/.well-known/openid-configuration": [answer(200, DISCOVERED)],
            "/token": [MINTED],
            **{f"/{name}": given for name, given in answers.items()},
        }

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.asked.append(request)
        path = request.url.removeprefix(ISSUER)
        waiting = self._answers.get(path) or self._answers[f"/{path.rpartition('/')[2]}"]
        given = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(given, FleetError):
            raise given
        return given


def exchange(http: Scripted, clock: HandClock | None = None) -> Exchange:
    return Exchange(http, clock or HandClock(), ISSUER)


def admin(http: Scripted, clock: HandClock | None = None) -> ZitadelAdmin:
    return ZitadelAdmin(exchange(http, clock), AdminKey("1", "2", KEY), "org", "project")


def told(work: Awaitable[object]) -> object:
    async def whole() -> object:
        return await work

    return asyncio.run(whole())


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, Refused),
        (403, NotPermitted),
        (404, NotFound),
        (405, Refused),
        (429, Unavailable),
        (500, Disconnected),
        (503, Disconnected),
    ],
)
def test_a_status_says_whether_it_happened(status: int, expected: type[FleetError]) -> None:
    http = Scripted(AddKey=[answer(status, {"code": "some_code", "message": f"{SECRET} (KEY-4mf9s)"})])
    with pytest.raises(FleetError) as caught:
        told(admin(http).add_key("1", b"public", BEGIN))
    assert type(caught.value) is expected
    assert f"status {status}, some_code KEY-4mf9s" in str(caught.value)
    assert SECRET not in repr(caught.value)


def test_what_does_nothing_twice_may_be_tried_again() -> None:
    with pytest.raises(Unavailable):
        told(admin(Scripted(ListKeys=[answer(502, {})])).keys("1"))


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"keyId": 5}', b'{"keyId": ""}', b"[" * 10_000])
def test_an_answer_that_is_none_leaves_it_open_what_happened(body: bytes) -> None:
    with pytest.raises(Disconnected):
        told(admin(Scripted(AddKey=[HttpResponse(200, (), body)])).add_key("1", b"public", BEGIN))


@pytest.mark.parametrize("error", [Unavailable("x"), TimedOut("x"), Disconnected("x")])
def test_failures_of_the_network_are_passed_on(error: FleetError) -> None:
    with pytest.raises(type(error)):
        told(admin(Scripted(ListKeys=[error])).keys("1"))


def test_a_token_that_the_provider_forgot_is_replaced_once() -> None:
    async def tell() -> None:
        http = Scripted(ListKeys=[answer(200, {}), answer(401, {}), answer(200, {}), answer(401, {})])
        asking = admin(http)
        for _ in range(2):
            assert await asking.keys("1") == ()
        assert [request.url for request in http.asked].count(f"{ISSUER}/token") == 2
        with pytest.raises(NotPermitted):
            await asking.keys("1")

    asyncio.run(tell())


def test_an_administrator_asks_for_a_token_before_the_last_one_ends() -> None:
    async def tell() -> None:
        clock = HandClock()
        http = Scripted(ListKeys=[answer(200, {})])
        asking = admin(http, clock)
        await asking.keys("1")
        clock.pass_by(Duration.minutes(50))
        await asking.keys("1")
        assert [request.url for request in http.asked].count(f"{ISSUER}/token") == 2

    asyncio.run(tell())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (answer(400, {"error": "invalid_grant", "error_description": SECRET}), NotPermitted),
        (answer(400, {"error": "invalid_request", "error_description": SECRET}), NotPermitted),
        (answer(400, {"error": "unsupported_grant_type"}), Refused),
        (answer(400, {"error": "server_error"}), Unavailable),
        (answer(500, {}), Unavailable),
        (answer(200, {"access_token": SECRET}), Disconnected),
        (answer(200, {"access_token": SECRET, "expires_in": True}), Disconnected),
        (answer(200, {"access_token": SECRET, "expires_in": -1}), Disconnected),
        (answer(200, {"access_token": SECRET, "expires_in": 10**12}), Disconnected),
        (answer(200, {"access_token": 5, "expires_in": 60}), Disconnected),
    ],
)
def test_a_token_is_handed_out_or_it_is_said_why_not(given: HttpResponse, expected: type[FleetError]) -> None:
    with pytest.raises(FleetError) as caught:
        told(JwtProfile(exchange(Scripted(token=[given]))).token(ACCOUNT, KEY))
    assert type(caught.value) is expected
    assert SECRET not in repr(caught.value)


def test_a_refusal_is_believed_at_once_where_the_clock_was_right() -> None:
    http = Scripted(token=[answer(400, {"error": "invalid_grant"})])
    with pytest.raises(NotPermitted):
        told(JwtProfile(exchange(http)).token(ACCOUNT, KEY))
    assert [request.url for request in http.asked].count(f"{ISSUER}/token") == 1


@pytest.mark.parametrize("life", [Duration.minutes(4), Duration.minutes(12 * 60)])
def test_a_token_is_replaced_in_time(life: Duration) -> None:
    given = answer(200, {"access_token": "x", "expires_in": life // 10**9})
    token = told(JwtProfile(exchange(Scripted(token=[given]))).token(ACCOUNT, KEY))
    assert getattr(token, "expires") == Instant(life)  # noqa: B009 - what `told` gives has no type
    ahead = min(Duration.minutes(1), life // 4) * 2
    assert getattr(token, "refresh") <= life - ahead  # noqa: B009 - as above


def test_another_issuer_is_refused() -> None:
    async def tell() -> None:
        http = Scripted()
        http._answers["/.well-known/openid-configuration"] = [answer(200, {**DISCOVERED, "issuer": f"{ISSUER}/"})]
        with pytest.raises(Refused, match="calls itself otherwise"):
            await exchange(http).discover()

    asyncio.run(tell())


def test_without_a_date_the_own_clock_has_to_do() -> None:
    async def tell() -> None:
        http, clock = Scripted(), HandClock()
        http._answers["/.well-known/openid-configuration"] = [HttpResponse(200, (), json.dumps(DISCOVERED).encode())]
        asking = exchange(http, clock)
        await asking.discover()
        assert asking.now() == clock.wall()

    asyncio.run(tell())


@pytest.mark.parametrize("text", ["", "yesterday", "Fri, 99 Jan 2027 08:00:00 GMT"])
def test_a_date_that_is_none_is_not_believed(text: str) -> None:
    assert date_of(HttpResponse(200, (("Date", text),))) is None


@pytest.mark.parametrize("given", [answer(200, {"keys": 5}), answer(404, {}), answer(500, {}), HttpResponse(200)])
def test_a_provider_without_keys_is_as_good_as_none(given: HttpResponse) -> None:
    with pytest.raises(Unavailable):
        told(ZitadelKeys(Scripted(keys=[given]), HandClock(), ISSUER).fetch())


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b'{"type": "application", "keyId": "1", "key": "a-secret", "userId": "1"}', b"[" * 10_000],
)
def test_what_is_no_key_file_is_refused_and_not_quoted(content: bytes) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_admin_key("admin.json", content)
    assert "a-secret" not in str(caught.value)


@pytest.mark.parametrize("pem", [b"a-secret", SimKeyMaker(Random(3)).public(KEY)])
def test_what_is_no_private_key_signs_nothing(pem: bytes) -> None:
    with pytest.raises(InvalidValue) as caught:
        signing_key(PrivateKey(pem))
    assert "a-secret" not in str(caught.value)


def test_the_same_claim_is_signed_the_same() -> None:
    """Simulated devices sign for real, and their journals have to be equal."""
    one, other = (assertion(ACCOUNT, ISSUER, signing_key(KEY), BEGIN) for _ in range(2))
    assert one == other


def test_a_device_that_is_there_is_looked_up() -> None:
    user = {"userId": "7", "username": "pi-1", "state": "USER_STATE_INACTIVE", "machine": {}}
    http = Scripted(CreateUser=[answer(409, {"code": "already_exists"})], ListUsers=[answer(200, {"result": [user]})])
    found = told(admin(http).create_device_user(DeviceId("pi-1")))
    assert getattr(found, "id") == "7"  # noqa: B009 - what `told` gives has no type


def test_a_user_that_does_not_switch_is_refused() -> None:
    user = {"userId": "7", "username": "pi-1", "state": "USER_STATE_ACTIVE", "machine": {}}
    http = Scripted(DeactivateUser=[answer(400, {})], GetUserByID=[answer(200, {"user": user})])
    with pytest.raises(Refused):
        told(admin(http).deactivate("7"))


def test_a_token_type_that_is_not_kept_is_refused() -> None:
    user = {"userId": "7", "username": "pi-1", "state": "USER_STATE_ACTIVE", "machine": {}}
    http = Scripted(GetUserByID=[answer(200, {"user": user})], machine=[answer(200, {})])
    with pytest.raises(Refused, match="did not keep it"):
        told(admin(http).use_jwt_tokens(MachineUser("7", "pi-1", AccountState.ACTIVE, False)))


@pytest.mark.parametrize("shape", shapes.TABLE, ids=lambda shape: shape.name)
def test_requests_are_what_the_table_says(shape: shapes.Shape) -> None:
    fields = dict.fromkeys(shape.sends, "x")
    token = SECRET if shape.by_admin else None
    made = shapes.request(shape, ISSUER, fields, {"user": "a/b", "grant": "c"}, token, "org")
    assert made.method == shape.method
    assert "{" not in made.url
    assert "a/b" not in made.url
    assert (f"Bearer {SECRET}" in dict(made.headers).values()) is shape.by_admin
    assert SECRET not in repr(made)
    assert Conflict not in shape.refusals.values() or shape.by_admin

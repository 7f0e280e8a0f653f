"""One suite for identity providers: the model, an npm one behind a facade, and Zitadel's own engine behind another.

Everything is asked by the production clients, or, where they never would, by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from joserfc.errors import JoseError

from fleet.adapters.zitadel import NOT_ACCEPTED, Account, JwtProfile, ZitadelKeys
from fleet.adapters.zitadel_admin import ZitadelAdmin
from fleet.adapters.zitadel_exchange import Exchange, error_code
from fleet.adapters.zitadel_people import DeviceCodeLogin
from fleet.adapters.zitadel_shapes import DEVICE_CODE
from fleet.capabilities.identity import AccountState
from fleet.contracts.errors import FleetError, NotFound, NotPermitted, Refused
from fleet.contracts.ids import DeviceId
from fleet.contracts.time import Duration
from harness.targets.idp.install import missing
from tests.conformance.idp_labs import A_YEAR, Lab, LyingClock, RealPlace, Story, on_sim

ROLE = "fleet-device"


@pytest.fixture(scope="module")
def node_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPlace]:
    """oidc-provider behind its facade."""
    yield from running("node", tmp_path_factory)


@pytest.fixture(scope="module")
def go_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPlace]:
    """Zitadel's own engine behind its facade."""
    yield from running("go", tmp_path_factory)


def running(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPlace]:
    """One stand-in for all stories."""
    reason = missing(engine)
    if reason is not None:
        pytest.skip(f"not run: {reason}")
    place = RealPlace(engine, tmp_path_factory.mktemp(engine) / "state")
    yield place
    place.stop()


@pytest.fixture(
    params=["sim", pytest.param("node", marks=pytest.mark.real), pytest.param("go", marks=pytest.mark.real)]
)
def on_provider(request: pytest.FixtureRequest) -> Callable[[Story], None]:
    """Runs a story at each provider."""
    if request.param == "sim":
        return on_sim
    place: RealPlace = request.getfixturevalue(f"{request.param}_provider")
    return lambda tell: told_at(place, tell)


def told_at(place: RealPlace, tell: Story) -> None:
    """Tell a story at a stand-in."""
    asyncio.run(place.tell(tell))


STORIES: dict[str, Story] = {}
"""All of them, for whoever tells them without pytest."""


def story(tell: Story) -> Callable[[Callable[[Story], None]], None]:
    STORIES[tell.__name__.removeprefix("test_").replace("_", " ")] = tell

    def test(on_provider: Callable[[Story], None]) -> None:
        on_provider(tell)

    test.__doc__ = tell.__doc__
    return test


def roles_claim(lab: Lab) -> str:
    return f"urn:zitadel:iam:org:project:{lab.project}:roles"


# --- discovery and keys -------------------------------------------------------------------------------


@story
async def test_a_provider_is_who_it_says(lab: Lab) -> None:
    await lab.exchange().discover()
    with pytest.raises(Refused):
        await Exchange(lab.http, lab.clock, f"{lab.issuer}/elsewhere").discover()


@story
async def test_the_clock_of_the_provider_is_read_in_whole_seconds(lab: Lab) -> None:
    now = await lab.admin().now()
    assert now % 10**9 == 0
    assert abs(int(now) - int(lab.clock.wall())) < Duration.seconds(3)


@story
async def test_signing_keys_are_public(lab: Lab) -> None:
    keys = await ZitadelKeys(lab.http, lab.clock, lab.issuer).fetch()
    assert b'"kid"' in keys
    assert b'"n"' in keys
    assert b'"d"' not in keys
    assert b'"p"' not in keys


@story
async def test_a_rotated_signing_key_is_found_by_fetching_again(lab: Lab) -> None:
    who = await lab.enrolled()
    old = await lab.mint(who)
    key = (await lab.as_admin("POST", "/v2/web_keys", {"rsa": {"bits": "RSA_BITS_2048"}}))["id"]
    assert (await lab.claims(old))["sub"] == who.user.id
    await lab.as_admin("POST", f"/v2/web_keys/{key}/activate")
    new = await lab.mint(who)
    assert old.text.partition(".")[0] != new.text.partition(".")[0], "the header names another key"
    for token in (old, new):
        assert (await lab.claims(token))["sub"] == who.user.id


@story
async def test_a_deleted_signing_key_verifies_nothing_any_more(lab: Lab) -> None:
    first = (await lab.as_admin("POST", "/v2/web_keys", {"rsa": {}}))["id"]
    await lab.as_admin("POST", f"/v2/web_keys/{first}/activate")
    token = await lab.mint(await lab.enrolled())
    second = (await lab.as_admin("POST", "/v2/web_keys", {"rsa": {}}))["id"]
    await lab.as_admin("POST", f"/v2/web_keys/{second}/activate")
    await lab.as_admin("DELETE", f"/v2/web_keys/{first}")
    with pytest.raises((JoseError, ValueError)):
        await lab.claims(token)


# --- tokens by the JWT profile ------------------------------------------------------------------------


@story
async def test_a_token_says_who_for_whom_and_in_which_role(lab: Lab) -> None:
    who = await lab.enrolled()
    before = await who.admin.now()
    token = await lab.mint(who)
    claims = await lab.claims(token)
    made, ends = claims["iat"], claims["exp"]
    assert isinstance(made, int)
    assert isinstance(ends, int)
    assert (claims["iss"], claims["sub"]) == (lab.issuer, who.user.id)
    assert isinstance(claims["aud"], list)
    assert lab.project in claims["aud"]
    roles = claims[roles_claim(lab)]
    assert isinstance(roles, dict)
    assert ROLE in roles
    assert before // 10**9 <= made <= before // 10**9 + 5
    assert abs((ends - made) * 10**9 - int(token.expires - lab.clock.monotonic())) < Duration.seconds(5)
    assert lab.clock.monotonic() < token.refresh < token.expires


@story
async def test_roles_show_only_when_they_are_granted_and_asked_for(lab: Lab) -> None:
    who = await lab.enrolled(role=None)
    assert roles_claim(lab) not in await lab.claims(await lab.mint(who))
    await who.admin.grant_role(who.user.id, ROLE)
    assert roles_claim(lab) in await lab.claims(await lab.mint(who))
    account = Account(who.user.id, who.key, lab.scopes()[:2])
    silent = await JwtProfile(lab.exchange()).token(account, who.private)
    assert roles_claim(lab) not in await lab.claims(silent)


@story
async def test_tokens_are_opaque_until_told_otherwise(lab: Lab) -> None:
    admin, key = lab.admin(), lab.keys.make()
    user = await admin.create_device_user(lab.device())
    assert not user.has_jwt_tokens
    number = await admin.add_key(user.id, lab.keys.public(key), await admin.now() + A_YEAR)
    account = Account(user.id, number, lab.scopes())
    assert (await JwtProfile(lab.exchange()).token(account, key)).text.count(".") != 2
    for _ in range(2):
        await admin.use_jwt_tokens(user)
        assert (await admin.find_device_user(DeviceId(user.name))).has_jwt_tokens
    assert (await JwtProfile(lab.exchange()).token(account, key)).text.count(".") == 2


@story
async def test_another_key_or_an_unknown_one_is_no_good(lab: Lab) -> None:
    who = await lab.enrolled()
    for wrong in (
        replace(who, private=lab.keys.make()),
        replace(who, key="999"),
        replace(who, user=(await lab.enrolled()).user),
    ):
        with pytest.raises(NotPermitted):
            await lab.mint(wrong)


@story
async def test_a_removed_key_is_no_good_at_once_and_another_one_stays(lab: Lab) -> None:
    who = await lab.enrolled()
    private = lab.keys.make()
    second = await who.admin.add_key(who.user.id, lab.keys.public(private), await who.admin.now() + A_YEAR)
    other = replace(who, key=second, private=private)
    assert await who.admin.keys(who.user.id) == tuple(sorted((who.key, second)))
    await lab.mint(who)
    for _ in range(2):
        await who.admin.remove_key(who.user.id, who.key)
        with pytest.raises(NotPermitted):
            await lab.mint(who)
    await lab.mint(other)
    assert await who.admin.keys(who.user.id) == (second,)


@story
async def test_a_key_ends_by_its_date(lab: Lab) -> None:
    who = await lab.enrolled()
    private = lab.keys.make()
    soon = await who.admin.now() + Duration.seconds(3)
    short = replace(who, key=await who.admin.add_key(who.user.id, lab.keys.public(private), soon), private=private)
    await lab.mint(short)
    await lab.clock.sleep(Duration.seconds(4))
    with pytest.raises(NotPermitted):
        await lab.mint(short)


@story
async def test_the_devices_are_all_users_with_the_role_page_by_page(lab: Lab) -> None:
    listing = ZitadelAdmin(lab.exchange(), lab.admin_key, lab.organization, lab.project, page=2)
    role = f"role-of-{lab.device()}"
    assert await listing.device_users(role) == ()
    devices = [await lab.enrolled(role) for _ in range(5)]
    await lab.enrolled("fleet-other")
    await lab.enrolled(None)
    await devices[1].admin.grant_role(devices[1].user.id, "fleet-other")
    await devices[3].admin.deactivate(devices[3].user.id)
    found = await listing.device_users(role)
    assert [user.id for user in found] == [one.user.id for one in sorted(devices, key=lambda one: one.user.name)]
    refused = [user.id for user in found if user.state is AccountState.INACTIVE]
    assert refused == [devices[3].user.id]
    assert all(user.has_jwt_tokens for user in found)
    assert await lab.admin().device_users(role) == found


@story
async def test_a_deactivated_user_gets_no_token_until_it_is_reactivated(lab: Lab) -> None:
    who = await lab.enrolled()
    for _ in range(2):
        await who.admin.deactivate(who.user.id)
        with pytest.raises(NotPermitted):
            await lab.mint(who)
        assert (await who.admin.find_device_user(DeviceId(who.user.name))).state is AccountState.INACTIVE
    for _ in range(2):
        await who.admin.reactivate(who.user.id)
        await lab.mint(who)
        assert (await who.admin.find_device_user(DeviceId(who.user.name))).state is AccountState.ACTIVE


@story
async def test_an_assertion_has_to_be_of_now_and_for_this_provider(lab: Lab) -> None:
    who = await lab.enrolled()
    now = await who.admin.now() // 10**9
    for claims in (
        {"iat": now + 30},
        {"iat": now - 3700},
        {"exp": now - 60},
        {"aud": f"{lab.issuer}/"},
        {"aud": "http://elsewhere.invalid"},
        {"sub": "1"},
        {"iss": "1"},
    ):
        answer = await lab.assertion(who, claims)
        assert answer.status == 400, claims
        assert error_code(answer) in NOT_ACCEPTED, claims
    assert error_code(await lab.token("grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion=x")) != ""
    for audience in (lab.issuer, [lab.issuer], lab.issuer):
        assert (await lab.assertion(who, {"aud": audience})).status == 200, audience


@story
async def test_a_wrong_clock_is_corrected_from_the_provider(lab: Lab) -> None:
    who = await lab.enrolled()
    for wrong_by in (Duration(0) - A_YEAR, A_YEAR, Duration.seconds(40)):
        clock = LyingClock(lab.clock, wrong_by)
        await lab.mint(who, Exchange(lab.http, clock, lab.issuer))


@story
async def test_a_clock_that_goes_wrong_later_is_corrected_too(lab: Lab) -> None:
    who = await lab.enrolled()
    exchange = lab.exchange()
    await lab.mint(who, exchange)
    assert exchange._told is not None
    said, counted = exchange._told
    exchange._told = said + Duration.minutes(90), counted
    await lab.mint(who, exchange)


# --- administration -----------------------------------------------------------------------------------


@story
async def test_a_user_that_is_there_is_found(lab: Lab) -> None:
    admin, device = lab.admin(), lab.device()
    with pytest.raises(NotFound):
        await admin.find_device_user(device)
    made = await admin.create_device_user(device)
    assert await admin.create_device_user(device) == made == await lab.admin().find_device_user(device)


@story
async def test_a_role_is_granted_once_and_others_stay(lab: Lab) -> None:
    who = await lab.enrolled()
    for role in (ROLE, "fleet-other", ROLE, "fleet-other"):
        await who.admin.grant_role(who.user.id, role)
    roles = (await lab.claims(await lab.mint(who)))[roles_claim(lab)]
    assert isinstance(roles, dict)
    assert set(roles) == {ROLE, "fleet-other"}


@story
async def test_what_is_not_there_is_said(lab: Lab) -> None:
    admin, public = lab.admin(), lab.keys.public(lab.keys.make())
    with pytest.raises(NotFound):
        await admin.add_key("999", public, await admin.now() + A_YEAR)
    for ask in (admin.deactivate, admin.reactivate):
        with pytest.raises(NotFound):
            await ask("999")
    with pytest.raises(NotFound):
        await admin.grant_role("999", ROLE)
    assert await admin.keys("999") == ()
    await admin.remove_key("999", "999")


@story
async def test_what_is_no_public_key_is_refused(lab: Lab) -> None:
    who = await lab.enrolled()
    with pytest.raises(Refused):
        await who.admin.add_key(who.user.id, b"no key", await who.admin.now() + A_YEAR)


@story
async def test_a_device_administers_nothing(lab: Lab) -> None:
    who = await lab.enrolled()
    key = replace(lab.admin_key, user=who.user.id, key=who.key, private=who.private)
    with pytest.raises(NotPermitted):
        await ZitadelAdmin(lab.exchange(), key, lab.organization, lab.project).deactivate(lab.admin_key.user)


@story
async def test_a_provider_that_was_restarted_knows_users_keys_and_grants(lab: Lab) -> None:
    who = await lab.enrolled()
    gone = await lab.enrolled()
    await gone.admin.deactivate(gone.user.id)
    before = await lab.mint(who)
    await lab.place.restart()
    assert (await lab.claims(before))["sub"] == who.user.id
    assert ROLE in str((await lab.claims(await lab.mint(who)))[roles_claim(lab)])
    with pytest.raises(NotPermitted):
        await lab.mint(gone)
    assert await who.admin.keys(who.user.id) == (who.key,)


# --- people -------------------------------------------------------------------------------------------


@story
async def test_a_person_confirms_a_code(lab: Lab) -> None:
    login = DeviceCodeLogin(lab.exchange(), lab.client, ("openid", "profile"))
    begun = await login.begin()
    assert begun.where.startswith(lab.issuer)
    assert begun.user_code in begun.where_complete
    assert begun.device_code not in repr(begun)
    await lab.person_says(begun.user_code, {"session": {"sessionId": "1", "sessionToken": "1"}})
    token = await login.finish(begun)
    assert token.text
    assert token.expires > lab.clock.monotonic()


@story
async def test_a_person_says_no(lab: Lab) -> None:
    login = DeviceCodeLogin(lab.exchange(), lab.client, ("openid",))
    begun = await login.begin()
    await lab.person_says(begun.user_code, {"deny": {}})
    with pytest.raises(NotPermitted, match="denied"):
        await login.finish(begun)


@story
async def test_a_code_that_nobody_confirms_expires(lab: Lab) -> None:
    login = DeviceCodeLogin(lab.exchange(), lab.client, ("openid",))
    begun = await login.begin()
    await lab.place.expire(lab, begun.user_code)
    with pytest.raises(Refused, match="expired"):
        await login.finish(begun)


@story
async def test_polling_says_pending_and_too_soon_is_told(lab: Lab) -> None:
    login = DeviceCodeLogin(lab.exchange(), lab.client, ("openid",))
    begun = await login.begin()
    form = f"grant_type={DEVICE_CODE}&client_id={lab.client}&device_code={begun.device_code}"
    answers = [error_code(await lab.token(form)) for _ in range(2)]
    assert answers == ["authorization_pending", "slow_down"]
    await lab.clock.sleep(begun.interval + Duration.millis(200))
    assert error_code(await lab.token(form)) == "authorization_pending"
    await lab.person_says(begun.user_code, {"session": {"sessionId": "1", "sessionToken": "1"}})
    await login.finish(begun)


@story
async def test_a_code_is_good_once_and_for_its_client(lab: Lab) -> None:
    login = DeviceCodeLogin(lab.exchange(), lab.client, ("openid",))
    begun = await login.begin()
    await lab.person_says(begun.user_code, {"session": {"sessionId": "1", "sessionToken": "1"}})
    await login.finish(begun)
    with pytest.raises(FleetError):
        await login.finish(begun)
    with pytest.raises((NotPermitted, Refused)):
        await DeviceCodeLogin(lab.exchange(), "nobody", ("openid",)).begin()


@story
async def test_the_name_of_a_person_is_no_device(lab: Lab) -> None:
    admin = lab.admin()
    with pytest.raises(Refused, match="person"):
        await admin.find_device_user(DeviceId(lab.person))

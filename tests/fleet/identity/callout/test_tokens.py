"""What passes for a device's token, and everything that does not."""

from __future__ import annotations

import base64
import hmac
import json
import warnings

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import RSAKey

from fleet.contracts.errors import InvalidValue
from fleet.contracts.time import Duration, Instant
from fleet.identity.callout.keys import KeyCache, KeyTimings, parse
from fleet.identity.callout.tokens import Unacceptable, UnknownKey, Verified, verify
from tests.fleet.identity.callout import provider
from tests.fleet.identity.callout.provider import NOW, PROJECT, ROLES, RULES, claims, jwks, key, sign, token

KEYS = parse(jwks(key()))
SECONDS = NOW // 10**9


def segment(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def test_a_good_token_says_who_it_is_and_until_when() -> None:
    found = verify(token(), KEYS, RULES, NOW)
    assert found == Verified("u-1", Instant((SECONDS - 10) * 10**9), Instant((SECONDS + 3600) * 10**9))


def test_an_audience_may_be_one_text() -> None:
    assert isinstance(verify(token(aud=PROJECT), KEYS, RULES, NOW), Verified)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"iss": provider.ISSUER + "/"}, "another issuer"),
        ({"iss": None}, "lacks a claim"),
        ({"aud": ["other"]}, "another audience"),
        ({"aud": PROJECT + "0"}, "another audience"),
        ({"aud": {"a": PROJECT}}, "another type"),
        ({"aud": None}, "lacks a claim"),
        ({"sub": None}, "lacks a claim"),
        ({"sub": ""}, "lacks a claim"),
        ({"sub": 7}, "another type"),
        ({"exp": None}, "lacks a claim"),
        ({"exp": SECONDS}, "expired"),
        ({"exp": SECONDS - 1}, "expired"),
        ({"exp": True}, "another type"),
        ({"exp": str(SECONDS + 60)}, "another type"),
        ({"exp": 10**30}, "another type"),
        ({"iat": None}, "lacks a claim"),
        ({"iat": SECONDS + 31}, "from the future"),
        ({"nbf": SECONDS + 31}, "from the future"),
        ({ROLES: None}, "role"),
        ({ROLES: ["fleet-device"]}, "role"),
        ({ROLES: {"fleet-person": {}}}, "role"),
        ({ROLES: None, "urn:zitadel:iam:org:project:319:roles": {"fleet-device": {}}}, "role"),
    ],
)
def test_a_genuine_token_that_is_not_for_here_is_refused(changed: dict[str, object], reason: str) -> None:
    found = verify(sign(claims(**changed)), KEYS, RULES, NOW)
    assert isinstance(found, Unacceptable)
    assert reason in found.reason


def test_the_providers_clock_may_be_a_little_ahead() -> None:
    assert isinstance(verify(token(iat=SECONDS + 30), KEYS, RULES, NOW), Verified)


def test_no_algorithm_but_one_is_taken() -> None:
    """`none`, and the public key taken for the secret of an HMAC, are the classics."""
    unsigned = f"{segment({'alg': 'none', 'kid': 'k1'})}.{segment(claims())}."
    public = key().as_pem(private=False)
    signed = f"{segment({'alg': 'HS256', 'kid': 'k1'})}.{segment(claims())}"
    mac = base64.urlsafe_b64encode(hmac.digest(public, signed.encode(), "sha256")).rstrip(b"=").decode()
    confused = f"{signed}.{mac}"
    for hostile in (unsigned, confused, sign(claims(), alg="RS512"), sign(claims(), alg="PS256")):
        found = verify(hostile, KEYS, RULES, NOW)
        assert found == Unacceptable("the token is not signed by RS256")


def test_a_header_cannot_bring_its_own_key() -> None:
    other = RSAKey.generate_key(2048, {"kid": "k1"}, private=True)
    hostile = sign(claims(), other, jwk=other.as_dict(private=False))
    assert isinstance(verify(hostile, KEYS, RULES, NOW), Unacceptable)


def test_a_changed_token_is_refused() -> None:
    head, _, signature = token().split(".")
    forged = f"{head}.{segment(claims(sub='u-2'))}.{signature}"
    assert verify(forged, KEYS, RULES, NOW) == Unacceptable("the token's signature is wrong")


def test_an_unknown_key_is_told_apart() -> None:
    assert verify(sign(claims(), key("k2")), KEYS, RULES, NOW) == UnknownKey("k2")
    assert isinstance(verify(sign(claims(), key("k2")), parse(jwks(key(), key("k2"))), RULES, NOW), Verified)


def test_a_key_without_a_name_is_no_key() -> None:
    assert isinstance(verify(sign(claims(), kid=None), KEYS, RULES, NOW), Unacceptable)


DEEP = base64.urlsafe_b64encode(b"[" * 4000).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a.b", "a.b.c", "é.é.é", "x" * 9000, f"{DEEP}.a.b", f"{segment([])}.a.b", f"{segment({})}.."],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    assert isinstance(verify(text, KEYS, RULES, NOW), Unacceptable)


def test_deep_nesting_below_a_good_signature_is_refused() -> None:
    assert isinstance(verify(sign({"a": json.loads("[" * 900 + "]" * 900)}), KEYS, RULES, NOW), Unacceptable)


@settings(deadline=None)
@given(st.one_of(st.text(), st.text(alphabet="abcdefghijklmnopqrstuvwxyzABC0123456789-_.")))
def test_any_text_is_answered_without_a_fuss(text: str) -> None:
    assert isinstance(verify(text, KEYS, RULES, NOW), Unacceptable | UnknownKey)


@settings(deadline=None)
@given(st.integers(0, 2000), st.sampled_from("aB3-_."))
def test_one_letter_changed_anywhere_is_refused(place: int, letter: str) -> None:
    good = token()
    place %= len(good)
    changed = good[:place] + letter + good[place + 1 :]
    found = verify(changed, KEYS, RULES, NOW)
    assert isinstance(found, Unacceptable | UnknownKey) or base64_of(changed) == base64_of(good)


def base64_of(text: str) -> list[bytes]:
    """What the parts say: the last letter of each holds bits that mean nothing."""
    return [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in text.split(".")]


def test_nothing_quotes_a_token() -> None:
    shown = token()
    for found in (verify(shown, KEYS, RULES, NOW), verify(shown[:-4] + "AAAA", KEYS, RULES, NOW)):
        assert not any(part in repr(found) for part in shown.split("."))


def test_a_jwks_document_gives_its_rsa_signing_keys() -> None:
    document = json.loads(jwks(key(), key("k2")))
    document["keys"] += [
        {"kty": "EC", "kid": "ec", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "RSA", "kid": "no-numbers"},
        {**document["keys"][0], "kid": "enc", "use": "enc"},
        {**document["keys"][1], "kid": "k1"},
        {**document["keys"][0], "kid": ""},
        "nonsense",
    ]
    found = parse(json.dumps(document).encode())
    assert sorted(found.keys) == ["k1", "k2"]
    assert isinstance(verify(token(), found, RULES, NOW), Verified)


def test_a_short_key_signs_nothing_that_is_believed() -> None:
    numbers = generate_private_key(65537, 1024).public_key().public_numbers()
    short = {"kty": "RSA", "kid": "short", "n": number(numbers.n), "e": number(numbers.e)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The library only warns.
        with pytest.raises(InvalidValue):
            parse(json.dumps({"keys": [short]}).encode())


def number(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8)).rstrip(b"=").decode()


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"keys": 3}', b'{"keys": []}', b"[" * 9000, b"\xff"])
def test_what_holds_no_key_is_refused_as_a_whole(text: bytes) -> None:
    with pytest.raises(InvalidValue):
        parse(text)


def test_keys_are_asked_for_at_most_once_in_a_while() -> None:
    cache = KeyCache(KeyTimings(regularly=Duration.minutes(5), least_pause=Duration.seconds(10)))
    start = Instant(10**12)
    assert cache.keys is None
    assert cache.may_ask(start)
    cache.asked(start)
    assert not cache.may_ask(start + Duration.seconds(9))
    assert cache.next_regular() == Duration.seconds(10)
    assert cache.may_ask(start + Duration.seconds(10))
    cache.answered(KEYS)
    assert cache.next_regular() == Duration.minutes(5)
    assert cache.keys is KEYS

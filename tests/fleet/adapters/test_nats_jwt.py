"""The messages between server and callout: what is signed and sealed is read again, and nothing else is."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.public import Box, PrivateKey, PublicKey
from nacl.signing import SigningKey

from fleet.adapters.nats_jwt import CalloutKeys, allowed, name_of, read_name, read_question, refused, sign, verified
from fleet.capabilities.callout import Admission
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId
from fleet.contracts.nkeys import KeyKind, decode_public, encode_public, encode_seed
from fleet.contracts.permissions import of_device
from fleet.contracts.time import Instant

ISSUER, XKEY = encode_seed(KeyKind.ACCOUNT, bytes(range(32))), encode_seed(KeyKind.CURVE, bytes(range(1, 33)))
KEYS = CalloutKeys(ISSUER, XKEY)
SERVER, SERVER_BOX = SigningKey(bytes(range(2, 34))), PrivateKey(bytes(range(3, 35)))
SERVER_ID = encode_public(KeyKind.SERVER, bytes(SERVER.verify_key))
SERVER_XKEY = encode_public(KeyKind.CURVE, bytes(SERVER_BOX.public_key))
USER = encode_public(KeyKind.USER, bytes(range(4, 36)))
DEVICE = DeviceId("dev-1")
ADMISSION = Admission(DEVICE, "u-1", Instant(100 * 10**9), Instant(700 * 10**9), of_device(DEVICE))


def question(**changed: object) -> bytes:
    nats = {
        "server_id": {"id": SERVER_ID, "name": "local"},
        "user_nkey": USER,
        "client_info": {"host": "10.0.0.9", "user": "[REDACTED]"},
        "connect_opts": {"auth_token": "secret.token.text", "name": "dev-1\n", "lang": "python3"},
        "type": "authorization_request",
        **changed,
    }
    return sign({"iss": SERVER_ID, "aud": "nats-authorization-request", "nats": nats}, SERVER).encode()


def sealed(content: bytes) -> bytes:
    box = Box(SERVER_BOX, PublicKey(decode_public(KeyKind.CURVE, KEYS.xkey)))
    return b"xkv1" + bytes(box.encrypt(content, bytes(24)))


def opened(answer: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(verified(answer.encode(), KeyKind.ACCOUNT))
    return claims


def test_a_sealed_question_is_read() -> None:
    asked = read_question(sealed(question()), SERVER_XKEY, KEYS)
    assert (asked.server, asked.user, asked.token) == (SERVER_ID, USER, "secret.token.text")
    assert asked.client == r"'dev-1\n' at '10.0.0.9'"
    assert "secret" not in repr(asked)


def test_an_answer_lets_one_client_of_one_server_in_until_its_token_expires() -> None:
    asked = read_question(sealed(question()), SERVER_XKEY, KEYS)
    answer = opened(allowed(asked, ADMISSION, "DEVICES", 123, KEYS))
    assert (answer["iss"], answer["sub"], answer["aud"]) == (KEYS.issuer, USER, SERVER_ID)
    user = opened(answer["nats"]["jwt"])
    assert (user["sub"], user["aud"], user["name"], user["exp"]) == (USER, "DEVICES", "dev-1@100", 700)
    assert "_R_.$KV.info.dev-1" in user["nats"]["pub"]["allow"]
    assert "_INBOX_dev-1.>" in user["nats"]["sub"]["allow"]
    assert all(item.startswith(("_R_.", "_INBOX_dev-1.")) for item in user["nats"]["sub"]["allow"])
    assert opened(refused(asked, 123, KEYS))["nats"]["error"] == "refused"


def test_an_answer_is_sealed_for_the_asker_alone() -> None:
    secret = KEYS.seal(b"hello", SERVER_XKEY, bytes(24))
    box = Box(SERVER_BOX, PublicKey(decode_public(KeyKind.CURVE, KEYS.xkey)))
    assert box.decrypt(secret[4:]) == b"hello"
    assert b"hello" not in secret


@pytest.mark.parametrize(
    "payload",
    [
        question(),
        b"",
        b"xkv1",
        sealed(b"x"),
        sealed(b"a.b.c"),
        sealed(question(server_id={"id": "N" * 56})),
        sealed(question(user_nkey="no key")),
        sealed(question(connect_opts=7)),
        sealed(question()[:-4] + b"AAAA"),
        sealed(question())[:-1] + b"\x00",
    ],
)
def test_what_is_no_question_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_question(payload, SERVER_XKEY, KEYS)
    assert "secret" not in str(caught.value)


def test_a_question_to_another_audience_is_refused() -> None:
    other = sign({"iss": SERVER_ID, "aud": "other", "nats": {}}, SERVER).encode()
    with pytest.raises(InvalidValue):
        read_question(sealed(other), SERVER_XKEY, KEYS)


@settings(deadline=None)
@given(st.binary(max_size=200), st.text(max_size=60))
def test_any_bytes_are_no_question(payload: bytes, xkey: str) -> None:
    for hostile in (payload, sealed(payload), b"xkv1" + payload):
        for sender in (SERVER_XKEY, xkey):
            with pytest.raises(InvalidValue):
                read_question(hostile, sender, KEYS)


def test_a_name_says_device_and_token_and_no_other_name_does() -> None:
    assert read_name(name_of(ADMISSION)) == (DEVICE, ADMISSION.issued)
    for other in ("operator", "dev-1", "dev-1@", "dev-1@x", "@1", "Dev@1", "dev-1@²"):
        assert read_name(other) is None


def test_keys_of_another_kind_are_refused_and_nothing_is_shown() -> None:
    with pytest.raises(InvalidValue):
        CalloutKeys(XKEY, ISSUER)
    assert ISSUER.decode()[10:40] not in repr(KEYS) + repr(vars(KEYS))
    assert KEYS.issuer[0] == "A"
    assert KEYS.xkey[0] == "X"


def test_a_jwt_of_another_algorithm_is_refused() -> None:
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps({"iss": SERVER_ID}).encode()).rstrip(b"=")
    with pytest.raises(InvalidValue):
        verified(head + b"." + body + b".", KeyKind.SERVER)

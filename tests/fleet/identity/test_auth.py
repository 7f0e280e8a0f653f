"""Identities are refused when malformed, and rendered only when resolved."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import pytest
from pydantic import ValidationError

from fleet.contracts.auth import FleetDeviceAuth, render
from fleet.identity.auth import DeviceEnrollmentIntent

FIELDS: dict[str, object] = {
    "issuer": "https://id.example.org",
    "scopes": ("openid", "urn:zitadel:iam:org:projects:roles"),
    "user": "123",
    "key": "456",
    "private_key": "/etc/fleet-agent/key.pem",
}


def test_a_resolved_auth_is_rendered_without_any_secret() -> None:
    auth = FleetDeviceAuth.model_validate(FIELDS)
    assert auth.private_key == PurePosixPath("/etc/fleet-agent/key.pem")
    assert json.loads(render(auth)) == {**FIELDS, "scopes": ["openid", "urn:zitadel:iam:org:projects:roles"]}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("issuer", "https://id.example.org/"),
        ("issuer", "id.example.org"),
        ("scopes", ()),
        ("scopes", ("two words",)),
        ("user", ""),
        ("key", "a b"),
        ("private_key", "key.pem"),
        ("password", "x"),
    ],
)
def test_what_is_malformed_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        FleetDeviceAuth.model_validate({**FIELDS, field: value})


def test_an_intent_is_not_a_resolved_auth() -> None:
    wanted = {"device": "pi-1", "issuer": "https://id.example.org", "project": "1"}
    intent = DeviceEnrollmentIntent.model_validate(wanted)
    with pytest.raises(ValidationError):
        FleetDeviceAuth.model_validate(intent.model_dump())

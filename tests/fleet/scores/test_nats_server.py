"""The server's configuration says what is meant: accounts, what crosses between them, and who is asked about."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fleet.adapters.nats_jwt import CalloutKeys
from fleet.contracts.ids import DeviceId
from fleet.contracts.nkeys import KeyKind, encode_seed
from fleet.contracts.permissions import DEVICE_ROOT, EVERYTHING, of_device, on_the_wire
from fleet.scores.nats_server import CalloutSection, NatsServerConfig, StaticUser
from harness.targets.nats_process import find_server
from sim.nats.subjects import covers

KEYS = CalloutKeys(encode_seed(KeyKind.ACCOUNT, bytes(32)), encode_seed(KeyKind.CURVE, bytes(32)))
CALLOUT = CalloutSection(
    KEYS.issuer, KEYS.xkey, (StaticUser("callout", "hunter2"),), (StaticUser("callout-system", 'qu"ote$X'),)
)
DEVICE = DeviceId("dev-1")


def config(callout: CalloutSection | None = CALLOUT) -> NatsServerConfig:
    return NatsServerConfig(store="/srv/a b", users=(StaticUser("operator", "hunter2"),), callout=callout)


@pytest.mark.real
@pytest.mark.parametrize("callout", [None, CALLOUT], ids=["without", "with"])
def test_the_server_takes_it(callout: CalloutSection | None, tmp_path: Path) -> None:
    file = tmp_path / "nats.conf"
    file.write_text(config(callout).render())
    done = subprocess.run(
        [str(find_server()), "-t", "-c", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_static_users_are_never_asked_about() -> None:
    assert 'auth_users: ["operator", "callout", "callout-system"]' in config().render()


def test_no_password_shows_in_repr() -> None:
    assert "hunter2" not in repr(config())


def test_everything_a_device_may_do_crosses_and_nothing_else_does() -> None:
    text = config().render()
    exported = [line.split('"')[1] for line in text.splitlines() if "accounts: [DEVICES]" in line and "service" in line]
    allowed = of_device(DEVICE).publish
    assert all(any(covers(pattern, subject) for pattern in exported) for subject in allowed)
    assert all(any(covers(pattern, subject) for subject in allowed) for pattern in exported)
    for subject in exported:
        assert f'subject: "{subject}" }}, to: "{DEVICE_ROOT}{subject}"' in text


def test_on_the_wire_everything_but_the_inbox_has_the_root() -> None:
    wire = on_the_wire(of_device(DEVICE))
    assert all(subject.startswith(DEVICE_ROOT) for subject in wire.publish)
    assert [subject for subject in wire.subscribe if not subject.startswith(DEVICE_ROOT)] == ["_INBOX_dev-1.>"]
    assert EVERYTHING.publish == (">",)


def test_the_file_is_the_same_each_time() -> None:
    assert config().render() == config().render()

"""The NATS server's configuration, as one value: who has an account, what crosses between accounts, who is asked.

Devices have an account of their own, without JetStream (ADR-030). Only what is listed here crosses to the account in
which the buckets are, and it crosses under names that no device can have an answer sent to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from fleet.contracts.permissions import DEVICE_ROOT, EVERYTHING, Permissions

FLEET_ACCOUNT: Final = "FLEET"
DEVICES_ACCOUNT: Final = "DEVICES"
CALLOUT_ACCOUNT: Final = "AUTH"
SYSTEM_ACCOUNT: Final = "SYS"

_DEVICES_ASK: Final = (
    "$KV.info.*",
    "$KV.state.>",
    "$KV.heartbeat.>",
    "$JS.API.DIRECT.GET.KV_desired.$KV.desired.>",
    "$JS.API.DIRECT.GET.KV_info.$KV.info.*",
    "$JS.API.DIRECT.GET.KV_state.$KV.state.>",
    "fleet.lock.*",
)
"""What some device may publish. A test holds it to the permissions of a device."""
_DEVICES_HEAR: Final = "fleet.desired.>"
_DEVICES_ANSWER: Final = "fleet.stop.*"


@dataclass(frozen=True, slots=True)
class StaticUser:
    """A user with a password in the configuration. The password never shows in `repr`."""

    name: str
    password: str = field(repr=False)
    permissions: Permissions = EVERYTHING


@dataclass(frozen=True, slots=True)
class CalloutSection:
    """Whom the server asks about every client that is not a static user.

    Args:
        issuer: public account key; what it signs is believed.
        xkey: public curve key of the callout.
        users: in the account in which the callout is asked; nobody else may be there.
        system_users: in the system's account, to cut connections.
    """

    issuer: str
    xkey: str
    users: tuple[StaticUser, ...]
    system_users: tuple[StaticUser, ...]


@dataclass(frozen=True, slots=True)
class NatsServerConfig:
    """One server.

    Args:
        port: -1 takes a free one.
        store: folder of the buckets.
        users: in the account of the fleet.
        callout: None when no client may log in by a token.
        ports_file: the folder in which the server says which port it took; None for nowhere.
        auth_timeout: seconds within which a login is decided. Not 2: the server's first ping would fall together with
            its refusal, which confuses clients.
    """

    store: str
    users: tuple[StaticUser, ...]
    host: str = "127.0.0.1"
    port: int = 4222
    name: str = "fleet"
    callout: CalloutSection | None = None
    ports_file: str | None = None
    auth_timeout: int = 1

    def render(self) -> str:
        """The configuration file. It holds passwords: mode 0600."""
        return "\n".join((*self._head(), *self._accounts(), *self._authorization())) + "\n"

    def _head(self) -> Iterator[str]:
        yield f"host: {_text(self.host)}"
        yield f"port: {self.port}"
        yield f"server_name: {_text(self.name)}"
        yield "ping_interval: 20s"
        yield "ping_max: 2"
        if self.ports_file is not None:
            yield f"ports_file_dir: {_text(self.ports_file)}"
        yield f"jetstream {{ store_dir: {_text(self.store)} }}"

    def _accounts(self) -> Iterator[str]:
        callout = self.callout
        yield "accounts {"
        yield f"  {FLEET_ACCOUNT}: {{"
        yield "    jetstream: enabled"
        yield from _users(self.users)
        asked = [_export("service", subject) for subject in _DEVICES_ASK]
        yield from _block("exports", [*asked, _export("stream", _DEVICES_HEAR)])
        yield from _block(
            "imports", [_import(DEVICES_ACCOUNT, "service", DEVICE_ROOT + _DEVICES_ANSWER, _DEVICES_ANSWER)]
        )
        yield "  }"
        yield f"  {DEVICES_ACCOUNT}: {{"
        yield from _users(())
        answered = f"{{ service: {_text(DEVICE_ROOT + _DEVICES_ANSWER)}, accounts: [{FLEET_ACCOUNT}] }}"
        yield from _block("exports", [answered])
        to_ask = [_import(FLEET_ACCOUNT, "service", subject, DEVICE_ROOT + subject) for subject in _DEVICES_ASK]
        heard = _import(FLEET_ACCOUNT, "stream", _DEVICES_HEAR, DEVICE_ROOT + _DEVICES_HEAR)
        yield from _block("imports", [*to_ask, heard])
        yield "  }"
        if callout is not None:
            yield f"  {CALLOUT_ACCOUNT}: {{"
            yield from _users(callout.users)
            yield "  }"
        yield f"  {SYSTEM_ACCOUNT}: {{"
        yield from _users(() if callout is None else callout.system_users)
        yield "  }"
        yield "}"
        yield f"system_account: {SYSTEM_ACCOUNT}"

    def _authorization(self) -> Iterator[str]:
        callout = self.callout
        yield "authorization {"
        yield f"  timeout: {self.auth_timeout}"
        if callout is not None:
            static = (*self.users, *callout.users, *callout.system_users)
            yield "  auth_callout {"
            yield f"    issuer: {_text(callout.issuer)}"
            yield f"    account: {CALLOUT_ACCOUNT}"
            yield f"    auth_users: [{', '.join(_text(user.name) for user in static)}]"
            yield f"    xkey: {_text(callout.xkey)}"
            yield "  }"
        yield "}"


def _users(users: tuple[StaticUser, ...]) -> Iterator[str]:
    yield from _block("users", [_user(user) for user in users])


def _user(user: StaticUser) -> str:
    allowed = user.permissions
    return (
        f"{{ user: {_text(user.name)}, password: {_text(user.password)}, permissions: {{"
        f" publish: {{ allow: {json.dumps(allowed.publish)} }},"
        f" subscribe: {{ allow: {json.dumps(allowed.subscribe)} }},"
        " allow_responses: true } }"
    )


def _block(name: str, items: list[str]) -> Iterator[str]:
    yield f"    {name}: ["
    for item in items:
        yield f"      {item}"
    yield "    ]"


def _export(kind: str, subject: str) -> str:
    return f"{{ {kind}: {_text(subject)}, accounts: [{DEVICES_ACCOUNT}] }}"


def _import(account: str, kind: str, subject: str, to: str) -> str:
    return f"{{ {kind}: {{ account: {account}, subject: {_text(subject)} }}, to: {_text(to)} }}"


def _text(text: str) -> str:
    return json.dumps(text)

"""A device with a good token tries everything to read, write, wipe or overhear what is not its own. On a real server.

An attempt is refused when the device was told nothing, nothing of anybody else's has changed, and nobody else heard
anything. All have to be. That they would be noticed if they were not is shown by giving the device too much.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet.capabilities.bus import Entry, Request
from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import Bucket
from fleet.contracts.permissions import DEVICE_ROOT, Permissions, of_device
from fleet.scores.nats_server import FLEET_ACCOUNT
from tests.fleet.identity.callout.attempts import INBOX, VICTIM_KEYS, Attempt, attempts
from tests.fleet.identity.callout.raw import Heard, RawClient, pub
from tests.fleet.identity.callout.stage import CalloutStage, shown, story

SECRET = b"VICTIMS-OWN"


@dataclass(frozen=True, slots=True)
class Verdict:
    attempt: Attempt
    breach: str | None


class Battle:
    """The device that attacks, the one that is attacked, and the operator who looks at what has become of it."""

    def __init__(self, stage: CalloutStage, root: str) -> None:
        self.stage = stage
        self.root = root
        self.hostile = RawClient(stage.server.port, shown("dev-1"))
        self.victim = RawClient(stage.server.port, shown("dev-2"))
        self.pushed: list[Entry] = []
        self.asked: list[str] = []

    async def begin(self) -> None:
        operator = self.stage.operator
        for bucket, keys in VICTIM_KEYS.items():
            for key in keys:
                if bucket is not Bucket.IDENTITY:
                    await operator.put(bucket, key, SECRET + key.encode())
        consumer = {"stream_name": "KV_desired", "config": {"durable_name": "theirs", "ack_policy": "explicit"}}
        await operator.call_api("$JS.API.CONSUMER.DURABLE.CREATE.KV_desired.theirs", json.dumps(consumer).encode())
        for bucket in (Bucket.INFO, Bucket.STATE, Bucket.HEARTBEAT, Bucket.DESIRED, Bucket.IDENTITY):
            operator.listen(bucket, "", self.pushed.append)
        operator.serve("fleet.lock.*", self.grant)
        await self.victim.open()
        for number, subject in enumerate(
            ("_INBOX_dev-2.>", "_INBOX_dev-2.literal", *(self.root + item for item in HEARD_BY_VICTIM)), 1
        ):
            self.victim.say(f"SUB {subject} {number}\r\n".encode())
        await self.hostile.open()
        self.hostile.say(b"SUB _INBOX_dev-1.> 1\r\n")
        own = await self.try_out(Attempt("own write", pub(f"{self.root}$KV.state.dev-1.upgrade", b"own", INBOX)))
        assert b'"seq"' in own.content, own
        assert (await self.victim.settled()).errors == ()
        await self.victim_hears()

    def grant(self, request: Request) -> bytes:
        self.asked.append(request.subject)
        return b"granted"

    async def victim_hears(self) -> None:
        """The victim's ears work: else it proves nothing that it hears nothing."""
        await self.provoke()
        heard = await self.victim.settled()
        assert {subject for subject, _ in heard.messages} >= {
            f"{self.root}fleet.desired.dev-2.agent".encode(),
            f"{self.root}fleet.stop.dev-2".encode(),
        }, heard

    async def provoke(self) -> None:
        """Say something to the victim that nobody else may hear."""
        operator = self.stage.operator
        await operator.put(Bucket.DESIRED, "dev-2.agent", SECRET + b"again")
        await operator.put(Bucket.STATE, "dev-2.upgrade", SECRET + b"again")
        operator.say("fleet.stop.dev-2", SECRET)
        await operator.get(Bucket.DESIRED, "dev-2.agent")

    async def try_out(self, attempt: Attempt) -> Heard:
        if self.hostile.ended:
            await self.hostile.open()
            self.hostile.say(b"SUB _INBOX_dev-1.> 1\r\n")
        self.hostile.say(attempt.frames)
        return await self.hostile.settled()

    async def judge(self, attempt: Attempt) -> Verdict:
        before = await self.others()
        self.pushed.clear()
        self.asked.clear()
        heard = await self.try_out(attempt)
        breach = self.leak(attempt, heard)
        if attempt.overhears:
            await self.provoke()
            if (await self.hostile.settled()).messages:
                breach = breach or "it heard what was not meant for it"
            await self.victim.settled()
            return Verdict(attempt, breach)
        if (await self.victim.settled()).messages:
            breach = breach or "another device heard something"
        if await self.others() != before:
            breach = breach or "something of somebody else's has changed"
        if any(not entry.key.startswith("dev-1") or entry.bucket is Bucket.DESIRED for entry in self.pushed):
            breach = breach or "the operator heard of a write to somebody else's key"
        if any(subject != "fleet.lock.dev-1" for subject in self.asked):
            breach = breach or "the operator was asked for somebody else's lock"
        return Verdict(attempt, breach)

    def leak(self, attempt: Attempt, heard: Heard) -> str | None:
        """What the device was told that it must not know; an error, or that nobody serves it, is nothing."""
        if SECRET in heard.content or b"dev-2" in heard.content:
            return "it was told something of another device"
        told = [body for _, body in heard.messages if b" 503" not in body[:16] and b'"error"' not in body]
        return f"it was answered: {told[0][:80]!r}" if told and not attempt.own else None

    async def others(self) -> object:
        """Everything that is not the device's own: buckets, entries with their revisions, consumers."""
        operator = self.stage.operator
        found: list[object] = []
        for bucket in Bucket:
            info = json.loads((await operator.call_api(f"$JS.API.STREAM.INFO.KV_{bucket.value}", b"")).payload)
            if "error" in info:
                found.append((bucket, "gone"))
                continue
            found.append((bucket, json.dumps(info["config"], sort_keys=True), info["state"]["consumer_count"]))
            if bucket in (Bucket.STATE, Bucket.INFO, Bucket.HEARTBEAT):
                found += [item for item in await operator.entries(bucket) if not item.key.startswith("dev-1")]
            else:
                found.append((info["state"]["messages"], info["state"]["last_seq"]))
        return found


HEARD_BY_VICTIM = ("fleet.desired.dev-2", "fleet.desired.dev-2.>", "fleet.stop.dev-2")


async def fight(stage: CalloutStage, tried: Iterable[Attempt], root: str = DEVICE_ROOT) -> list[Verdict]:
    await stage.admit("dev-1")
    await stage.admit("dev-2")
    await stage.answering_callout()
    battle = Battle(stage, root)
    try:
        await battle.begin()
        verdicts = [await battle.judge(attempt) for attempt in tried]
        if all(verdict.breach is None for verdict in verdicts):
            await battle.victim_hears()
    finally:
        battle.hostile.close()
        battle.victim.close()
    return verdicts


def report(verdicts: list[Verdict]) -> list[str]:
    breaches = [f"{item.attempt.what}: {item.breach}" for item in verdicts if item.breach is not None]
    print(f"hostile device: {len(verdicts)} attempts, {len(verdicts) - len(breaches)} refused")
    return breaches


@story
async def test_every_attempt_is_refused(stage: CalloutStage) -> None:
    verdicts = await fight(stage, attempts())
    assert report(verdicts) == []
    assert len(verdicts) > 900


@pytest.mark.real
@pytest.mark.parametrize(
    ("too_much", "attempt", "breach"),
    [
        (
            Permissions(("$KV.state.>",), ()),
            Attempt("write", pub(f"{DEVICE_ROOT}$KV.state.dev-2.upgrade", b"EVIL")),
            "somebody else's has changed",
        ),
        (
            Permissions(("$JS.API.DIRECT.GET.KV_state.$KV.state.>",), ()),
            Attempt("read", pub(f"{DEVICE_ROOT}$JS.API.DIRECT.GET.KV_state.$KV.state.dev-2.upgrade", b"", INBOX)),
            "told something of another device",
        ),
        (
            Permissions((), ("fleet.desired.>",)),
            Attempt("listen", f"SUB {DEVICE_ROOT}fleet.desired.> 9\r\n".encode(), overhears=True),
            "heard what was not meant for it",
        ),
        (
            Permissions(("fleet.lock.*",), ()),
            Attempt("lock", pub(f"{DEVICE_ROOT}fleet.lock.dev-2", b"", INBOX)),
            "it was answered",
        ),
        (
            Permissions(("fleet.stop.*",), ()),
            Attempt("stop", pub(f"{DEVICE_ROOT}fleet.stop.dev-2", b"EVIL", INBOX)),
            "another device heard something",
        ),
    ],
    ids=["write", "read", "overhear", "lock", "stop"],
)
def test_a_permission_too_wide_is_noticed(
    too_much: Permissions, attempt: Attempt, breach: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def permissions(device: DeviceId) -> Permissions:
        own = of_device(device)
        return Permissions(own.publish + too_much.publish, own.subscribe + too_much.subscribe)

    monkeypatch.setattr("fleet.identity.callout.brain.of_device", permissions)

    async def tell(stage: CalloutStage) -> None:
        (verdict,) = await fight(stage, [attempt])
        assert verdict.breach is not None
        assert breach in verdict.breach

    story(tell)(tmp_path)


OWN = "$JS.API.DIRECT.GET.KV_state.$KV.state.dev-1"


@pytest.mark.real
@pytest.mark.parametrize(
    ("elsewhere", "breach"),
    [
        ("$KV.desired.dev-2.agent", "another device heard something"),
        ("$KV.identity.dev-1", "somebody else's has changed"),
        ("fleet.desired.dev-2.agent", "another device heard something"),
        ("fleet.stop.dev-2", "another device heard something"),
        ("fleet.lock.dev-2", "somebody else's lock"),
        ("$JS.API.STREAM.PURGE.KV_desired", "somebody else's has changed"),
        ("$JS.API.STREAM.DELETE.KV_heartbeat", "somebody else's has changed"),
    ],
)
def test_in_the_account_of_the_buckets_a_device_would_need_no_more_than_its_own_permissions(
    elsewhere: str, breach: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why devices have an account of their own (ADR-030)."""
    monkeypatch.setattr("fleet.adapters.nats_jwt.on_the_wire", lambda permissions: permissions)
    monkeypatch.setattr("tests.fleet.identity.callout.stage.DEVICES_ACCOUNT", FLEET_ACCOUNT)

    async def tell(stage: CalloutStage) -> None:
        frames = pub(f"{OWN}.upgrade", b"", elsewhere) + pub(f"{OWN}.missing", b"", elsewhere)
        (verdict,) = await fight(stage, [Attempt(elsewhere, frames)], root="")
        assert verdict.breach is not None
        assert breach in verdict.breach

    story(tell)(tmp_path)

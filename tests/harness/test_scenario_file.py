"""A scenario file is read strictly: what is wrong with it is one line with file, line and nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId, Slot
from fleet.contracts.time import Duration
from harness import faults
from harness.scenario import load, parse
from harness.schema_base import escaped_bytes
from harness.schema_errors import ScenarioError
from harness.schema_fault_blocks import CutPower, KillAgent, Partition, WriteRaw
from harness.schema_faults import KIND, bind, describe, length_of
from harness.schema_steps import Upgrade, Wait

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "scenarios").rglob("*.toml"))
GOOD = """\
schema = 1
installed = "1.0.0"

[scenario]
name = "x"
proves = "y"

[fleet]
devices = 20

[[fleet.groups]]
name = "canary"
percent = 10

[[fleet.groups]]
name = "rest"
count = 10
labels = { site = "roof" }

[[releases]]
version = "1.0.0"

[[steps]]
do = "upgrade"
name = "move"
to = "1.0.0"
groups = ["canary", "rest"]
max_unavailable = { count = 2 }

[[steps]]
do = "wait"
length = "5m"
at = "30s"

[[faults]]
fault = "cut-power"
device = "triggering"
down = "30s"
when = { event = "upgrade-phase", phase = "swapping", count = 1, after = "3s" }

[[faults]]
fault = "partition"
devices = ["device-003", "device-020"]
direction = "to-device"
length = "10s"
when = { event = "rollout-progress", rollout = "move", percent = 30 }

[[checks]]
check = "final"
that = { fact = "device-phase", phase = "Ready", over = { at_least = 2 }, group = "canary" }

[[checks]]
check = "leads_to"
when = { fact = "operator", state = "down" }
then = { fact = "operator", state = "running" }
within = "1h30m"
"""


def refusal(text: str, devices: int | None = None) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse(text, Path("s.toml")).cast(devices)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_file_is_one_value() -> None:
    cast = parse(GOOD, Path("s.toml")).cast()
    upgrade, wait = cast.scenario.steps
    assert isinstance(upgrade, Upgrade)
    assert upgrade.max_unavailable.count == 2
    assert isinstance(wait, Wait)
    assert (wait.length, wait.at) == (Duration.minutes(5), Duration.seconds(30))
    assert cast.members("canary") == ("device-001", "device-002")
    assert cast.plan.labels[2] == {"group": "rest", "site": "roof"}
    assert cast.plan.labels[19] == {}
    assert cast.labels_of("rest") == {"group": "rest"}
    assert cast.labels_of("all") == {}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("proves", "prooves", "s.toml:6: unknown key 'prooves': did you mean 'proves'?"),
        ("length = ", "lenght = ", "s.toml:32: unknown key 'lenght': did you mean 'length'?"),
        ("at_least", "atleast", "s.toml:50: unknown key 'atleast': did you mean 'at_least'?"),
        ("percent = 30", "procent = 30", "s.toml:46: unknown key 'procent': did you mean 'percent'?"),
        ("[[checks]]", "[[chekcs]]", "s.toml:48: unknown key 'chekcs': did you mean 'checks'?"),
        ("max_unavailable = { count", "max_unavailable = { cuont", "s.toml:28: unknown key 'cuont'"),
        ('length = "5m"', 'length = "-5m"', "s.toml:32: steps[2].length: '-5m' is negative"),
        ('after = "3s"', 'after = "-3s"', "s.toml:39: faults[1].when.after: '-3s' is negative"),
        ('length = "5m"', 'length = "5"', "s.toml:32: steps[2].length: '5' is not a duration"),
        ('length = "5m"', "length = 5", "s.toml:32: steps[2].length: a duration is text with units"),
        ('"canary", "rest"]', '"canary", "rset"]', "s.toml:27: steps[1].groups[2]: there is no group 'rset': did you"),
        ('"device-020"', '"device-021"', "s.toml:43: faults[2].devices[2]: there is no device 'device-021'"),
        ('to = "1.0.0"', 'to = "1.0.1"', "s.toml:26: steps[1].to: there is no release '1.0.1': did you mean '1.0.0'"),
        ('rollout = "move"', 'rollout = "mvoe"', "s.toml:46: faults[2].when.rollout: there is no rollout 'mvoe'"),
        ('do = "wait"', 'do = "wiat"', "s.toml:31: steps[2].do: unknown 'wiat': did you mean 'wait'?"),
        ('do = "wait"\n', "", "s.toml:30: steps[2]: the key 'do' is missing"),
        ("devices = 20", 'devices = "20"', "s.toml:9: fleet.devices: input should be a valid integer"),
        ("devices = 20", "devices = 2024-01-01", "s.toml:9: fleet.devices: input should be a valid integer"),
        ("devices = 20", "devices = 20\ndevices = 21", "s.toml:10: not TOML: Cannot overwrite a value"),
        ("devices = 20", "devices = ", "s.toml:9: not TOML: Invalid value"),
        ("schema = 1", "schema = 2", "s.toml:1: schema: input should be 1"),
        ('at = "30s"', 'at = "30s"\nwhen = { event = "step-done", step = 1 }', "give exactly one of at and when"),
        ("count = 1, after", 'count = 1, device = "device-001", after', "give exactly one of device and count"),
        ("count = 10", "count = 19", "s.toml:8: fleet: the groups have more devices together than the 20"),
        ("count = 10", "count = 10\npercent = 5", "s.toml:15: fleet.groups[2]: give exactly one of count and percent"),
        ('name = "rest"', 'name = "all"', "'all' is the group of every device"),
        ('name = "rest"', 'name = "canary"', "group canary is defined twice"),
        ("at_least = 2", "at_least = 3", "s.toml:50: checks[1].that.over: 3 devices cannot do this: there are 2"),
        ('length = "5m"', 'until = { fact = "operator", state = "down" }', "steps[2]: until and within go together"),
        ('"device-003", ', '"triggering", ', 'faults[2]: "triggering" needs a trigger that comes from a device'),
    ],
)
def test_what_is_wrong_is_said_with_its_place(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert expected in refusal(GOOD.replace(old, new, 1) if old != "[[checks]]" else GOOD.replace(old, new))


def test_heartbeat_facts_are_for_final_checks() -> None:
    fact = '{ fact = "invalid-entries", at_least = 1, over = "any" }'
    body = f'\n[[checks]]\ncheck = "always"\nthat = {fact}\n'
    assert "s.toml:58: checks[3]: invalid-entries is read from heartbeats" in refusal(GOOD + body)
    parse((GOOD + body).replace('"always"', '"final"'), Path("s.toml")).cast()


def test_a_step_that_does_not_exist() -> None:
    body = '\n[[steps]]\ndo = "wait"\nlength = "1s"\nwhen = { event = "step-done", step = 9 }\n'
    assert "s.toml:61: steps[3].when.step: there is no step 9" in refusal(GOOD + body)


def test_another_number_of_devices_scales_groups() -> None:
    loaded = parse(GOOD.replace('"device-003", "device-020"', '"device-003"'), Path("s.toml"))
    assert [len(loaded.cast(200).members(name)) for name in ("canary", "rest", "all")] == [20, 100, 200]
    assert [len(loaded.cast(1200).members(name)) for name in ("canary", "rest")] == [120, 600]
    assert loaded.cast(1200).devices[-1] == "device-1200"


def test_too_few_devices_are_refused() -> None:
    assert "s.toml:43: faults[2].devices[2]: device-020 does not exist in a fleet of 19 devices" in refusal(GOOD, 19)
    text = GOOD.replace('"device-003", "device-020"', '"device-001"').replace("at_least = 2", "at_least = 1")
    assert "s.toml:15: fleet.groups[2]: a fleet of 1 is too small for group rest" in refusal(text, 1)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("devices", [None, 20, 1000])
def test_every_scenario_of_the_repository_can_be_cast(path: Path, devices: int | None) -> None:
    cast = load(path).cast(devices)
    assert len(cast.devices) == (devices or cast.scenario.fleet.devices)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read"):
        load(tmp_path / "missing.toml")
    (tmp_path / "latin.toml").write_bytes(b"schema = 1 # \xff")
    with pytest.raises(ScenarioError, match="cannot be read"):
        load(tmp_path / "latin.toml")


def test_bytes_in_keys() -> None:
    assert escaped_bytes(r"a\x00\xffü\\x41") == b"a\x00\xff" + "ü".encode() + rb"\x41"
    with pytest.raises(InvalidValue):
        escaped_bytes(r"a\n")


def test_faults_are_bound_to_devices_and_slots() -> None:
    cast = parse(GOOD, Path("s.toml")).cast()
    cut, partition = cast.scenario.faults
    assert isinstance(cut, CutPower)
    here, held = DeviceId("device-007"), {DeviceId("device-007"): Slot.B}
    bound = bind(cut, here, cast.members, held.get, lambda _: 0)
    assert bound == faults.CutPower((here,), Duration.seconds(30))
    assert length_of(bound) == Duration.seconds(30)
    assert isinstance(partition, Partition)
    named = bind(partition, None, cast.members, held.get, lambda _: 0)
    assert isinstance(named, faults.Partition)
    assert named.devices == ("device-003", "device-020")
    kill = KillAgent.model_validate_json(
        '{"fault":"kill-agent","device":"triggering","slot":"standby","when":'
        '{"event":"upgrade-phase","phase":"swapping","count":1}}'
    )
    assert bind(kill, here, cast.members, held.get, lambda _: 0) == faults.KillAgent(here, Slot.A)
    assert bind(kill, DeviceId("device-008"), cast.members, held.get, lambda _: 0) is None
    raw = WriteRaw.model_validate_json(
        '{"fault":"write-raw","bucket":"state","key":"k\\\\xff","repeat_key":2,"value_hex":"00ff","at":"1s"}'
    )
    written = bind(raw, None, cast.members, held.get, lambda _: 0)
    assert isinstance(written, faults.WriteRaw)
    assert (written.key, written.value) == (b"k\xffk\xff", b"\x00\xff")


def test_every_fault_of_the_port_can_be_declared() -> None:
    assert set(KIND.values()) == set(faults.Fault.__args__)


EXAMPLES = {
    "stop-operator": 'down = "1s"',
    "isolate-operator": 'replica = 0\nlength = "1m"',
    "freeze-operator": 'length = "1m"',
    "write-raw": 'bucket = "state"\nkey = "k"\nvalue = "v"',
    "write-bad-entries": 'device = "device-001"\nlength = "5m"',
    "kill-operator": 'down = "1s"',
    "kill-agent": 'device = "device-001"\nslot = "a"',
    "cut-power": 'group = "canary"\ndown = "30s"',
    "cut-power-at-operation": 'device = "device-001"\noperation = 3\ndown = "30s"',
    "random-power-cuts": 'group = "all"\ncount = 2\nover = "1h"\ndown = "30s"',
    "brown-out": 'device = "device-001"\ncycles = 3\nup = "20s"\ndown = "2s"',
    "fill-disk": 'device = "device-001"\nlength = "5m"',
    "disk-read-errors": 'device = "device-001"\nbelow = "/var/lib"\nlength = "5m"',
    "slow-disk": 'device = "device-001"\nper_operation = "200ms"\nlength = "5m"',
    "slow-cpu": 'device = "device-001"\nfactor = 5\nlength = "5m"',
    "set-clock": 'device = "device-001"\nby = "-2h30m"\nlength = "5m"',
    "drift-clock": 'device = "device-001"\nparts_per_million = -200\nlength = "5m"',
    "damage-file": 'device = "device-001"\nfile = "manifest"\nhow = "empty"\nrelease = "1.0.0"',
    "silence-engine": 'devices = ["device-001", "device-002"]\nlength = "5m"',
    "crash-container": 'device = "device-001"\ndeployment = "web"\ncontainer = "front"',
    "partition": 'group = "all"\nlength = "5m"',
    "flap-link": 'group = "all"\nup = "40s"\ndown = "20s"\nlength = "5m"',
    "slow-link": 'group = "all"\nbytes_per_second = 10000\nlength = "5m"',
    "restart-bus": 'down = "5s"',
    "stop-provider": 'length = "5m"',
    "stop-callout": 'length = "5m"',
    "rotate-signing-keys": "",
    "clone-device": 'device = "device-001"\nlength = "20m"',
    "corrupt-secret": 'secret = "nats-callout-xkey"\nhow = "bit-flipped"\nlength = "5m"',
    "lose-bus-tail": 'down = "5s"\nwrites = 10\nbuckets = ["desired"]',
}
"""One block of each fault."""
BY_TOKEN = ("devices = 20\n", 'devices = 20\nlogins = "token"\n')
DEPLOY = '\n[[steps]]\ndo = "deploy"\nname = "web"\ncontainers = [{ name = "front", image = "registry.example/f:1" }]\n'


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_fault_is_read_bound_and_described(kind: str) -> None:
    block = f'\n[[faults]]\nfault = "{kind}"\nat = "10s"\n{EXAMPLES[kind]}\n'
    cast = parse(GOOD.replace(*BY_TOKEN) + DEPLOY + block, Path("s.toml")).cast()
    spec = cast.scenario.faults[-1]
    bound = bind(spec, None, cast.members, lambda _: None, lambda _: 0)
    assert isinstance(bound, KIND[type(spec)])
    assert length_of(bound) >= 0
    text, subject = describe(bound)
    assert text.startswith(kind)
    assert subject


@pytest.mark.parametrize(
    "block",
    [
        '[[faults]]\nfault = "stop-provider"\nat = "10s"\nlength = "5m"',
        '[[steps]]\ndo = "revoke"\ndevice = "device-001"',
    ],
)
def test_identities_are_for_devices_that_log_in_by_tokens(block: str) -> None:
    assert 'set fleet.logins = "token"' in refusal(f"{GOOD}\n{block}\n")
    parse(f"{GOOD.replace(*BY_TOKEN)}\n{block}\n", Path("s.toml")).cast()


def test_there_is_an_example_of_every_fault() -> None:
    assert len(EXAMPLES) == len(KIND)


@pytest.mark.parametrize(
    ("kind", "old", "new", "expected"),
    [
        ("set-clock", "-2h30m", "--2h", "'-2h' is negative"),
        ("damage-file", '\nrelease = "1.0.0"', "", "file = 'manifest' needs release"),
        ("damage-file", "manifest", "verified", "file = 'verified' takes no release"),
        ("damage-file", '"1.0.0"', '"1.0.1"', "there is no release '1.0.1'"),
        ("cut-power", 'group = "canary"', "", "give exactly one of device, devices and group"),
        ("cut-power", 'group = "canary"', 'device = "triggering"', '"triggering" needs a trigger'),
        ("brown-out", '"2s"', '"0s"', "greater than 0"),
        ("disk-read-errors", '"/var/lib"', '"var/lib"', "should match pattern"),
        ("crash-container", '"web"', '"wbe"', "did you mean 'web'?"),
        ("corrupt-secret", "callout-xkey", "callout-key", "did you mean 'nats-callout-xkey'?"),
    ],
)
def test_what_is_wrong_with_a_fault_is_said(kind: str, old: str, new: str, expected: str) -> None:
    assert old in EXAMPLES[kind]
    block = f'\n[[faults]]\nfault = "{kind}"\nat = "10s"\n{EXAMPLES[kind].replace(old, new)}\n'
    assert expected in refusal(GOOD + DEPLOY + block)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[faults]]\nfault = "kill-operator"\nat = "1s"\ndown = "1s"\nreplica = 1\n', "no operator replica 1"),
        ('[[faults]]\nfault = "freeze-operator"\nat = "1s"\nlength = "1s"\nreplica = "standby"\n', "no replica stands"),
        ('[[checks]]\ncheck = "final"\nthat = { fact = "leader", replica = 3 }\n', "there is no operator replica 3"),
    ],
)
def test_replicas_exist(text: str, expected: str) -> None:
    with pytest.raises(ScenarioError, match=expected):
        parse(GOOD + "\n" + text, Path("s.toml")).cast()

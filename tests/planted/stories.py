"""Small scenarios for bugs that no file of `scenarios/` exposes in a few hundred simulated seconds."""

from __future__ import annotations

from typing import Final

WEB: Final = """
[[steps]]
do = "deploy"
name = "web"
containers = [{ name = "front", image = "registry.example/front:1" }]
[[steps]]
do = "wait"
until = { fact = "workload", deployment = "web", condition = "ready", over = "all" }
within = "5m"
"""


def story(*parts: str, defect: str = "none", groups: str = "", operators: int = 1) -> str:
    """A scenario of three devices from its parts: `WEB` first, then steps, faults and checks."""
    head = f"""
schema = 1
installed = "1.0.0"
scenario = {{ name = "planted", proves = "that the bug is caught" }}
fleet = {{ devices = 3, groups = [{groups}], operators = {operators} }}
releases = [{{ version = "1.0.0" }}, {{ version = "1.1.0", defect = "{defect}" }}]
"""
    return head + WEB + "".join(parts)


def upgrade(to: str = "1.1.0", name: str = "move", more: str = "max_unavailable = { percent = 100 }") -> str:
    """A step that begins a rollout."""
    return f'[[steps]]\ndo = "upgrade"\nname = "{name}"\nto = "{to}"\n{more}\n'


def until_rollout(phase: str, name: str = "move", within: str = "3h") -> str:
    """A step that waits for a rollout."""
    fact = f'{{ fact = "rollout", rollout = "{name}", phase = "{phase}" }}'
    return f'[[steps]]\ndo = "wait"\nuntil = {fact}\nwithin = "{within}"\n'


def wait(length: str) -> str:
    """A step that lets time pass."""
    return f'[[steps]]\ndo = "wait"\nlength = "{length}"\n'


def finally_(fact: str) -> str:
    """A check at the end."""
    return f'[[checks]]\ncheck = "final"\nthat = {{ {fact} }}\n'


def runs(version: str) -> str:
    """In the end every device runs this release."""
    return finally_(f'fact = "release", release = "{version}", over = "all"')


def status(word: str) -> str:
    """In the end every device has reported this of the upgrade."""
    return finally_(f'fact = "upgrade", status = "{word}", release = "1.1.0", over = "all"')


def fault(kind: str, more: str, when: str) -> str:
    """A fault."""
    return f'[[faults]]\nfault = "{kind}"\n{more}\n{when}\n'


def at_phase(phase: str, after: str = "0s", device: str = "device-001") -> str:
    """When a device enters a phase of its upgrade."""
    return f'when = {{ event = "upgrade-phase", phase = "{phase}", device = "{device}", after = "{after}" }}'


def at_group(group: str, phase: str, after: str) -> str:
    """When a group of the rollout is in a phase."""
    fact = f'{{ fact = "rollout-group", rollout = "move", group = "{group}", phase = "{phase}" }}'
    return f'when = {{ event = "holds", that = {fact}, after = "{after}" }}'


def at_step(number: int, after: str = "0s") -> str:
    """When a step is done."""
    return f'when = {{ event = "step-done", step = {number}, after = "{after}" }}'


def when_canary(phase: str, after: str) -> str:
    """When the first group of a rollout stands so."""
    fact = f'{{ fact = "rollout-group", rollout = "move", group = "canary", phase = "{phase}" }}'
    return f'when = {{ event = "holds", that = {fact}, after = "{after}" }}'


STRAIGHT: Final = "upgrade/straight.toml"
RETURN: Final = "rollback/automatic-return.toml"
EXPLICIT: Final = "rollback/explicit.toml"

CUT: Final = 'device = "device-001"\ndown = "30s"'
TWO_GROUPS: Final = '{ name = "canary", count = 1 }, { name = "rest", count = 2 }'
IN_GROUPS: Final = 'groups = ["canary", "rest"]\nmax_unavailable = { percent = 100 }'

AGAIN: Final = story(
    upgrade(),
    until_rollout("Failed"),
    wait("2m"),
    upgrade(name="again"),
    until_rollout("Failed", name="again"),
    fault("cut-power", CUT, at_step(4, "10s")),
    status("refused"),
    runs("1.0.0"),
    defect="never-heartbeats",
)
"""A bad release, a reboot, and then another rollout asks for the very same bad release."""
PLAIN: Final = story(upgrade(), until_rollout("Complete"), runs("1.1.0"))
TWO_OPERATORS: Final = story(upgrade(), until_rollout("Complete"), runs("1.1.0"), operators=2)
ONE_BY_ONE: Final = story(
    upgrade(more="max_unavailable = { count = 1 }"),
    until_rollout("Complete"),
    runs("1.1.0"),
)
GROUPS: Final = story(
    upgrade(more=f'{IN_GROUPS}\nsoak = "4m"'),
    until_rollout("Complete"),
    runs("1.1.0"),
    groups=TWO_GROUPS,
)
PAIR_AND_REST: Final = story(
    upgrade(more='groups = ["pair", "rest"]\nmax_unavailable = { count = 1 }'),
    until_rollout("Complete"),
    runs("1.1.0"),
    groups='{ name = "pair", count = 2 }, { name = "rest", count = 1 }',
)
DARK_IN_THE_SOAK: Final = story(
    upgrade(more=f'{IN_GROUPS}\nsoak = "12m"'),
    until_rollout("Complete"),
    runs("1.1.0"),
    fault("cut-power", 'device = "device-001"\ndown = "6m"', at_group("canary", "Soaking", "2m")),
    groups=TWO_GROUPS,
)
"""The canary loses power in its soak, and is back before the soak would have been over."""
GARBAGE: Final = story(
    fault("write-raw", 'bucket = "desired"\nkey = "device-001.agent"\nvalue = "not a record"', 'at = "5s"'),
    upgrade(),
    until_rollout("Complete"),
    runs("1.1.0"),
)
BROWN_OUT: Final = story(
    upgrade(),
    until_rollout("Complete"),
    wait("1m"),
    fault("brown-out", 'device = "device-001"\ncycles = 4\ndown = "10s"\nup = "50s"', at_step(4, "5s")),
    runs("1.1.0"),
    finally_('fact = "workload", deployment = "web", condition = "ready", over = "all"'),
)
"""A confirmed release, and then the power comes and goes."""
CUT_OFF: Final = story(
    upgrade(),
    until_rollout("Complete"),
    fault("partition", 'devices = ["device-001"]\nlength = "12m"', at_phase("overlapping", "5s")),
    runs("1.1.0"),
    status("succeeded"),
)
"""Nobody is reached for twelve minutes in the middle of an overlap: neither the old instance nor the new one."""
AFTER_A_REFUSAL: Final = story(
    upgrade(),
    until_rollout("Failed"),
    '[[steps]]\ndo = "deploy"\nname = "oven"\ncontainers = [{ name = "fan", image = "registry.example/fan:1" }]\n',
    finally_('fact = "workload", deployment = "oven", condition = "ready", over = "all"'),
    defect="self-test-fails",
)
"""A workload comes after an attempt that failed before its swap."""
REMOVED: Final = story(
    '[[steps]]\ndo = "undeploy"\nname = "web"\n',
    finally_('fact = "workload", deployment = "web", condition = "absent", over = "all"'),
)
HALF: Final = story(
    '[[steps]]\ndo = "deploy"\nname = "oven"\ngroup = "canary"\n'
    'containers = [{ name = "fan", image = "registry.example/fan:1" }]\n',
    finally_('fact = "workload", deployment = "oven", condition = "ready", over = "all", group = "canary"'),
    groups=TWO_GROUPS,
)
PAUSED: Final = story(
    upgrade(more="max_unavailable = { count = 1 }"),
    '[[steps]]\ndo = "wait"\nuntil = { fact = "release", release = "1.1.0", over = "any" }\nwithin = "2h"\n',
    '[[steps]]\ndo = "pause"\nrollout = "move"\n',
    wait("15m"),
    '[[steps]]\ndo = "resume"\nrollout = "move"\n',
    until_rollout("Complete"),
    runs("1.1.0"),
)
ABORTED: Final = story(
    upgrade(more="max_unavailable = { count = 1 }"),
    '[[steps]]\ndo = "wait"\nuntil = { fact = "release", release = "1.1.0", over = "any" }\nwithin = "2h"\n',
    '[[steps]]\ndo = "abort"\nrollout = "move"\n',
    wait("8m"),
    finally_('fact = "rollout", rollout = "move", phase = "Aborted"'),
)
HALTS: Final = story(
    upgrade(more="max_unavailable = { count = 1 }\nmax_failed = { count = 0 }"),
    until_rollout("Halted"),
    wait("5m"),
    finally_('fact = "upgrade", status = "rolled-back", over = { count = 1 }'),
    defect="self-test-fails",
)
"""One failure is one too many."""
SOAK_AND_RESTARTS: Final = story(
    upgrade(more=f'{IN_GROUPS}\nsoak = "6m"'),
    until_rollout("Complete"),
    fault("kill-operator", 'down = "5s"', when_canary("Soaking", "3m")),
    fault("kill-operator", 'down = "5s"', when_canary("Soaking", "5m")),
    '[[checks]]\ncheck = "leads_to"\nwithin = "7m"\n'
    'when = { fact = "rollout-group", rollout = "move", group = "canary", phase = "Soaking" }\n'
    'then = { fact = "rollout-group", rollout = "move", group = "canary", phase = "Passed" }\n',
    runs("1.1.0"),
    groups=TWO_GROUPS,
)
BAD_IN_THE_REST: Final = story(
    '[[steps]]\ndo = "deploy"\nname = "oven"\ngroup = "rest"\n'
    'containers = [{ name = "fan", image = "registry.example/fan:1" }]\n',
    '[[steps]]\ndo = "wait"\nwithin = "5m"\n'
    'until = { fact = "workload", deployment = "oven", condition = "ready", over = "all", group = "rest" }\n',
    upgrade(
        more='groups = ["canary", "rest"]\nmax_unavailable = { count = 1 }\n'
        'max_failed = { count = 0 }\nrollback_to = "1.0.0"\nsoak = "4m"'
    ),
    until_rollout("RolledBack"),
    wait("5m"),
    finally_('fact = "release", release = "1.1.0", over = "all", group = "canary"'),
    finally_('fact = "release", release = "1.0.0", over = "all", group = "rest"'),
    groups=TWO_GROUPS,
    defect="fails-under-load",
)
"""The release fails on the devices that manage two containers. The canary does not."""
ANOTHER_ZONE: Final = story(
    upgrade(
        more='max_unavailable = { percent = 100 }\ntime_zone = "Asia/Kolkata"\n'
        'windows = [{ start = "00:00", length = "10m" }, { start = "05:45", length = "1h" }]'
    ),
    until_rollout("Complete"),
    runs("1.1.0"),
)
"""The run begins at midnight, as UTC has it. The second window opens a quarter of an hour later."""
CHANGED: Final = story(
    '[[steps]]\ndo = "deploy"\nname = "web"\ncontainers = [{ name = "front", image = "registry.example/front:2" }]\n',
    wait("1m"),
    finally_('fact = "workload", deployment = "web", condition = "ready", over = "all"'),
)
"""A workload gets another image."""
AWAY: Final = story(
    upgrade(more="max_unavailable = { count = 1 }"),
    until_rollout("Complete"),
    wait("10m"),
    fault("partition", 'devices = ["device-002"]\nlength = "30m"', at_step(2)),
    '[[checks]]\ncheck = "eventually"\nwithin = "20m"\n'
    'that = { fact = "rollout", rollout = "move", phase = "Complete" }\n',
    runs("1.1.0"),
)
"""A device is away for so long that its rollout is over before it is back."""
SILENT_ENGINE: Final = story(
    upgrade(),
    until_rollout("Complete"),
    fault("silence-engine", 'device = "device-001"\nlength = "4m"', at_phase("locking")),
    '[[checks]]\ncheck = "eventually"\nwithin = "10m"\n'
    'that = { fact = "upgrade", status = "deferred", over = "all", devices = ["device-001"] }\n',
    runs("1.1.0"),
)
"""The container engine answers nobody while a device is to come to rest."""
FULL: Final = story(
    upgrade(),
    until_rollout("Failed"),
    wait("11m"),
    upgrade(name="again"),
    until_rollout("Complete", name="again"),
    fault("fill-disk", 'device = "device-001"\nleave = 2000\nlength = "10m"', at_step(2)),
    runs("1.1.0"),
)
"""A device has no room for the release, and later it has."""
LIFTED: Final = story(
    upgrade(),
    until_rollout("Failed"),
    '[[steps]]\ndo = "retry"\nrollout = "move"\n',
    wait("1m"),
    until_rollout("Failed"),
    wait("2m"),
    fault("damage-file", 'device = "device-001"\nfile = "attempt"\nhow = "missing"', at_step(7)),
    fault("kill-agent", 'device = "device-001"\nslot = "managing"', at_step(7, "1s")),
    '[[checks]]\ncheck = "final"\n'
    'that = { fact = "upgrade", status = "refused", over = "all", devices = ["device-001"] }\n',
    runs("1.0.0"),
    defect="crashes-at-start",
)
"""A bad release is tried once more, and then the device forgets the attempt, and not what it condemned in it."""
UNREADABLE_MARK: Final = story(
    upgrade(),
    until_rollout("Failed"),
    wait("1m"),
    upgrade(name="again"),
    until_rollout("Failed", name="again"),
    fault(
        "damage-file",
        'device = "device-001"\nfile = "quarantine-mark"\nhow = "garbage"\nrelease = "1.1.0"',
        at_step(4),
    ),
    fault("kill-agent", 'device = "device-001"\nslot = "managing"', at_step(4, "1s")),
    status("refused"),
    runs("1.0.0"),
    defect="crashes-at-start",
)
"""The mark of a condemned release is there, and cannot be read."""
AGENT_AGAIN: Final = story(
    upgrade(),
    until_rollout("Failed"),
    wait("1m"),
    upgrade(name="again"),
    until_rollout("Failed", name="again"),
    fault("kill-agent", 'device = "device-001"\nslot = "managing"', at_step(4, "1s")),
    status("refused"),
    runs("1.0.0"),
    defect="crashes-at-start",
)
"""The agent is started again between a release's failure and the next wish for it."""
BROKEN_TRIAL: Final = story(
    upgrade(),
    until_rollout("Complete"),
    fault("kill-agent", 'device = "device-001"\nslot = "standby"', at_phase("overlapping", "50s")),
    runs("1.1.0"),
)
"""The new instance is killed before it is confirmed, and started again at once."""
WRONG_CLOCKS: Final = story(
    upgrade(),
    until_rollout("Complete"),
    fault("set-clock", 'device = "device-001"\nby = "-30d"\nlength = "8m"', at_phase("overlapping", "40s")),
    '[[checks]]\ncheck = "never"\nthat = { fact = "upgrade", status = "rolled-back", over = "any" }\n',
    status("succeeded"),
    runs("1.1.0"),
)
"""A clock jumps back in the middle of the heartbeats that a confirmation takes."""
LOST_TAIL: Final = story(
    upgrade(),
    until_rollout("Complete"),
    fault("lose-bus-tail", 'down = "2s"\nwrites = 6\nbuckets = ["desired"]', at_phase("overlapping", "20s")),
    fault("lose-bus-tail", 'down = "2s"\nwrites = 4\nbuckets = ["state"]', at_step(4, "30s")),
    runs("1.1.0"),
)
"""The bus forgets what was desired in the middle of an upgrade, and what was reported after it."""
WINDOWS: Final = story(
    upgrade(more='max_unavailable = { count = 1 }\nwindows = [{ start = "00:15", length = "1h" }]'),
    until_rollout("Complete"),
    runs("1.1.0"),
)
TWO_AT_ONCE: Final = story(
    upgrade(more="max_unavailable = { count = 1 }"),
    wait("10s"),
    upgrade(name="other", to="1.0.0"),
    '[[checks]]\ncheck = "eventually"\nwithin = "5m"\n'
    'that = { fact = "rollout", rollout = "other", phase = "Refused" }\n',
    runs("1.0.0"),
)
REBOOT: Final = story(
    upgrade(),
    until_rollout("Complete"),
    wait("2m"),
    fault("cut-power", CUT, at_step(4, "30s")),
    finally_('fact = "device-phase", phase = "Ready", over = "all"'),
    defect="fails-after-reboot",
)

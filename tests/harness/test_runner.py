"""The runner, proven on a scripted fleet: every way a run can end, and every phase of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.contracts.errors import IllegalTransition, Unavailable
from fleet.contracts.ids import DeviceId, Release, Slot, Version
from fleet.contracts.layout import Bucket
from fleet.contracts.objects import DevicePhase
from fleet.contracts.time import Duration
from harness import faults
from harness.progress import Silent
from harness.runner import STAYS, Result, run_scenario
from harness.scenario import Cast, parse
from harness.targets.port import Need
from harness.targets.scripted import NoSecrets, ScriptedSession, ScriptedTarget, straight
from harness.verdict import Crashed, HarnessBroken, Held, NotApplicable, Stuck, Violated
from sim.journal import Event, FaultHealed, FaultInjected, Journal, OperatorEnded, PhaseEntered, StepDone, to_json

HEAD = """\
schema = 1
installed = "1.0.0"
scenario = { name = "t", proves = "the test" }
fleet = { devices = 4, groups = [{ name = "canary", percent = 25 }, { name = "rest", percent = 75 }] }
releases = [{ version = "1.0.0" }, { version = "1.1.0" }]
"""
READY = '\n[[checks]]\ncheck = "final"\nthat = { fact = "device-phase", phase = "Ready", over = "all" }\n'
UPGRADE = '[[steps]]\ndo = "upgrade"\nname = "move"\nto = "1.1.0"\nmax_unavailable = { count = 1 }\n'
DEPLOY = '[[steps]]\ndo = "deploy"\nname = "web"\ncontainers = [{ name = "front", image = "i:1" }]\n'
KILL = '[[faults]]\nfault = "kill-operator"\ndown = "30s"\n'
RAW = '[[faults]]\nfault = "write-raw"\nbucket = "state"\nkey = \'\\xff.upgrade\'\nvalue = "x"\n'
FIRST = DeviceId("device-001")


def cast_of(body: str = READY, devices: int | None = None) -> Cast:
    """A scenario of four devices with this body."""
    return parse(HEAD + body, Path("t.toml")).cast(devices)


Bend = Callable[[ScriptedSession], None]


def run(body: str, bend: Bend = straight) -> Result:
    return record(body, bend)[0]


def record(body: str, bend: Bend = straight) -> tuple[Result, list[Event]]:
    events: list[Event] = []
    return run_scenario(
        cast_of(body), ScriptedTarget(bend), 1, Silent(), lambda journal: journal.subscribe_all(events.append)
    ), events


# --- holding -----------------------------------------------------------------------------------------


def test_a_run_that_holds_goes_through_every_phase() -> None:
    body = DEPLOY + UPGRADE + KILL + 'when = { event = "rollout-progress", rollout = "move", percent = 50 }\n' + READY
    result, events = record(body)
    assert result.verdict == Held()
    assert result.reason == ""
    assert result.trail == ()
    assert result.faults_injected == 1
    phases = [event.phase for event in events if isinstance(event, PhaseEntered)]
    assert phases == ["set-up", "drive", "heal", "converge", "check", "tear-down"]
    steps = [(event.index, event.text) for event in events if isinstance(event, StepDone)]
    assert steps == [(1, "deploy web to all"), (2, "upgrade all to 1.1.0 (move)")]
    assert result.events == len(events)
    assert len(result.journal_sha256) == 64


def test_the_same_seed_gives_the_same_journal() -> None:
    first, second = run(DEPLOY + UPGRADE + READY), run(DEPLOY + UPGRADE + READY)
    assert first.journal_sha256 == second.journal_sha256
    assert replace(first, wall_s=0.0) == replace(second, wall_s=0.0)


def test_a_fault_lasts_as_long_as_it_says() -> None:
    _, events = record(KILL + 'at = "10s"\n' + READY)
    (begun,) = [event for event in events if isinstance(event, FaultInjected)]
    (ended,) = [event for event in events if isinstance(event, FaultHealed)]
    assert (begun.index, begun.text, begun.subject) == (1, "kill-operator for 30s", "operator-0")
    assert begun.at.in_seconds == 10
    assert ended.at - begun.at == Duration.seconds(30)


def test_a_step_waits_for_its_trigger() -> None:
    wait = '[[steps]]\ndo = "wait"\nlength = "5s"\n'
    event = 'when = { event = "step-done", step = 1, after = "7s" }\n'
    _, events = record(wait + 'at = "60s"\n' + wait + event + READY)
    assert [event.at.in_seconds for event in events if isinstance(event, StepDone)] == [65, 65 + 7 + 5]


def test_an_event_counts_even_if_it_came_before_the_turn_of_its_step() -> None:
    wait = '[[steps]]\ndo = "wait"\nlength = "5s"\n'
    event = 'when = { event = "step-done", step = 1, after = "1s" }\n'
    _, events = record(wait + wait + wait + event + READY)
    assert [event.at.in_seconds for event in events if isinstance(event, StepDone)] == [5, 10, 15]


def test_an_event_names_the_device_a_fault_hits() -> None:
    body = (
        UPGRADE
        + '[[faults]]\nfault = "kill-agent"\ndevice = "triggering"\nslot = "standby"\n'
        + 'when = { event = "upgrade-phase", phase = "overlapping", count = 2, after = "1s" }\n'
        + READY
    )
    target = ScriptedTarget()
    run_scenario(cast_of(body), target, 1, Silent())
    assert target.injected == [faults.KillAgent(DeviceId("device-002"), Slot.B)]


def test_undeploying_and_changing_a_plan() -> None:
    body = UPGRADE + '[[steps]]\ndo = "wait"\nuntil = { fact = "rollout", rollout = "move", phase = "Complete" }\n'
    body += 'within = "1h"\n' + UPGRADE.replace("1.1.0", "1.0.0")
    body += '[[checks]]\ncheck = "final"\nthat = { fact = "release", release = "1.0.0", over = "all" }\n'
    result, _ = record(body)
    assert result.verdict == Held()
    removed = '[[steps]]\ndo = "undeploy"\nname = "web"\n'
    result, _ = record(DEPLOY + '[[steps]]\ndo = "wait"\nlength = "9s"\n' + removed + READY.replace("all", "any"))
    assert isinstance(result.verdict, Stuck), "the scripted devices keep the workload"
    assert "to be rid of workload web" in result.reason


# --- not holding -------------------------------------------------------------------------------------


def test_a_violation_ends_the_run_at_once_and_says_what_came_before() -> None:
    def erase(session: ScriptedSession) -> None:
        session.later(Duration.seconds(20), lambda: session.story.link(FIRST, None, "the file is torn"))

    result, events = record('[[steps]]\ndo = "wait"\nlength = "2h"\n' + READY, erase)
    assert result.verdict == Violated(
        "current-link-complete", "the current link of device-001 leads to no complete release: the file is torn"
    )
    assert result.simulated_s == 20
    assert isinstance(events[-1], PhaseEntered)
    assert events[-1].phase == "tear-down"
    assert "the file is torn" in result.trail[-1]
    assert len(result.trail) <= 60
    assert not any("HeartbeatStored" in line for line in result.trail)


def test_a_violation_in_a_step_of_the_runner_itself() -> None:
    never = '[[checks]]\ncheck = "never"\nthat = { fact = "operator", state = "down" }\n'
    result = run(KILL + 'at = "1s"\n' + never)
    assert isinstance(result.verdict, Violated)
    assert result.verdict.rule == "check 1 (never)"


def test_a_fleet_that_does_not_come_up_is_stuck() -> None:
    result = run(READY, lambda session: session.story.phase(FIRST, DevicePhase.STALE))
    assert result.verdict == Stuck("set-up took longer than 10m", ("device-001 to be Ready (is Stale)",))
    assert result.simulated_s == 600


def test_a_fleet_that_does_not_converge_is_stuck() -> None:
    def second_agent(session: ScriptedSession) -> None:
        release = session.story.instances[FIRST, Slot.A][1]
        session.later(Duration.seconds(5), lambda: session.story.start(FIRST, Slot.B, release))

    result = run('[[steps]]\ndo = "wait"\nlength = "10s"\n' + READY, second_agent)
    assert isinstance(result.verdict, Stuck)
    assert result.verdict.waiting_for == ("device-001 to run one agent (two are running)",)
    assert any("AgentStarted" in line and "device-001" in line for line in result.trail)


def test_a_wait_that_is_in_vain_is_stuck() -> None:
    wait = '[[steps]]\ndo = "wait"\nuntil = { fact = "release", release = "1.1.0", over = "any" }\nwithin = "1m"\n'
    result = run(wait + READY)
    assert isinstance(result.verdict, Stuck)
    assert "release 1.1.0 is true of 0 of 4 devices (any asked)" in result.reason


def test_a_fault_that_never_happened_is_no_success() -> None:
    when = 'when = { event = "upgrade-phase", phase = "swapping", device = "device-002" }\n'
    result = run(KILL + when + READY)
    assert result.verdict == HarnessBroken("fault 1 never happened (kill-operator): its trigger never came")
    assert result.simulated_s < 300, "a settled fleet sets nothing off: there is nothing to wait for"


def test_a_fault_with_nothing_to_hit_is_no_success() -> None:
    cut = '[[faults]]\nfault = "kill-agent"\ndevice = "device-001"\nslot = "b"\nat = "1s"\n'
    result = run(cut + READY)
    assert result.verdict == HarnessBroken("fault 1 never happened (kill-agent): there is nothing to hit")
    left = run(
        '[[faults]]\nfault = "kill-agent"\ndevice = "device-001"\nat = "1s"\n' + READY,
        lambda session: session.later(Duration.millis(500), lambda: session.story.leave(FIRST, Slot.A)),
    )
    assert isinstance(left.verdict, Stuck), "a fleet that has lost its agent is the stronger finding"
    assert "device-001 to be managed by an agent" in left.reason


def test_a_step_whose_event_never_comes_is_no_success() -> None:
    when = 'when = { event = "holds", that = { fact = "operator-starts", count = 2 } }\n'
    result = run('[[steps]]\ndo = "wait"\nlength = "1s"\n' + when + READY)
    assert result.verdict == HarnessBroken("step 1 never happened (wait 1s)")


def test_a_check_that_never_applied_is_no_success() -> None:
    leads = '[[checks]]\ncheck = "leads_to"\nwhen = { fact = "operator", state = "down" }\n'
    leads += 'then = { fact = "operator", state = "running" }\nwithin = "1m"\n'
    assert run(leads).verdict == HarnessBroken("check 1 (leads_to) never applied: what it follows from never held")
    since = '[[checks]]\ncheck = "always"\nthat = { fact = "operator", state = "running" }\n'
    since += 'since = { event = "upgrade-phase", phase = "locking", count = 1 }\n'
    assert run(since).verdict == HarnessBroken("check 1 (always) never began: the event it waits for did not happen")


def test_what_a_target_cannot_do_is_not_applicable() -> None:
    target = ScriptedTarget(cannot={faults.KillOperator: "there is no operator here"})
    result = run_scenario(cast_of(KILL + 'at = "1s"\n' + READY), target, 1, Silent())
    assert result.verdict == NotApplicable(
        "target scripted cannot inject fault 1 (kill-operator): there is no operator here"
    )
    assert target.runs == 0


def test_a_file_that_is_given_away_needs_a_target_with_other_users() -> None:
    fault = '[[faults]]\nfault = "corrupt-secret"\nsecret = "idp-master-key"\nhow = "wrong-owner"\n'
    fault += 'length = "1m"\nat = "1s"\n'
    target = ScriptedTarget(lacks={Need.OTHER_OWNERS: "there is one user"})
    assert run_scenario(cast_of(fault + READY), target, 1, Silent()).verdict == NotApplicable(
        "fault 1 needs files that belong to another user, which target scripted does not have: there is one user"
    )
    other = run_scenario(cast_of(fault.replace("wrong-owner", "empty") + READY), target, 1, Silent())
    assert "there is nothing to hit" in other.reason


class _Sees(NoSecrets):
    """Takes a word for the value of a secret."""

    def shown_in(self, text: str) -> tuple[str, ...]:
        return ("idp-master-key",) if "front" in text else ()


def test_a_report_that_would_show_a_secret_is_left_out() -> None:
    def bend(session: ScriptedSession) -> None:
        session.desk = _Sees()
        session.later(Duration.seconds(30), lambda: session.story.put(Bucket.INFO, FIRST, b"front", "device-002"))

    result = run(DEPLOY + UPGRADE + READY, bend)
    evidence = "the report of the run would show the value of idp-master-key: it is left out"
    assert result.verdict == Violated("secrets-stay", evidence)
    assert (result.trail, result.timeline) == ((), ())


def test_a_file_about_the_end_of_tokens_needs_a_target_where_they_end() -> None:
    body = HEAD.replace("devices = 4,", 'devices = 4, logins = "token",')
    long = body.replace('proves = "the test"', 'proves = "the test", drive_within = "20h"')
    assert HEAD != body != long
    lacks = {Need.TOKENS_THAT_END: "they last for hours"}
    for text, verdict in (
        (body, Held()),
        (long, NotApplicable("target scripted has no tokens that end within the run: they last for hours")),
    ):
        cast = parse(text + READY, Path("s.toml")).cast()
        assert run_scenario(cast, ScriptedTarget(lacks=lacks), 1, Silent()).verdict == verdict


def test_what_production_code_raises_is_a_crash() -> None:
    def illegal(session: ScriptedSession) -> None:
        raise IllegalTransition("Idle", "Swapped")

    fallen = run(READY, illegal).verdict
    assert isinstance(fallen, Crashed)
    assert fallen.error == "IllegalTransition: no transition from Idle on Swapped; before that: nothing"

    def in_production(session: ScriptedSession) -> None:
        Release.model_construct(version=Version("1.0.0")).__hash__()

    crashed = run(READY, in_production)
    assert isinstance(crashed.verdict, Crashed)
    assert "AttributeError" in crashed.verdict.error
    assert "fleet/contracts/ids.py" in crashed.verdict.traceback


def test_what_the_target_or_the_harness_raises_is_not_a_verdict_on_the_system() -> None:
    def fails(session: ScriptedSession) -> None:
        raise Unavailable("no server")

    def breaks(session: ScriptedSession) -> None:
        raise ZeroDivisionError("in the harness")

    assert run(READY, fails).verdict == HarnessBroken("Unavailable: no server")
    broken = run(READY, breaks).verdict
    assert isinstance(broken, HarnessBroken)
    assert broken.why == "ZeroDivisionError: in the harness"
    assert "raise ZeroDivisionError" in broken.traceback


def test_a_failing_store_is_tried_again_and_then_breaks_the_run() -> None:
    tries: list[int] = []

    def refuse(session: ScriptedSession) -> None:
        def fails_four_times() -> None:
            tries.append(1)
            if len(tries) < 5:
                raise Unavailable("not yet")

        session.store.before = fails_four_times

    assert run(DEPLOY + READY, refuse).verdict == Held()
    assert len(tries) == 5


def test_a_violation_comes_before_an_error_that_follows_from_it() -> None:
    def both(session: ScriptedSession) -> None:
        session.journal.record(OperatorEnded(session.clock.monotonic(), 0, 1))
        raise Unavailable("the operator is gone")

    result = run(READY, both)
    assert isinstance(result.verdict, Violated)
    assert result.verdict.rule == "operator-never-restarts-because-of-data"


# --- checks ------------------------------------------------------------------------------------------


def check(kind: str, that: str, more: str = "") -> str:
    return f'[[checks]]\ncheck = "{kind}"\nthat = {{ {that} }}\n{more}\n'


NEW = 'fact = "release", release = "1.1.0"'


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (check("always", 'fact = "device-phase", phase = "Ready", over = "all"'), None),
        (check("always", NEW + ', over = "all"'), "check 1 (always)"),
        (check("always", NEW + ", over = { at_most = 3 }"), "check 1 (always)"),
        (check("always", 'fact = "release", release = "1.0.0", over = "all", group = "canary"'), "check 1 (always)"),
        (check("never", NEW + ", over = { count = 3 }"), "check 1 (never)"),
        (check("never", 'fact = "quarantined", release = "1.1.0", over = "any"'), None),
        (check("never", NEW + ', over = "any"', 'since = { event = "step-done", step = 1 }'), "check 1 (never)"),
        (check("eventually", NEW + ', over = "any"', 'within = "1m"'), "check 1 (eventually)"),
        (check("eventually", NEW + ', over = "any"', 'within = "2m"'), None),
        (check("eventually", NEW + ', over = "all"', 'within = "10m"'), None),
        (check("eventually", NEW + ", over = { count = 2 }", 'within = "10m"'), None),
        (check("final", NEW + ', over = "all"'), None),
        (check("final", NEW + ", over = { at_most = 3 }"), "check 1 (final)"),
        (check("final", 'fact = "upgrade", status = "succeeded", release = "1.1.0", over = "all"'), None),
        (check("final", 'fact = "upgrade", status = "refused", over = "any"'), "check 1 (final)"),
        (check("final", 'fact = "rollout", rollout = "move", phase = "Complete"'), None),
        (check("final", 'fact = "rollout", rollout = "move", phase = "Failed"'), "check 1 (final)"),
        (check("final", 'fact = "operator-starts", count = 1'), None),
        (check("final", 'fact = "operator-starts", count = 2'), "check 1 (final)"),
        (check("final", 'fact = "workload", deployment = "web", condition = "ready", over = "all"'), None),
        (
            check("final", 'fact = "workload", deployment = "web", condition = "absent", over = "any"'),
            "check 1 (final)",
        ),
        (check("final", 'fact = "invalid-entries", at_least = 1, over = "any"'), "check 1 (final)"),
    ],
)
def test_checks(body: str, rule: str | None) -> None:
    verdict = run(DEPLOY + UPGRADE + body).verdict
    assert (verdict.rule if isinstance(verdict, Violated) else None) == rule, verdict
    assert rule is not None or verdict == Held()


def test_leads_to_holds_and_is_violated() -> None:
    leads = '[[checks]]\ncheck = "leads_to"\nwhen = { fact = "operator", state = "down" }\n'
    leads += 'then = { fact = "operator", state = "running" }\nwithin = "WITHIN"\n'
    body = KILL + 'at = "10s"\n' + leads
    assert run(body.replace("WITHIN", "31s")).verdict == Held()
    late = run(body.replace("WITHIN", "29s")).verdict
    assert isinstance(late, Violated)
    assert late.rule == "check 1 (leads_to)"
    assert run(body.replace("WITHIN", "29s")).simulated_s == 40


def test_invalid_entries_are_read_from_the_newest_heartbeat() -> None:
    fact = 'fact = "invalid-entries", at_least = 2, over = "any", devices = ["device-001"]'

    def complain(session: ScriptedSession) -> None:
        session.story.beat(FIRST, Slot.A, invalid=2)

    assert run(check("final", fact), complain).verdict == Held()
    assert isinstance(run(check("final", fact)).verdict, Violated)


def test_bytes_nobody_can_read_change_nothing() -> None:
    assert run(RAW + 'at = "1s"\n' + READY).verdict == Held()


def test_the_journal_of_a_run_can_be_written_down() -> None:
    lines: list[str] = []

    def attach(journal: Journal) -> None:
        journal.subscribe_all(lambda event: lines.append(to_json(event)))

    result = run_scenario(cast_of(RAW + 'at = "1s"\n' + READY), ScriptedTarget(), 1, Silent(), attach)
    assert len(lines) == result.events
    assert r"\udcff.upgrade" in "".join(lines)


def test_what_was_reached_has_to_stay() -> None:
    def undone(session: ScriptedSession) -> None:
        def look(event: PhaseEntered) -> None:
            if event.phase == "check":
                session.later(Duration.seconds(20), lambda: session.story.leave(FIRST, Slot.A))

        session.journal.subscribe(PhaseEntered, look)

    result, events = record(READY, undone)
    assert isinstance(result.verdict, Violated)
    assert result.verdict.rule == "desired-equals-observed"
    entered = {event.phase: event.at for event in events if isinstance(event, PhaseEntered)}
    assert entered["tear-down"] - entered["check"] >= STAYS

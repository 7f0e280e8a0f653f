"""The facts about installations: counted from what the journal says of each, and said in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.contracts.ids import DeviceId
from fleet.contracts.time import Instant
from harness.checks import holds_for_fleet, watch, words
from harness.scenario import parse
from harness.schema_base import SecretRef
from harness.schema_facts import Count, InstallsKept, InstallsRefused, SecretsMade
from harness.view import FleetView
from sim.journal import InstallRefused, Journal, SecretsInstalled

NOW = Instant(1)
KEY = SecretRef("idp-master-key")
SCENARIO = """\
schema = 1
installed = "1.0.0"
scenario = { name = "t", proves = "the test" }
fleet = { devices = 1 }
releases = [{ version = "1.0.0" }]
checks = [{ check = "final", that = { fact = "secrets-made", over = { count = 2 } } }]
"""


def test_installations_are_counted() -> None:
    journal = Journal()
    view = FleetView((DeviceId("device-001"),), journal)
    assert holds_for_fleet(SecretsMade(fact="secrets-made", over=Count(count=0)), view)
    journal.record(SecretsInstalled(NOW, 1, NOW, ("a", "b"), ()))
    journal.record(SecretsInstalled(NOW, 2, NOW, (), ("a", "b")))
    journal.record(InstallRefused(NOW, 3, NOW, "the secret in idp-master-key.json is damaged"))
    journal.record(InstallRefused(NOW, 4, NOW, "the secret in nats-callout-xkey.json is damaged"))
    assert holds_for_fleet(SecretsMade(fact="secrets-made", over=Count(count=2)), view)
    assert not holds_for_fleet(SecretsMade(fact="secrets-made", over=Count(count=1)), view)
    assert holds_for_fleet(InstallsKept(fact="installs-kept", over=Count(at_least=1)), view)
    assert not holds_for_fleet(InstallsKept(fact="installs-kept", over=Count(at_least=2)), view)
    assert holds_for_fleet(InstallsRefused(fact="installs-refused", over=Count(at_most=2)), view)
    assert not holds_for_fleet(InstallsRefused(fact="installs-refused", over=Count(at_most=1)), view)
    assert holds_for_fleet(InstallsRefused(fact="installs-refused", secret=KEY, over=Count(count=1)), view)


@pytest.mark.parametrize(
    ("fact", "said", "explained"),
    [
        (SecretsMade(fact="secrets-made", over=Count(count=2)), "exactly 2 secrets made", "0 secrets were made"),
        (
            InstallsKept(fact="installs-kept", over=Count(at_least=1)),
            "at least 1 installations kept every secret",
            "0 installations kept every secret (at least 1 asked)",
        ),
        (
            InstallsRefused(fact="installs-refused", over=Count(at_least=1), secret=KEY),
            "at least 1 installations refused (idp-master-key)",
            "0 installations were refused because of idp-master-key (at least 1 asked)",
        ),
    ],
)
def test_a_fact_is_said_and_explained(
    fact: SecretsMade | InstallsKept | InstallsRefused, said: str, explained: str
) -> None:
    cast = parse(SCENARIO, Path("t.toml")).cast()
    view = FleetView(cast.devices, Journal())
    assert words(fact) == said
    watched = watch(fact, cast, view)
    assert not watched.holds
    assert explained in watched.explain()

"""The measurement of a reconnect storm measures what it says, small, in both worlds."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.contracts.time import Duration
from harness.storm_report import StormReport
from harness.targets import storm_local, storm_sim


def checked(report: StormReport, clients: int) -> None:
    assert (report.clients, len(report.back)) == (clients, clients)
    assert list(report.back) == sorted(report.back)
    assert "0 refused" in " ".join(report.callouts)
    assert f"{clients} clients, {clients} back" in "\n".join(report.lines())


def test_simulated_clients_come_back_spread_and_are_asked_about_once_each() -> None:
    report = storm_sim.storm(60, seed=1)
    checked(report, 60)
    assert report.questions == 60
    assert report.back[-1] - report.back[0] > Duration.seconds(1)
    assert report.back[-1] < Duration.seconds(4)
    assert storm_sim.storm(60, seed=1).back == report.back
    assert storm_sim.storm(60, seed=2).back != report.back


@pytest.mark.real
def test_real_clients_come_back(tmp_path: Path) -> None:
    checked(storm_local.storm(10, tmp_path), 10)

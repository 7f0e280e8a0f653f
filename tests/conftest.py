"""What the whole suite says at its end: which check caught which planted bug."""

from __future__ import annotations

import pytest

from tests.secret_watch import COUNTED
from tests.secret_watch import watched_secrets as watched_secrets


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the tests have left for the end, also those of parallel workers."""
    bugs = sorted({str(value) for value in _left(terminalreporter, "planted bug")})
    if bugs:
        terminalreporter.section("planted bugs")
        for line in bugs:
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"{len(bugs)} bugs planted")
    counted = [value for value in _left(terminalreporter, COUNTED) if isinstance(value, tuple | list)]
    if counted:
        made, searched = sum(value[0] for value in counted), sum(value[1] for value in counted)
        terminalreporter.section("secrets")
        terminalreporter.write_line(f"{made} secret values made, {searched} texts searched for them")


def _left(terminalreporter: pytest.TerminalReporter, wanted: str) -> list[object]:
    """The properties of that name, each test's once: every phase of a test repeats what it left."""
    reports = [
        report
        for kept in terminalreporter.stats.values()
        for report in kept
        if isinstance(report, pytest.TestReport) and report.when == "teardown"
    ]
    return [value for report in reports for name, value in report.user_properties if name == wanted]

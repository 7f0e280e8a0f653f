"""What the whole suite says at its end: which check caught which planted bug."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the lines that tests of planted bugs have left, also those of parallel workers."""
    lines = [
        str(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "planted bug"
    ]
    if lines:
        lines = sorted(dict.fromkeys(lines))  # each phase of a test repeats what it left
        terminalreporter.section("planted bugs")
        for line in lines:
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"{len(lines)} bugs planted")

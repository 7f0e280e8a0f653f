"""`make conformance`: what each model was asked, beside its real counterpart, and where the two differ.

`FLEET_CONFORMANCE_EXAMPLES` and `FLEET_CONFORMANCE_SEED` choose how many courses of operations and which.
"""

from __future__ import annotations

import sys
import textwrap

from tests.conformance.suites import SUITES, Report


def table(reports: list[Report]) -> str:
    """One line for each counterpart."""
    rows = [("suite", "real counterpart", "examples", "divergences")]
    rows += [(item.name, item.counterpart, str(item.examples), str(len(item.divergences))) for item in reports]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def main() -> int:
    """Run every suite. 1 when something differs."""
    reports = [report for suite in SUITES for report in suite()]
    operations = {report.name: report.operations for report in reports}
    for name, done in operations.items():
        text = f"{name}, modelled operations: {', '.join(done)}"
        print(textwrap.fill(text, 118, subsequent_indent="  ", break_on_hyphens=False), end="\n\n")
    for report in reports:
        for divergence in report.divergences:
            print(f"{report.name}, {report.counterpart}: {divergence}", end="\n\n")
    print(table(reports))
    return int(any(report.divergences for report in reports))


if __name__ == "__main__":
    sys.exit(main())

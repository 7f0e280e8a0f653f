"""`make conformance`: what each model was asked, beside its real counterpart, and where the two differ.

`FLEET_CONFORMANCE_EXAMPLES` and `FLEET_CONFORMANCE_SEED` choose how many courses of operations and which.
"""

from __future__ import annotations

import sys
import textwrap

from tests.conformance.suites import SUITES, Report


def table(reports: list[Report]) -> str:
    """One line for each suite."""
    rows = [("suite", "real counterpart", "examples", "divergences")]
    rows += [(item.name, item.counterpart, str(item.examples), str(int(bool(item.divergence)))) for item in reports]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main() -> int:
    """Run every suite. 1 when something differs."""
    reports = [suite() for suite in SUITES]
    for report in reports:
        text = f"{report.name}, modelled operations: {', '.join(report.operations)}"
        print(textwrap.fill(text, 118, subsequent_indent="  "), end="\n\n")
        if report.divergence:
            print(report.divergence, end="\n\n")
    print(table(reports))
    return int(any(report.divergence for report in reports))


if __name__ == "__main__":
    sys.exit(main())

"""How many seeds are shown: a line that grows, a table per scenario, each failing seed with its reason."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import report
from harness.seeds import Tally

SHOWN = 10
"""At most this many failing seeds of a scenario are listed."""


def line(tally: Tally) -> str:
    """How far a scenario is, in one line."""
    text = f"{tally.scenario}: {tally.done} of {len(tally.seeds)} seeds, {tally.verdicts['Held']} held"
    return text if not tally.failed else f"{text}, {tally.failed} failed"


def as_json(tally: Tally) -> str:
    """One JSON object."""
    worst, worst_seed = tally.worst
    return json.dumps(
        {
            "scenario": tally.scenario,
            "target": tally.target,
            "devices": tally.devices,
            "first_seed": tally.seeds[0],
            "seeds": len(tally.seeds),
            "verdicts": dict(sorted(tally.verdicts.items())),
            "simulated_median_s": tally.median_s,
            "simulated_worst_s": worst,
            "simulated_worst_seed": worst_seed,
            "wall_s": round(tally.wall_s, 3),
            "journals_sha256": tally.journals_sha256,
            "failures": [
                {
                    "seed": result.seed,
                    "verdict": type(result.verdict).__name__,
                    "reason": result.reason,
                    "journal_sha256": result.journal_sha256,
                    "reproduce": report.reproduce(tally.path, result),
                }
                for result in tally.failures[:SHOWN]
            ],
        }
    )


def show_summary(out: Console, tallies: list[Tally]) -> None:
    """The table; then every failing seed, bounded, and as the last line the command that reproduces one."""
    table = Table("scenario", box=None, pad_edge=False)
    for name in ("devices", "seeds", "held"):
        table.add_column(name, justify="right")
    table.add_column("others")
    for name in ("median", "worst", "(seed)", "wall"):
        table.add_column(name, justify="right")
    for tally in tallies:
        worst, seed = tally.worst
        others = ", ".join(f"{count} {name}" for name, count in sorted(tally.verdicts.items()) if name != "Held")
        counts = (f"{tally.devices}", f"{tally.done}", f"{tally.verdicts['Held']}")
        times = (f"{tally.median_s:.0f} s", f"{worst:.0f} s", f"{seed}", f"{tally.wall_s:.1f} s")
        style = "bold red" if tally.code else "cyan"
        table.add_row(tally.scenario, *counts, Text(others or "-", style=style if others else "green"), *times)
    out.print()
    out.print(table)
    done, held = sum(tally.done for tally in tallies), sum(tally.verdicts["Held"] for tally in tallies)
    out.print(f"{held} of {done} runs held", markup=False)
    _show_failures(out, tallies)


def _show_failures(out: Console, tallies: list[Tally]) -> None:
    failing = [tally for tally in tallies if tally.failures]
    for tally in failing:
        out.print()
        for result in tally.failures[:SHOWN]:
            words = f"{tally.scenario} seed {result.seed}: {type(result.verdict).__name__}: {result.reason}"
            out.print(words, markup=False, soft_wrap=True)
        if tally.failed > SHOWN:
            out.print(f"{tally.scenario}: and {tally.failed - SHOWN} more", markup=False)
    if failing:
        out.print()
        report.show_failure(out, failing[-1].path, failing[-1].failures[0])

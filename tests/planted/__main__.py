"""`python -m tests.planted`: plants every bug and shows which check caught it."""

from __future__ import annotations

import sys

from tests.planted.plant import attempt, line
from tests.planted.registry import BUGS


def main() -> int:
    """Exit code 1 when a bug was not caught."""
    print(f"{'bug':48}  {'caught by':40}  simulated    cpu")
    caught = 0
    for bug in BUGS:
        outcome = attempt(bug)
        caught += outcome.caught
        print(line(outcome), flush=True)
    print(f"{caught} of {len(BUGS)} planted bugs caught")
    return 0 if caught == len(BUGS) else 1


if __name__ == "__main__":
    sys.exit(main())

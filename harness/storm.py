"""`python -m harness.storm`: restart a server under clients with tokens, and print how they come back.

Shows the spread that the clients' own jitter makes, what the callouts had to do, and how long it took until all were
back: in the virtual world, where computing takes no time, and on real parts, where it does.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from harness.targets import storm_local, storm_sim


def main() -> None:
    """Both, or one of them."""
    parser = argparse.ArgumentParser(prog="python -m harness.storm", description=__doc__)
    parser.add_argument("target", nargs="?", choices=("sim", "local", "both"), default="both")
    parser.add_argument("--sim-devices", type=int, default=500)
    parser.add_argument("--local-devices", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    if told.target != "local":
        print("sim:", *storm_sim.storm(told.sim_devices, told.seed).lines(), sep="\n")
    if told.target != "sim":
        with tempfile.TemporaryDirectory(prefix="fleet-storm-") as folder:
            print("local:", *storm_local.storm(told.local_devices, Path(folder)).lines(), sep="\n")


if __name__ == "__main__":
    main()

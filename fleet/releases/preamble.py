"""Runs in a release before anything else: refuses an interpreter or machine that the release was not built for.

Compiled wheels fit one minor version of Python and one architecture. Without this the first import of one would end
in an error that names neither. Copied into the release as a file and run by its bootstrap; stands alone.
"""

import json
import platform
import sys
from pathlib import Path


def check() -> None:
    """End the process with a sentence on standard error when the release cannot run here."""
    built = json.loads((Path(__file__).parent.parent / "agent" / "release.json").read_text("utf-8"))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if built["python"] != python:
        sys.exit(f"release {built['version']} is built for Python {built['python']}; this is Python {python}")
    if built["architecture"] != platform.machine():
        sys.exit(f"release {built['version']} is built for {built['architecture']}; this is {platform.machine()}")


if __name__ == "__main__":
    check()

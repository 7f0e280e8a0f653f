"""`python -m harness.targets.idp node|go`: run a stand-in for the identity provider on loopback until SIGTERM.

Prints one line of JSON when it is ready: the issuer, the ids of organization, project and app, and where the key file
of the administrator is. Users and keys stay in the state folder: started again on the same port, it is the same one.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from fleet.contracts.errors import FleetError
from harness.targets.idp.install import ENGINES, HERE, program


def main() -> int:
    """Becomes the engine; returns only when it cannot."""
    parser = argparse.ArgumentParser(prog="python -m harness.targets.idp", description=__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--state", type=Path, help="folder that keeps users and keys; else .run/idp-ENGINE")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--token-life", type=int, default=43200, help="of access tokens, in seconds")
    told = parser.parse_args()
    state = (told.state or HERE.parents[2] / ".run" / f"idp-{told.engine}").resolve()
    try:
        command = program(told.engine)
    except FleetError as error:
        print(f"idp: {error}", file=sys.stderr)
        return 2
    state.parent.mkdir(parents=True, exist_ok=True)
    options = ("--state", str(state), "--port", str(told.port), "--token-life", str(told.token_life))
    return os.execv(command[0], (*command, *options))


if __name__ == "__main__":
    sys.exit(main())

"""Put into a misbehaving release beside the agent, and started in its place: misbehaves in one way, else is the agent.

Inside a release this package stands alone under the name `defects`; it imports nothing of the harness. Each function
is an entry point for `fleet.releases.build`. What a defect does not touch is handed to the production agent.
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def self_test_fails() -> int:
    """`--self-test` ends with code 1."""
    return 1 if "--self-test" in sys.argv[1:] else _agent()


def self_test_hangs() -> int:
    """`--self-test` never ends, not even when asked to terminate."""
    if "--self-test" in sys.argv[1:]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _for_ever()
    return _agent()


def never_heartbeats() -> int:
    """As a service it does nothing for ever. Told to terminate, it ends with code 0, as the agent does."""
    if _is_service():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
        _for_ever()
    return _agent()


def crashes_at_start() -> int:
    """As a service it ends with code 1 at once."""
    return 1 if _is_service() else _agent()


def _is_service() -> bool:
    """Whether this is a start as a service, not one of the calls that tell about the release."""
    return not {"--self-test", "--version"} & set(sys.argv[1:])


def _agent() -> int:
    from agent.__main__ import main  # the agent loads only when it runs: a defect must not depend on it

    return main()


def _for_ever() -> NoReturn:
    while True:
        signal.pause()

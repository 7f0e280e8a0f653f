"""One of many processes that start at the same time: makes sure of a secret and prints what it got."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from fleet.adapters.clock import WallClock
from fleet.contracts.ids import ObjectName
from fleet.secrets.file import FileDocuments
from fleet.secrets.store import Secrets


async def main(folder: Path) -> None:
    """Say that it is ready, wait for a line, and race."""
    clock = WallClock()
    store = Secrets(FileDocuments(folder, clock), clock)
    print("ready", flush=True)
    sys.stdin.readline()
    secret = await store.ensure(ObjectName("raced-for"), lambda: os.urandom(16))
    print(secret.version, secret.value.hex())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

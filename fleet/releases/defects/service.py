"""What a misbehaving release does as a service: stands in for `agent.loop.run_agent`, with the same arguments.

The virtual world and a real zipapp both call this, so that a defect is one thing in both. What it changes it changes at
a port; behind that the production agent runs as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Final, Protocol, assert_never

from agent import paths
from agent.loop import run_agent
from agent.ports import AgentBoot, AgentConfig, AgentPorts
from agent.store import write_atomic
from fleet.contracts.errors import Definite, NotFound, Unknown
from fleet.contracts.time import Duration, Instant
from fleet.releases.defects import wrappers
from fleet.releases.defects.catalogue import Defect, Misbehaviour

FAILED: Final = 1
LOAD: Final = 2
"""Running containers that are a load."""
_LOOK: Final = Duration.seconds(5)
"""How often the load is looked at."""
_STEPS: Final = 8
"""In which the memory of a leak grows."""


class Itself(Protocol):
    """What a program can do to the process that it is."""

    def grow(self) -> None:
        """Take a little more memory, within a bound that endangers nobody."""
        ...

    def kill(self) -> None:
        """End by SIGKILL, as the kernel does when memory runs out. Nothing of the program runs after this."""
        ...


async def serve(
    misbehaviour: Misbehaviour,
    itself: Itself,
    boot: AgentBoot,
    ports: AgentPorts,
    config: AgentConfig,
    stop: asyncio.Event,
) -> int:
    """Be the service of a release that misbehaves like this. Returns its exit code; raises as `run_agent`."""
    after = misbehaviour.delay
    match misbehaviour.defect:
        case Defect.CRASHES_AT_START | Defect.WRONG_ARCHITECTURE:
            return FAILED
        case Defect.HANGS:
            await asyncio.Event().wait()
            return FAILED
        case Defect.NEVER_HEARTBEATS:
            await stop.wait()
            return 0
        case Defect.HEARTBEATS_WRONG_RELEASE:
            ports = replace(ports, bus=wrappers.MisnamingBus(ports.bus))
        case Defect.CANNOT_AUTHENTICATE:
            ports = replace(ports, bus=wrappers.LockedOutBus(ports.bus))
        case Defect.BREAKS_WORKLOADS:
            ports = replace(ports, bus=wrappers.UnwellBus(ports.bus), containers=wrappers.NoEngine())
        case Defect.FAILS_AFTER_REBOOT:
            if await _has_rebooted(boot, ports):
                return FAILED
        case Defect.EXITS_LATER:
            return await _until(ports.clock.sleep(after), boot, ports, config, stop)
        case Defect.LEAKS_UNTIL_KILLED:
            return await _until(_leak(itself, after, ports), boot, ports, config, stop)
        case Defect.FAILS_UNDER_LOAD:
            lock = wrappers.WatchedLock(ports.lock)
            return await _until(_under_load(lock, after, ports), boot, replace(ports, lock=lock), config, stop)
        case (
            Defect.NONE
            | Defect.CORRUPT
            | Defect.TRUNCATED
            | Defect.SELF_TEST_FAILS
            | Defect.SELF_TEST_HANGS
            | Defect.SELF_TEST_LIES
        ):
            pass
        case _:
            assert_never(misbehaviour.defect)
    return await run_agent(boot, ports, config, stop)


async def _until(
    end: Coroutine[Any, Any, None],
    boot: AgentBoot,
    ports: AgentPorts,
    config: AgentConfig,
    stop: asyncio.Event,
) -> int:
    """Be the agent until `end` is over, and then fail without a word. A stop that comes before is heeded."""
    agent = asyncio.ensure_future(run_agent(boot, ports, config, stop))
    ending = asyncio.ensure_future(end)
    try:
        await asyncio.wait((agent, ending), return_when=asyncio.FIRST_COMPLETED)
        if agent.done():
            return agent.result()
        ending.result()
        return FAILED
    finally:
        for task in (agent, ending):
            task.cancel()
        await asyncio.wait((agent, ending))


async def _leak(itself: Itself, after: Duration, ports: AgentPorts) -> None:
    """Grow step by step until the time is over, and be killed."""
    for _ in range(_STEPS):
        await ports.clock.sleep(after // _STEPS)
        itself.grow()
    itself.kill()
    await asyncio.Event().wait()


async def _under_load(lock: wrappers.WatchedLock, after: Duration, ports: AgentPorts) -> None:
    """Return when this instance has managed a load for that long without a break."""
    await lock.held.wait()
    since: Instant | None = None
    while True:
        now = ports.clock.monotonic()
        since = (now if since is None else since) if await _is_loaded(ports) else None
        if since is not None and now - since >= after:
            return
        await ports.clock.sleep(_LOOK)


async def _is_loaded(ports: AgentPorts) -> bool:
    try:
        return sum(fact.running for fact in await ports.containers.present()) >= LOAD
    except (Definite, Unknown):
        return False


async def _has_rebooted(boot: AgentBoot, ports: AgentPorts) -> bool:
    """Whether the machine has booted since this release ran here for the first time, which is written down then."""
    mark = paths.STATE / f"first-boot-{boot.release.sha256.short}"
    try:
        return await ports.disk.read(mark) != ports.facts.boot.encode()
    except NotFound:
        await write_atomic(ports.disk, mark, ports.facts.boot.encode())
        return False

"""The `Programs` port on Linux: a program below the root, in a session of its own, killed whole at its deadline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from agent.linux.command import run_to_end
from fleet.capabilities.clock import Clock
from fleet.capabilities.host import Exited, NotStartable, Overran, ProgramEnd
from fleet.contracts.time import Duration


class LinuxPrograms:
    """Runs programs below `root` with `environment` (which may hold secrets and never shows)."""

    def __init__(self, root: Path, environment: Mapping[str, str], clock: Clock) -> None:
        self._root = root
        self._environment = dict(environment)
        self._clock = clock

    async def run(self, program: PurePosixPath, arguments: tuple[str, ...], deadline: Duration) -> ProgramEnd:
        """See `Programs.run`. The code of a program that a signal ended is the negative signal number."""
        at = self._root / program.relative_to("/")
        try:
            async with self._clock.timeout(deadline):
                ended = await run_to_end((str(at), *arguments), environment=self._environment, folder=self._root)
        except TimeoutError:
            return Overran()
        except OSError as error:
            return NotStartable(f"{program}: {error.strerror}")
        return Exited(ended.code, ended.output)

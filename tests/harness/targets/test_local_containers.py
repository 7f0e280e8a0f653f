"""What a stand-in container runs: its command, or the image's own program with whatever options it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from harness.targets.standin.children import Children
from harness.targets.standin.engine import Box, Engine


class Started(Children):
    """Notes what would be started."""

    def __init__(self) -> None:
        self.programs: list[tuple[str, ...]] = []

    def start(
        self,
        arguments: tuple[str, ...],
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        on_end: Callable[[int], None],
    ) -> int:
        self.programs.append(arguments)
        return 1


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ((), ("sleep", "infinity")),
        (("--celsius",), ("sleep", "infinity")),
        (("sleep", "--version"), ("sleep", "--version")),
    ],
)
def test_a_command_runs_and_options_go_to_the_image(
    tmp_path: Path, command: tuple[str, ...], program: tuple[str, ...]
) -> None:
    children = Started()
    engine = Engine(tmp_path, 1.0, {}, children, lambda *args, **fields: None)
    engine.pull("image")
    engine.run(Box("one", "image", command, {}, {}))
    assert children.programs == [program]

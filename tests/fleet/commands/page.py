"""A page of docs/how-to as something to follow: its commands, in their order, and what it says comes of each."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
HOW_TO = ROOT / "docs" / "how-to"


@dataclass(frozen=True)
class Told:
    """A command of a page, and the output that the page shows."""

    command: str
    output: str


def console_blocks(text: str) -> list[Told]:
    """The commands of a page that say what comes of them. A command goes on after a backslash."""
    found = []
    for block in re.findall(r"^ *```console\n(.*?)```", text, re.S | re.M):
        for part in re.split(r"^ *\$ ", block, flags=re.M)[1:]:
            command, _, output = part.replace("\\\n", " ").partition("\n")
            found.append(Told(" ".join(command.split()), output))
    return found


async def follow(folder: Path, command: str) -> str:
    """Do one command of a page in a folder; answers what it prints. Fails with what it complains of."""
    program, _, words = command.partition(" ")
    assert program.rpartition("/")[2] == "fleet", command
    done = await asyncio.to_thread(
        subprocess.run,
        (sys.executable, "-m", "fleet", *shlex.split(words)),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "140"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def lines(text: str) -> list[str]:
    """What counts of an output: no empty lines, no indentation of a block in a list, no blanks at the ends."""
    told = [line.rstrip() for line in text.splitlines() if line.strip()]
    margin = min((len(line) - len(line.lstrip()) for line in told), default=0)
    return [line[margin:] for line in told]


_VARIES = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), "<time>"),
    (re.compile(r"@[0-9a-f]{12}"), "@<sha256>"),
    (re.compile(r"\d+ bytes"), "<number> bytes"),
)


def alike(text: str) -> list[str]:
    """`lines`, without what is another one each time: times, digests, sizes."""
    for pattern, word in _VARIES:
        text = pattern.sub(word, text)
    return lines(text)

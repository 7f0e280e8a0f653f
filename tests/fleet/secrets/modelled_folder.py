"""A folder in memory that can be stopped at any operation and lose its power: what a test enumerates crashes with.

Content that was not synced may be gone, half there or whole after a power cut, each file for itself. Changes of names
that were not synced may be there or not, each for itself: more than file systems do, and all that POSIX promises.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fleet.secrets.steps import Seen, Steps

USER = 1000


class Stopped(BaseException):
    """The process was killed: nothing of it runs on, and nothing of the store may catch this."""


@dataclass(eq=False)
class File:
    """The content as programs see it, and what of it is on the medium for sure."""

    content: bytes
    synced: bytes | None = None


@dataclass
class ModelledFolder:
    """The state. `until` operations are let through, then everything stops.

    Args:
        names: as programs see them.
        on_medium: the names that a power cut leaves for sure.
        pending: changes of names since then, in their order; None removes.
    """

    names: dict[str, File] = field(default_factory=dict)
    on_medium: dict[str, File] = field(default_factory=dict)
    pending: list[tuple[str, File | None]] = field(default_factory=list)
    until: int | None = None
    done: list[str] = field(default_factory=list)
    is_locked: bool = False

    @contextmanager
    def opened(self, folder: Path, make: bool) -> Iterator[tuple[Seen, Steps]]:
        """What `FileDocuments` opens its folder with."""
        steps = _Steps(self)
        try:
            yield Seen(False, 0o700, USER), steps
        finally:
            steps.unlock()

    def step(self, what: str) -> None:
        """Count an operation, or stop before it."""
        if self.until is not None and len(self.done) >= self.until:
            raise Stopped(what)
        self.done.append(what)

    def change(self, name: str, file: File | None) -> None:
        """A name changes, and the medium will know some time."""
        self.pending.append((name, file))
        if file is None:
            del self.names[name]
        else:
            self.names[name] = file

    def after_power_cuts(self) -> Iterator[ModelledFolder]:
        """Every folder that a power cut at this moment may leave, each once."""
        seen: list[dict[str, bytes]] = []
        for left in self._left():
            contents = {name: file.content for name, file in left.names.items()}
            if contents not in seen:
                seen.append(contents)
                yield left

    def _left(self) -> Iterator[ModelledFolder]:
        for kept in itertools.product((False, True), repeat=len(self.pending)):
            names = dict(self.on_medium)
            for is_kept, (name, file) in zip(kept, self.pending, strict=True):
                if is_kept and file is not None:
                    names[name] = file
                elif is_kept:
                    names.pop(name, None)
            files = list(dict.fromkeys(names.values()))
            for contents in itertools.product(*(_left_of(file) for file in files)):
                left = dict(zip(files, (File(content, content) for content in contents), strict=True))
                survived = {name: left[file] for name, file in names.items()}
                yield ModelledFolder(dict(survived), dict(survived))


def _left_of(file: File) -> tuple[bytes, ...]:
    if file.synced == file.content:
        return (file.content,)
    return (b"", file.content[: len(file.content) // 2], file.content)


class _Steps:
    """The operations of one process on the folder."""

    def __init__(self, folder: ModelledFolder) -> None:
        self._folder = folder
        self._holds_lock = False

    def names(self) -> list[str]:
        self._folder.step("names")
        return [*self._folder.names]

    def look(self, name: str) -> Seen:
        self._folder.step(f"look {name}")
        self._file(name)
        return Seen(True, 0o600, USER)

    def read(self, name: str, most: int) -> bytes:
        self._folder.step(f"read {name}")
        return self._file(name).content[:most]

    def write_new(self, name: str, content: bytes) -> None:
        self._folder.step(f"create {name}")
        if name in self._folder.names:
            raise FileExistsError(name)
        file = File(b"")
        self._folder.change(name, file)
        for part in (content[:7], content[7:]):
            self._folder.step(f"write {name}")
            file.content += part

    def sync(self, name: str) -> None:
        self._folder.step(f"sync {name}")
        file = self._file(name)
        file.synced = file.content

    def link_new(self, name: str, other: str) -> None:
        self._folder.step(f"link {name} {other}")
        if other in self._folder.names:
            raise FileExistsError(other)
        self._folder.change(other, self._file(name))

    def move_over(self, name: str, other: str) -> None:
        """One change on the medium, too: a rename is atomic there."""
        self._folder.step(f"move {name} {other}")
        file = self._file(name)
        del self._folder.names[name]
        self._folder.change(other, file)

    def remove(self, name: str) -> None:
        self._folder.step(f"remove {name}")
        self._file(name)
        self._folder.change(name, None)

    def sync_folder(self) -> None:
        self._folder.step("sync folder")
        self._folder.on_medium = dict(self._folder.names)
        self._folder.pending.clear()

    def try_lock(self, name: str) -> bool:
        self._folder.step("lock")
        if self._folder.is_locked:
            return False
        self._folder.is_locked = self._holds_lock = True
        return True

    def unlock(self) -> None:
        if self._holds_lock:
            self._folder.is_locked = self._holds_lock = False

    def _file(self, name: str) -> File:
        file = self._folder.names.get(name)
        if file is None:
            raise FileNotFoundError(name)
        return file

"""The folder of secrets of a run on real parts, and where else in the run's folder none of them may stand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from agent import paths
from fleet.capabilities.clock import Clock
from fleet.contracts.errors import NotFound
from fleet.contracts.ids import ObjectName
from fleet.secrets.documents import Documents
from fleet.secrets.file import SUFFIX, FileDocuments
from harness.faults import SecretDamage
from harness.targets.secret_damage import damaged

STRANGER: Final = 65534
"""The user that a file belongs to whose owner is wrong: nobody."""
_BELONGS: Final = frozenset({"secrets", "logins", "nats.conf", "login.json"})
"""The folders and files that are there to hold secrets."""
_IMMUTABLE: Final = tuple(str(folder).lstrip("/") for folder in (paths.RELEASES, paths.UNPACKED))
"""On a device: what releases are unpacked from and into, checked by their hashes."""


class LocalSecretFiles:
    """A `SecretPlace` in a folder."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    def documents(self) -> Documents:
        """See `SecretPlace`."""
        return FileDocuments(self._folder, self._clock)

    def content(self, name: ObjectName) -> bytes | None:
        """See `SecretPlace`."""
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None

    def damage(self, name: ObjectName, how: SecretDamage) -> Callable[[], None]:
        """See `SecretPlace`."""
        path = self._path(name)
        if not path.exists():
            raise NotFound(f"there is no secret {name}")
        before, owner = path.read_bytes(), path.stat().st_uid
        match how:
            case SecretDamage.WRONG_MODE:
                path.chmod(0o644)
            case SecretDamage.WRONG_OWNER:
                os.chown(path, STRANGER, -1)
            case _:
                path.write_bytes(damaged(before, how))

        def mend() -> None:
            path.write_bytes(before)
            path.chmod(0o600)
            os.chown(path, owner, -1)

        return mend

    def on_change(self, look: Callable[[], None]) -> None:
        """See `SecretPlace`. A folder notices nothing: whoever is asked to looks now and then."""

    def _path(self, name: ObjectName) -> Path:
        return self._folder / f"{name}{SUFFIX}"


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    """What stands in the files of a run's folder in which no secret may be, each under its name."""
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if _BELONGS & {*place.parts} or path.is_symlink() or not path.is_file() or _is_release(place):
            continue
        yield str(place), path.read_bytes()


def _is_release(place: Path) -> bool:
    """A release as it is served, or on a device."""
    match place.parts:
        case ("releases", *_):
            return True
        case ("devices", _, *rest):
            return "/".join(rest).startswith(_IMMUTABLE)
        case _:
            return False

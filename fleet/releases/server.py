"""Serves a folder of releases over HTTP: `GET /releases/<sha256>`, whole or by ranges.

A release is found by its content, whatever its file is called. Contents are hashed in a thread when a file is first
seen or has changed, so that asking for what is not there costs one look at the folder.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from fleet.contracts.errors import InvalidValue, NotFound
from fleet.contracts.ids import Sha256

_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class _Fingerprint:
    """What tells a file from what it was before."""

    size: int
    changed: int
    inode: int


class Catalogue:
    """The releases of a folder by their sha256. Names that begin with a dot are left out: they may be half there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, tuple[_Fingerprint, Sha256]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def find(self, sha256: Sha256) -> Path:
        """The file with this content. Raises: NotFound."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._find, sha256)

    def _find(self, sha256: Sha256) -> Path:
        known: dict[Path, tuple[_Fingerprint, Sha256]] = {}
        for path in sorted(self._folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                with suppress(FileNotFoundError):  # it was taken away while the folder was looked at
                    known[path] = self._look(path)
        self._known = known
        found = next((path for path, (_, content) in known.items() if content == sha256), None)
        if found is None:
            raise NotFound(f"no release with sha256 {sha256}")
        return found

    def _look(self, path: Path) -> tuple[_Fingerprint, Sha256]:
        fingerprint, before = _fingerprint(path), self._known.get(path)
        return before if before is not None and before[0] == fingerprint else (fingerprint, _hash(path))


def _fingerprint(path: Path) -> _Fingerprint:
    stat = path.stat()
    return _Fingerprint(stat.st_size, stat.st_mtime_ns, stat.st_ino)


def _hash(path: Path) -> Sha256:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return Sha256(digest.hexdigest())


def app(folder: Path) -> Starlette:
    """The HTTP application.

    Args:
        folder: holds one file per release.

    Raises:
        InvalidValue: it is not a folder.
    """
    if not folder.is_dir():
        raise InvalidValue(f"{folder} is not a folder: releases are served from one")
    catalogue = Catalogue(folder)

    async def release(request: Request) -> Response:
        try:
            sha256 = Sha256(request.path_params["sha256"])
            path = await catalogue.find(sha256)
        except (InvalidValue, NotFound) as error:
            raise HTTPException(404, str(error)) from error
        return FileResponse(path, media_type="application/octet-stream", headers={"ETag": f'"{sha256}"'})

    async def healthy(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    return Starlette(routes=[Route("/releases/{sha256}", release), Route("/healthz", healthy)])

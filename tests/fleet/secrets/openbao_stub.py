"""A STUB of an OpenBao server: the KV v2 calls this project makes, as documented. It is not OpenBao.

It is written from the documentation and from published error texts, and nobody has compared it with a real server. The
contract suite says so, and runs against a real one when `FLEET_OPENBAO_ADDR` and `FLEET_OPENBAO_TOKEN` name it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TOKEN = "stub-token-0123456789"


@dataclass
class Version:
    """One version of an entry."""

    data: dict[str, object] | None
    deleted: bool = False
    destroyed: bool = False


@dataclass
class Entry:
    """An entry with all its versions, the first one under number 1."""

    versions: list[Version] = field(default_factory=list)


class OpenBaoStub:
    """The state, what a test can do to it, and the application that serves it below `/v1/secret/`."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.sealed = False
        self.tokens = {TOKEN}
        self.cas_required = True
        self.writes = 0
        self.before_write: list[Response | None] = []
        self.after_write: list[Response | None] = []
        self.app = Starlette(
            routes=[
                Route("/v1/secret/data/{path:path}", self._data, methods=["GET", "POST"]),
                Route("/v1/secret/metadata/{path:path}", self._metadata, methods=["GET"]),
            ],
            exception_handlers={404: self._no_handler},
        )

    def newest(self, path: str) -> Version:
        """The newest version of an entry, to be changed by a test."""
        return self.entries[path].versions[-1]

    async def _data(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        path = request.path_params["path"]
        return self._read(path) if request.method == "GET" else await self._write(path, await request.json())

    def _read(self, path: str) -> Response:
        entry = self.entries.get(path)
        if entry is None or not entry.versions:
            return errors(404)
        newest = entry.versions[-1]
        metadata = {
            "created_time": "2026-01-01T00:00:00Z",
            "custom_metadata": None,
            "deletion_time": "2026-01-02T00:00:00Z" if newest.deleted else "",
            "destroyed": newest.destroyed,
            "version": len(entry.versions),
        }
        gone = newest.deleted or newest.destroyed
        body = {"data": {"data": None if gone else newest.data, "metadata": metadata}}
        return JSONResponse(body, 404 if gone else 200)

    async def _write(self, path: str, body: dict[str, dict[str, object]]) -> Response:
        self.writes += 1
        if self.before_write and (answer := self.before_write.pop(0)) is not None:
            return answer
        entry = self.entries.setdefault(path, Entry())
        cas = body.get("options", {}).get("cas")
        if cas is None and self.cas_required:
            return errors(400, "check-and-set parameter required for this call")
        if cas is not None and cas != len(entry.versions):
            return errors(400, "check-and-set parameter did not match the current version")
        entry.versions.append(Version(body["data"]))
        if self.after_write and (answer := self.after_write.pop(0)) is not None:
            return answer
        return JSONResponse({"data": {"version": len(entry.versions), "destroyed": False, "deletion_time": ""}})

    async def _metadata(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        folder = request.path_params["path"].rstrip("/") + "/"
        below = {path.removeprefix(folder) for path in self.entries if path.startswith(folder)}
        keys = sorted({name.partition("/")[0] + "/" * ("/" in name) for name in below})
        if request.query_params.get("list") != "true":
            return errors(405, "unsupported operation")
        return JSONResponse({"data": {"keys": keys}}) if keys else errors(404)

    def _refusal(self, request: Request) -> Response | None:
        if self.sealed:
            return errors(503, "Vault is sealed")
        if request.headers.get("X-Vault-Token") not in self.tokens:
            return errors(403, "permission denied")
        return None

    async def _no_handler(self, request: Request, error: Exception) -> Response:
        return errors(404, f'no handler for route "{request.url.path}". route entry not found.')


def errors(status: int, *texts: str) -> JSONResponse:
    """An answer in the form of the server's errors."""
    return JSONResponse({"errors": list(texts)}, status)


@contextmanager
def served(stub: OpenBaoStub) -> Iterator[str]:
    """The stub on a port of loopback; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(stub.app, log_config=None, access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)

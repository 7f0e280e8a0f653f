"""One device as one process: boots, supervises, answers the shims, and takes everything with it when it ends.

Run as `python -m harness.targets.standin.supervisor`, with its settings as JSON in STANDIN_SETTINGS (they may hold
secrets). Events go to standard output, one JSON object a line. The end of standard input means that the harness is
gone, and SIGTERM that the power is: both kill every descendant at once. Standard library only, so that it starts fast
and is itself nothing that a release could break.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import struct
import sys
from pathlib import Path

from harness.targets.standin.children import Children
from harness.targets.standin.commands import Commands
from harness.targets.standin.engine import Engine
from harness.targets.standin.units import Plan, Unit

_CREDENTIALS = struct.Struct("3i")


class Supervisor:
    """The machine."""

    def __init__(self, settings: dict[str, object]) -> None:
        self.over = asyncio.Event()
        self.root = Path(str(settings["root"]))
        self.address = str(settings["address"])
        pace = float(str(settings["pace"]))
        environment = settings["environment"]
        assert isinstance(environment, dict)
        self._children = Children()
        plan = Plan(self.root, str(settings["python"]), pace, environment, self.report)
        self.units = {f"fleet-agent@{slot}.service": Unit(slot, plan, self._children) for slot in ("a", "b")}
        marks = {key: environment[key] for key in ("PATH", "FLEET_MACHINE")}
        self._engine = engine = Engine(self.root, pace, marks, self._children, self.report)
        self._commands = Commands(self.units, engine)

    def report(self, event: str, **fields: object) -> None:
        """Tell the harness. A harness that does not listen any more is gone."""
        try:
            sys.stdout.write(json.dumps({"event": event} | fields) + "\n")
            sys.stdout.flush()
        except OSError:
            self.over.set()

    async def run(self) -> None:
        """Boot, serve until it is over, leave nothing running."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.over.set)
        loop.add_signal_handler(signal.SIGINT, self.over.set)
        loop.add_reader(sys.stdin.fileno(), self._look_at_harness)
        server = await asyncio.start_unix_server(self._serve, sock=_listener(self.address))
        try:
            self._boot()
            await self.over.wait()
        finally:
            self._children.kill_all()
            server.close()

    def _boot(self) -> None:
        boot = Path("/proc/sys/kernel/random/uuid").read_text("ascii")
        _write(self.root / "proc/sys/kernel/random/boot_id", boot)
        shutil.rmtree(self.root / "run", ignore_errors=True)
        (self.root / "run").mkdir(parents=True)
        self.report("up", boot=boot.strip())
        self.units["fleet-agent@a.service"].start()

    def _look_at_harness(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            self.over.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if _user_of(writer) == os.getuid() and (line := await reader.readline()):
                asked = json.loads(line)
                if asked["tool"] == "podman" and not await self._engine_answers(reader):
                    return
                answer = await self._commands.answer(asked["tool"], asked["arguments"])
                writer.write(json.dumps({"code": answer.code, "out": answer.out, "err": answer.err}).encode())
                await writer.drain()
        except ConnectionError:
            return  # The tool was killed before it had its answer.
        finally:
            writer.close()

    async def _engine_answers(self, reader: asyncio.StreamReader) -> bool:
        """Wait while the engine is silent. False when the tool was ended meanwhile: what it asked for never happens."""
        if self._engine.answers.is_set():
            return True
        answers = asyncio.ensure_future(self._engine.answers.wait())
        gone = asyncio.ensure_future(reader.read())
        try:
            await asyncio.wait((answers, gone), return_when=asyncio.FIRST_COMPLETED)
            return not gone.done()
        finally:
            answers.cancel()
            gone.cancel()


def _listener(address: str) -> socket.socket:
    """An abstract address: no file that a dead device leaves behind, no limit by the length of its folder's name."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("\0" + address)
    listener.listen(64)
    return listener


def _user_of(writer: asyncio.StreamWriter) -> int:
    """Whose process is on the other end: an abstract address has no file mode that would keep others away."""
    connection: socket.socket = writer.get_extra_info("socket")
    _, user, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(user)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "ascii")


async def _main() -> None:
    await Supervisor(json.loads(os.environ.pop("STANDIN_SETTINGS"))).run()


if __name__ == "__main__":
    asyncio.run(_main())

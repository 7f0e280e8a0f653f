"""The boot guard: decides which release a unit runs, and becomes it. Never changes with a release.

Standard library only, one file, no import of the project: whatever a release does wrong, this still starts. It trusts
nothing it reads: a state file that is garbage counts as missing, and a release counts only if its hash is that of its
completion manifest.

The rules, in their order:

1. In an overlap of this boot, the slot that the old release ran in runs the old release again, so that it goes on
   watching the new one; once the new one is confirmed, it runs nothing: the successor has taken over.
2. The current link, if what it leads to is whole. A release that is not verified yet gets `TRIALS` starts.
3. After that, and after a power cut in an overlap too, the device returns to the last verified release by itself: the
   bad one is quarantined and the link swapped back. While the old instance still watches, it leaves that to it.
4. If nothing is verified, any whole release rather than none.
"""

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from typing import NoReturn, Protocol, Union

TRIALS = 3
"""Starts that a release gets before it has to be verified."""
STATE = "/var/lib/fleet-agent"
RELEASES = "/usr/bin"
PREFIX = "fleet-agent-v"
MANIFEST = ".manifest.json"
CURRENT = "/usr/local/bin/fleet-agent"


class Files(Protocol):
    """The few things done to a disk."""

    def read(self, path: str) -> bytes | None:
        """The contents; None when they cannot be read."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Replace the contents atomically and durably, making the folder."""
        ...

    def link(self, path: str) -> str | None:
        """Where a link leads; None when there is none."""
        ...

    def swap(self, link: str, target: str) -> None:
        """Let a link lead elsewhere, atomically and durably."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; empty when it is missing."""
        ...

    def sha256(self, path: str) -> str | None:
        """The hash of a file in hexadecimal digits; None when it cannot be read."""
        ...


@dataclass(frozen=True)
class Start:
    """Run this release."""

    path: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Leave:
    """Run nothing, and do not come back: exit with code 0."""

    reason: str


@dataclass(frozen=True)
class Nothing:
    """Nothing can be run: exit with code 1, and let the service manager try again."""

    reason: str


Choice = Union[Start, Leave, Nothing]  # noqa: UP007 - stays readable to the oldest Python a device may have


def choose(files: Files, slot: str, boot: str) -> Choice:
    """Decide what the unit of `slot` runs in this boot, and write down what the decision changes."""
    whole = whole_releases(files)
    attempt = _Attempt(_json(files, STATE + "/attempt.json"))
    if attempt.boot == boot and attempt.origin == slot and attempt.previous in whole:
        if attempt.confirmed:
            return Leave("the successor in the other slot is confirmed")
        return whole[attempt.previous]
    verified = _text(_json(files, STATE + "/verified.json"), "sha256")
    current = _current(files, whole)
    if current is None:
        return _fall_back(files, whole, verified, "the current link leads to no whole release")
    if current.sha256 == verified or verified not in whole:
        return current
    starts = _trials(files, current.sha256)
    if starts < TRIALS:
        files.write(STATE + "/trials.json", json.dumps({"sha256": current.sha256, "starts": starts + 1}).encode())
        return current
    reason = f"{starts} starts without being verified"
    if attempt.boot == boot and attempt.release == current.sha256:
        return Nothing(reason + ": the old instance watches and will go back")
    _condemn(files, current, reason)
    return _fall_back(files, whole, verified, reason)


def whole_releases(files: Files) -> dict[str, Start]:
    """Every release on disk whose hash is that of its manifest, by sha256."""
    found = {}
    for name in files.names(RELEASES):
        if name.startswith(PREFIX) and name.endswith(MANIFEST):
            manifest = _json(files, RELEASES + "/" + name)
            version, sha256 = _text(manifest, "version"), _text(manifest, "sha256")
            path = RELEASES + "/" + PREFIX + version
            if sha256 and path + MANIFEST == RELEASES + "/" + name and files.sha256(path) == sha256:
                found[sha256] = Start(path, version, sha256)
    return found


class _Attempt:
    """What is known of the attempt on disk; empty texts where it is garbage."""

    def __init__(self, found: dict[str, object]) -> None:
        previous, release = found.get("previous"), found.get("release")
        self.previous = _text(previous, "sha256") if isinstance(previous, dict) else ""
        self.release = _text(release, "sha256") if isinstance(release, dict) else ""
        self.origin = _text(found, "origin")
        self.boot = _text(found, "boot")
        self.confirmed = found.get("confirmed") is True


def _current(files: Files, whole: dict[str, Start]) -> Start | None:
    target = files.link(CURRENT)
    return next((start for start in whole.values() if start.path == target), None)


def _fall_back(files: Files, whole: dict[str, Start], verified: str, reason: str) -> Choice:
    start = whole.get(verified)
    if start is None:
        condemned = set(files.names(STATE + "/quarantine"))
        left = sorted((start.version, start.sha256) for start in whole.values() if start.sha256 not in condemned)
        if not left:
            return Nothing(reason + ", and no whole release is left")
        start = whole[left[-1][1]]
    files.swap(CURRENT, start.path)
    return start


def _condemn(files: Files, bad: Start, reason: str) -> None:
    mark = json.dumps({"version": bad.version, "reason": reason}).encode()
    files.write(STATE + "/quarantine/" + bad.sha256, mark)


def _trials(files: Files, sha256: str) -> int:
    trials = _json(files, STATE + "/trials.json")
    starts = trials.get("starts")
    return starts if trials.get("sha256") == sha256 and isinstance(starts, int) else 0


def _json(files: Files, path: str) -> dict[str, object]:
    data = files.read(path)
    try:
        found = json.loads(data) if data is not None else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(found: dict[str, object], name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""


class RealFiles:
    """The disk of this machine, below a root. Links are kept with the root in front, as the agent keeps them."""

    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/")

    def read(self, path: str) -> bytes | None:
        """See `Files.read`."""
        try:
            with open(self._root + path, "rb") as file:
                return file.read()
        except OSError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """See `Files.write`."""
        real = self._root + path
        os.makedirs(os.path.dirname(real), exist_ok=True)
        temporary = real + ".tmp-launcher"
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, real)
        _sync_folder(os.path.dirname(real))

    def link(self, path: str) -> str | None:
        """See `Files.link`."""
        try:
            target = os.readlink(self._root + path)
        except OSError:
            return None
        return target[len(self._root) :] if target.startswith(self._root + "/") else target

    def swap(self, link: str, target: str) -> None:
        """See `Files.swap`."""
        real = self._root + link
        temporary = real + ".swap-launcher"
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.symlink(self._root + target, temporary)
        os.replace(temporary, real)
        _sync_folder(os.path.dirname(real))

    def names(self, folder: str) -> list[str]:
        """See `Files.names`."""
        try:
            return sorted(os.listdir(self._root + folder))
        except OSError:
            return []

    def sha256(self, path: str) -> str | None:
        """See `Files.sha256`."""
        digest = hashlib.sha256()
        try:
            with open(self._root + path, "rb") as file:
                while True:
                    data = file.read(1 << 20)
                    if not data:
                        return digest.hexdigest()
                    digest.update(data)
        except OSError:
            return None


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def main() -> int:
    """`launcher.py SLOT`: become the chosen release, or exit. `FLEET_ROOT` roots all paths."""
    root = os.environ.get("FLEET_ROOT", "").rstrip("/")
    slot = sys.argv[1] if len(sys.argv) == 2 else ""
    if slot not in ("a", "b"):
        print("usage: launcher.py a|b", file=sys.stderr)
        return 2
    files = RealFiles(root)
    boot = (files.read("/proc/sys/kernel/random/boot_id") or b"").decode("ascii", "replace").strip()
    choice = choose(files, slot, boot)
    if isinstance(choice, Start):
        _become(choice, root, slot)
    print(f"boot guard: {choice.reason}", file=sys.stderr)
    return 0 if isinstance(choice, Leave) else 1


def _become(choice: Start, root: str, slot: str) -> NoReturn:
    own = {"SHIV_ROOT": root + STATE + "/unpacked", "FLEET_AGENT_SLOT": slot, "FLEET_ROOT": root or "/"}
    program = [sys.executable, root + choice.path, "--slot", slot]
    os.execve(sys.executable, program, {**os.environ, **own})


if __name__ == "__main__":
    sys.exit(main())

"""The boot guard: both units run it, and it becomes the release that it picks. Never changes with a release.

Standard library only, one file, no import of the project: whatever a release does wrong, this still starts. It trusts
nothing it reads: a state file that is garbage counts as missing, one of a newer form is read for the few fields that
never change their meaning (ADR-014), a release is hashed again before it is started, and whatever the disk holds, a
whole release on it is started.

The rules, in their order:

1. In an overlap of this boot, the slot that the attempt began in runs the attempt's previous release, which goes on
   watching the new one. Once that attempt has succeeded, this slot has nothing to do any more. After a reboot in the
   overlap it is the same: the slot that starts at boot runs the previous release, which begins the overlap again.
2. Otherwise the current link decides, unless its release is condemned, damaged, or was started too often without
   becoming verified, or stable. Then the link goes back to the release that was good last, with no network needed.
   In an overlap this may run the previous release beside itself: the old instance sees the quarantine mark and ends
   that; if there is no old instance any more, the device has an agent nevertheless.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

RELEASES = "/usr/bin"
CURRENT = "/usr/local/bin/fleet-agent"
STATE = "/var/lib/fleet-agent"
QUARANTINE = f"{STATE}/quarantine"
VERIFIED = f"{STATE}/verified.json"
ATTEMPT = f"{STATE}/attempt.json"
TRIALS = f"{STATE}/trials.json"
BOOT_ID = "/proc/sys/kernel/random/boot_id"

TRIAL_STARTS = 3
"""Starts that a release gets before it has to be verified. The service manager allows a unit five in its window."""
STABLE_STARTS = 4
"""Starts in one boot that a verified release gets before it has to have been stable, which ends the count."""
RESTLESS_STARTS = 12
"""… and starts over all boots. More: a supply that fails a few times in a row says nothing about a release."""

_PREFIX = f"{RELEASES}/fleet-agent-v"
_MANIFEST = ".manifest.json"
_VERSION = re.compile(r"[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}(?:-[0-9a-z][0-9a-z.]{0,31})?")
_ATTEMPT = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20
_STANDS_IN = "stands in: "


class Files(Protocol):
    """The few things done to a disk."""

    def read(self, path: str) -> bytes | None:
        """The contents; None when they cannot be read."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Replace the contents atomically and durably, making the folder. Raises when that cannot be done."""
        ...

    def link(self, path: str) -> str | None:
        """Where a link leads; None when there is none."""
        ...

    def swap(self, link: str, target: str) -> None:
        """Let a link lead elsewhere, atomically and durably. Raises when that cannot be done."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; empty when it is missing."""
        ...

    def sha256(self, path: str) -> str | None:
        """The hash of a file in hexadecimal digits; None when it cannot be read."""
        ...


# --- the answer --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """Become this release."""

    path: str
    version: str
    sha256: str
    reason: str


@dataclass(frozen=True)
class Leave:
    """Run nothing, and do not come back: exit with code 0."""

    reason: str


@dataclass(frozen=True)
class Nothing:
    """Nothing can be run: exit with code 1, and let the service manager try again."""

    reason: str


Choice = Start | Leave | Nothing


# --- what is known -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Named:
    """A release by its two names."""

    version: str
    sha256: str

    @property
    def path(self) -> str:
        """Its file."""
        return f"{_PREFIX}{self.version}"


@dataclass(frozen=True)
class Attempt:
    """The upgrade attempt on disk. `ended` is the word for how it ended, "" while it goes on."""

    name: str
    release: Named
    previous: Named
    origin: str
    boot: str
    ended: str


@dataclass(frozen=True)
class Trial:
    """How often a release was started without proving itself: in all, and `here`, in `boot`, the last of them."""

    sha256: str
    starts: int
    boot: str
    here: int


@dataclass(frozen=True)
class Facts:
    """Everything the decision rests on. `manifests` are promises, not hashed yet; `before` was verified earlier."""

    slot: str
    boot: str
    current: Named | None
    attempt: Attempt | None
    verified: Named | None
    before: Named | None
    trial: Trial | None
    condemned: tuple[str, ...]
    manifests: tuple[Named, ...]


@dataclass(frozen=True)
class Option:
    """A release to start, if it is whole. `move` swaps the current link to it, `condemn` quarantines another one."""

    release: Named
    reason: str
    count: bool = True
    move: bool = False
    condemn: Named | None = None


# --- the decision ------------------------------------------------------------------------------------


def decide(facts: Facts) -> Leave | tuple[Option, ...]:
    """The options, best first. Pure: nothing is read or hashed here."""
    attempt = facts.attempt
    if attempt is not None and attempt.boot != facts.boot and _is_cut_off(facts, attempt):
        return (Option(attempt.previous, "watches the new release again", count=False), *_by_link(facts))
    if attempt is None or attempt.boot != facts.boot or attempt.origin != facts.slot:
        return _by_link(facts)
    if not attempt.ended:
        return (Option(attempt.previous, "watches the new release", count=False), *_by_link(facts))
    if attempt.ended == "succeeded" and attempt.previous != attempt.release:
        return Leave("the attempt that began in this slot has succeeded in the other one")
    return _by_link(facts)


def _is_cut_off(facts: Facts, attempt: Attempt) -> bool:
    """Whether the machine restarted in an overlap, with the release that was good before to watch the new one."""
    swapped = facts.current == attempt.release and attempt.release.sha256 not in facts.condemned
    return not attempt.ended and swapped and attempt.previous == facts.verified


def _by_link(facts: Facts) -> tuple[Option, ...]:
    current = facts.current
    if current is None:
        return _others(facts, _STANDS_IN + "the current link leads to no release", _all(facts))
    keep = Option(current, "is current")
    if current.sha256 in facts.condemned:
        return (*_others(facts, _STANDS_IN + "the current release is quarantined", _all(facts)), keep)
    starts, here = _starts(facts, current)
    worn = (here >= STABLE_STARTS or starts >= RESTLESS_STARTS) if current == facts.verified else starts >= TRIAL_STARTS
    if not worn:
        return (keep, *_others(facts, _STANDS_IN + "the current release is damaged", _all(facts)))
    reason = f"{_STANDS_IN}{current.version} was started {starts} times without proving itself"
    return (*_others(facts, reason, _good(facts), condemn=current), keep)


def _starts(facts: Facts, release: Named) -> tuple[int, int]:
    """How often a release was started since it last proved itself: in all, and in this boot."""
    trial = facts.trial
    if trial is None or trial.sha256 != release.sha256:
        return 0, 0
    return trial.starts, trial.here if trial.boot == facts.boot else 0


def _good(facts: Facts) -> tuple[Named | None, ...]:
    """What was good once, the latest first."""
    return facts.verified, facts.before, facts.attempt.previous if facts.attempt else None


def _all(facts: Facts) -> tuple[Named | None, ...]:
    return (*_good(facts), facts.attempt.release if facts.attempt else None, *reversed(facts.manifests))


def _others(
    facts: Facts, reason: str, candidates: tuple[Named | None, ...], condemn: Named | None = None
) -> tuple[Option, ...]:
    options: dict[Named, Option] = {}
    for named in candidates:
        if named is not None and named != facts.current and named.sha256 not in facts.condemned:
            options.setdefault(named, Option(named, reason, move=True, condemn=condemn))
    return tuple(options.values())


# --- reading and acting ------------------------------------------------------------------------------


def choose(files: Files, slot: str, boot: str) -> Choice:
    """Decide what the unit of `slot` runs in this boot, and write down what the decision changes."""
    facts = look(files, slot, boot)
    plan = decide(facts)
    if isinstance(plan, Leave):
        return plan
    for option in plan:
        if files.sha256(option.release.path) == option.release.sha256:
            _write_down(files, facts, option)
            return Start(option.release.path, option.release.version, option.release.sha256, option.reason)
    return Nothing("no release on this disk is whole")


def look(files: Files, slot: str, boot: str) -> Facts:
    """Read everything, taking garbage for missing."""
    attempt, verified = _attempt(_json(files, ATTEMPT)), _json(files, VERIFIED)
    names = [name for name in files.names(RELEASES) if name.endswith(_MANIFEST)]
    promised = [_named(_json(files, f"{RELEASES}/{name}")) for name in names]
    manifests = tuple(named for named in promised if named is not None)
    told = (*manifests, _named(verified), *((attempt.release, attempt.previous) if attempt else ()))
    target = files.link(CURRENT)
    return Facts(
        slot=slot,
        boot=boot,
        current=next((named for named in told if named is not None and named.path == target), None),
        attempt=attempt,
        verified=_named(verified),
        before=_named(verified.get("before")),
        trial=_trial(_json(files, TRIALS)),
        condemned=tuple(name for name in files.names(QUARANTINE) if _SHA256.fullmatch(name)),
        manifests=manifests,
    )


def _write_down(files: Files, facts: Facts, option: Option) -> None:
    """Condemn before the link moves: a power cut in between must not bring the bad release up once more."""
    release, bad = option.release, option.condemn
    if bad is not None:
        reason = option.reason.removeprefix(_STANDS_IN)
        mark = {"version": bad.version, "reason": reason, **_blame(facts.attempt, bad)}
        _put(files, f"{QUARANTINE}/{bad.sha256}", mark)
        if bad == facts.verified:
            fresh = {"version": release.version, "sha256": release.sha256, "before": None}
            _put(files, VERIFIED, {**_json(files, VERIFIED), **fresh})
    if option.move:
        _try(lambda: files.swap(CURRENT, release.path), "the current link")
    if option.count:
        starts, here = _starts(facts, release)
        count = {"sha256": release.sha256, "starts": starts + 1, "boot": facts.boot, "here": here + 1}
        _put(files, TRIALS, count)


def _blame(attempt: Attempt | None, bad: Named) -> dict[str, object]:
    """The attempt that brought the release: no lifting by it counts after this."""
    return {"attempt": attempt.name} if attempt is not None and attempt.name and attempt.release == bad else {}


def _put(files: Files, path: str, value: dict[str, object]) -> None:
    _try(lambda: files.write(path, json.dumps(value).encode()), path)


def _try(change: Callable[[], None], what: str) -> None:
    try:
        change()
    except Exception as error:  # noqa: BLE001 - a full or broken disk must not keep the device from having an agent
        _say(f"{what} stays as it is: {error}")


def _say(text: str) -> None:
    try:
        print(f"boot guard: {text}", file=sys.stderr, flush=True)
    except OSError:  # The log may be a file on the disk that is full: a device has an agent all the same.
        return


def _json(files: Files, path: str) -> dict[str, object]:
    data = files.read(path)
    try:
        found = json.loads(data) if data is not None else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _named(found: object) -> Named | None:
    if not isinstance(found, dict):
        return None
    version, sha256 = found.get("version"), found.get("sha256")
    if not isinstance(version, str) or not isinstance(sha256, str):
        return None
    return Named(version, sha256) if _VERSION.fullmatch(version) and _SHA256.fullmatch(sha256) else None


def _attempt(found: dict[str, object]) -> Attempt | None:
    release, previous = _named(found.get("release")), _named(found.get("previous"))
    origin, boot, ended = found.get("origin"), found.get("boot"), found.get("ended")
    name = found.get("attempt")
    name = name if isinstance(name, str) and _ATTEMPT.fullmatch(name) else ""
    if release is None or previous is None or not isinstance(origin, str) or not isinstance(boot, str):
        return None
    if ended is None:
        return Attempt(name, release, previous, origin, boot, "")
    status = ended.get("status") if isinstance(ended, dict) else None
    return Attempt(name, release, previous, origin, boot, status) if isinstance(status, str) and status else None


def _trial(found: dict[str, object]) -> Trial | None:
    sha256, starts, boot, here = (found.get(name) for name in ("sha256", "starts", "boot", "here"))
    if not isinstance(sha256, str) or not isinstance(starts, int) or starts <= 0:
        return None
    if not isinstance(boot, str) or not isinstance(here, int):
        return Trial(sha256, starts, "", 0)
    return Trial(sha256, starts, boot, here)


# --- on a real machine -------------------------------------------------------------------------------


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
        os.makedirs(os.path.dirname(real), exist_ok=True)
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
                while data := file.read(_CHUNK):
                    digest.update(data)
        except OSError:
            return None
        return digest.hexdigest()


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
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
    boot = (files.read(BOOT_ID) or b"").decode("ascii", "replace").strip()
    choice = choose(files, slot, boot)
    if isinstance(choice, Start):
        _become(choice, root, slot)
    _say(choice.reason)
    return 0 if isinstance(choice, Leave) else 1


def _become(choice: Start, root: str, slot: str) -> NoReturn:
    _say(f"slot {slot} starts {choice.version}, which {choice.reason}")
    own = {"SHIV_ROOT": f"{root}{STATE}/unpacked", "FLEET_AGENT_SLOT": slot, "FLEET_ROOT": root or "/"}
    program = [sys.executable, root + choice.path, "--slot", slot]
    os.execve(sys.executable, program, {**os.environ, **own})


if __name__ == "__main__":
    sys.exit(main())

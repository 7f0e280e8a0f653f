"""The disk of a virtual machine: a POSIX-like tree in memory that knows what a power cut would leave of it.

Contents are durable after `sync`, names after `sync_folder`. A power cut settles every un-synced thing for
itself, by the seeded stream: kept, lost or torn. Nothing orders un-synced things among each other, which is
what POSIX promises and all that an atomic write may rely on. Two things are given, as on every journalling
file system: one name never shows a mixture, and a file that had a durable name and was only renamed is not lost.

`DiskImage` is synchronous, for the boot guard and for whoever inspects; `SimDisk` is the `Disk` port of one process. A
card can be in `Trouble`: then what programs do with it takes time or fails, while whoever inspects sees it as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Concatenate, Final, Never, ParamSpec, Protocol, TypeVar

from fleet.contracts.errors import Conflict, DiskFault, FleetError, NoSpace, NotFound, Refused
from fleet.contracts.ids import Sha256

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_CAPACITY: Final = 16 * 2**30
VOLATILE: Final = PurePosixPath("/run")
"""Held in memory on a real machine: empty after every power cut."""
_MAX_LINKS = 40
_MAX_HISTORY = 8
_ROOT = PurePosixPath("/")


class Stream(Protocol):
    """The part of a random stream that a power cut draws from."""

    def randrange(self, stop: int, /) -> int:
        """A number in [0, stop)."""
        ...


class Alive(Protocol):
    """What a fence looks at: a virtual process."""

    @property
    def alive(self) -> bool:
        """Whether its code may still run."""
        ...


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a card, for the programs that use it.

    Args:
        per_operation: nanoseconds that every operation takes. A change happens half-way through them: a program that is
            killed before that has not made it.
        per_byte: nanoseconds that reading a byte takes, hashing it included.
        unreadable: files and folders that cannot be read, with all below them.
    """

    per_operation: int = 0
    per_byte: int = 0
    unreadable: tuple[PurePosixPath, ...] = ()


class PowerLost(BaseException):
    """The power went at this very operation, which did not happen.

    Not an `Exception`: no program outlives it to handle it.
    """


class _File:
    """An inode. `synced` is what is durable of it: nothing at first, not even that it is empty."""

    __slots__ = ("data", "digest", "executable", "links", "private", "running", "synced", "synced_mode")

    def __init__(self) -> None:
        self.data = b""
        self.executable = False
        self.private = False
        self.links = 0
        self.running = 0
        self.synced: bytes | None = None
        self.synced_mode = (False, False)
        self.digest: tuple[bytes, Sha256] | None = None

    @property
    def mode(self) -> tuple[bool, bool]:
        return self.executable, self.private

    @property
    def is_synced(self) -> bool:
        return self.data is self.synced and self.mode == self.synced_mode

    def sync(self) -> None:
        self.synced = self.data
        self.synced_mode = self.mode


class _Link:
    """A symbolic link. As durable as its name."""

    __slots__ = ("target",)

    def __init__(self, target: PurePosixPath) -> None:
        self.target = target


class _Folder:
    """A folder: its names now, its durable names, and for each un-synced name what it stood for since the last sync.

    While all names are durable, `names` and `synced` are one dictionary: most folders of most devices stay so.
    """

    __slots__ = ("history", "names", "synced")

    def __init__(self) -> None:
        self.names: dict[str, _Node] = {}
        self.synced = self.names
        self.history: dict[str, list[_Node | None]] = {}

    def set(self, name: str, node: _Node | None) -> None:
        self.part()
        if node is None:
            self.names.pop(name, None)
        else:
            self.names[name] = node
        past = self.history.setdefault(name, [])
        past.append(node)
        del past[:-_MAX_HISTORY]

    def part(self) -> None:
        """From now on a name may change that stays durable."""
        if self.names is self.synced:
            self.names = dict(self.synced)

    def sync(self) -> None:
        self.synced = self.names
        self.history = {}


_Node = _File | _Link | _Folder


class _Place:
    """Where a path leads: a folder, a name in it, and what stands there."""

    __slots__ = ("folder", "name")

    def __init__(self, folder: _Folder, name: str) -> None:
        self.folder = folder
        self.name = name

    @property
    def node(self) -> _Node | None:
        return self.folder.names.get(self.name) if self.name else self.folder


class DiskImage:
    """One machine's file system. The methods are those of the `Disk` port, synchronous, with the same errors.

    Args:
        capacity: bytes it can hold. May be changed at any time; lowering it fills the disk.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self.capacity = capacity
        self.operations = 0
        """Changes asked for so far: what "cut the power at operation n" counts."""
        self.before_change: Callable[[str, PurePosixPath], bool] | None = None
        """Asked before each change with the operation's name and path; False: the power goes now, instead of it."""
        self.trouble: Trouble | None = None
        """For the programs that use the disk through `SimDisk` or `check_readable`."""
        self._root = _Folder()
        self._used = 0
        self._occupied = 0
        self._watchers: list[tuple[frozenset[PurePosixPath], Callable[[], None]]] = []
        self._running: list[_File] = []

    # --- the Disk port, synchronous ------------------------------------------------------------------

    def read(self, path: PurePosixPath, offset: int = 0, length: int | None = None) -> bytes:
        """See `Disk.read`."""
        data = self._file(path).data
        if offset == 0 and (length is None or length >= len(data)):
            return data
        return data[offset:] if length is None else data[offset : offset + length]

    def write(self, path: PurePosixPath, data: bytes, offset: int = 0) -> None:
        """See `Disk.write`. What fits is written before `NoSpace` is raised."""
        self._change("write", path)
        file = self._writable(path)
        kept = b"" if offset == 0 else file.data[:offset].ljust(offset, b"\0")
        tail = b"" if offset == 0 else file.data[offset + len(data) :]
        self._resize(file, kept + tail)
        room = max(0, self.free())
        self._resize(file, kept + data[:room] + tail if room < len(data) else kept + data + tail)
        self._notify(path)
        if room < len(data):
            raise NoSpace(len(data), room)

    def make_executable(self, path: PurePosixPath) -> None:
        """See `Disk.make_executable`."""
        self._change("make_executable", path)
        file = self._file(path)
        file.executable, file.private = True, False
        self._notify(path)

    def make_private(self, path: PurePosixPath) -> None:
        """See `Disk.make_private`."""
        self._change("make_private", path)
        file = self._file(path)
        file.executable, file.private = False, True

    def sync(self, path: PurePosixPath) -> None:
        """See `Disk.sync`."""
        self._change("sync", path)
        self._file(path).sync()

    def sync_folder(self, path: PurePosixPath) -> None:
        """See `Disk.sync_folder`."""
        self._change("sync_folder", path)
        self._folder(path).sync()

    def rename(self, source: PurePosixPath, target: PurePosixPath) -> None:
        """See `Disk.rename`."""
        self._change("rename", target)
        old, new = self._place(source, follow=False), self._place(target, follow=False)
        node, replaced = old.node, new.node
        if node is None or not old.name:
            raise NotFound(f"{source} does not exist")
        if node is replaced:
            return
        if replaced is not None:
            _check_replaceable(node, replaced, target)
        old.folder.set(old.name, None)
        new.folder.set(new.name, node)
        self._forget(replaced)
        self._notify_all() if isinstance(node, _Folder) else self._notify(source, target)

    def symlink(self, target: PurePosixPath, link: PurePosixPath) -> None:
        """See `Disk.symlink`."""
        self._change("symlink", link)
        place = self._place(link, follow=False)
        if place.node is not None:
            raise Conflict(f"{link} exists")
        place.folder.set(place.name, _Link(target))
        self._notify(link)

    def link(self, path: PurePosixPath, other: PurePosixPath) -> None:
        """A second name for a file. Raises: Conflict when something stands under it; as `read`."""
        self._change("link", other)
        place, file = self._place(other, follow=False), self._file(path)
        if place.node is not None:
            raise Conflict(f"{other} exists")
        file.links += 1
        place.folder.set(place.name, file)
        self._notify(other)

    def read_link(self, link: PurePosixPath) -> PurePosixPath:
        """See `Disk.read_link`."""
        match self._place(link, follow=False).node:
            case _Link(target=target):
                return target
            case _:
                raise NotFound(f"{link} is not a link")

    def unlink(self, path: PurePosixPath) -> None:
        """See `Disk.unlink`."""
        self._change("unlink", path)
        place = self._place(path, follow=False)
        match place.node:
            case None:
                raise NotFound(f"{path} does not exist")
            case _Folder():
                raise Refused(f"{path} is a folder")
            case node:
                place.folder.set(place.name, None)
                self._forget(node)
                self._notify(path)

    def make_folder(self, path: PurePosixPath) -> None:
        """See `Disk.make_folder`."""
        self._change("make_folder", path)
        folder = self._root
        for count, part in enumerate(path.parts[1:], start=2):
            there = folder.names.get(part)
            if isinstance(there, _Folder):
                folder = there
                continue
            match self._place(PurePosixPath(*path.parts[:count]), follow=True).node:
                case _Folder() as known:
                    folder = known
                case None:
                    made = _Folder()
                    folder.set(part, made)
                    folder = made
                case _:
                    raise Conflict(f"{path} is in the way of something that is not a folder")

    def remove_folder(self, path: PurePosixPath) -> None:
        """See `Disk.remove_folder`."""
        self._change("remove_folder", path)
        try:
            place = self._place(path, follow=False)
        except NotFound:
            return
        match place.node:
            case None:
                return
            case _Folder() as folder if place.name:
                for _, _, node in _walk(folder, live=True):
                    self._forget(node)
                place.folder.set(place.name, None)
                self._notify_all()
            case _:
                raise Refused(f"{path} is not a folder that can be removed")

    def names(self, folder: PurePosixPath) -> tuple[str, ...]:
        """See `Disk.names`."""
        try:
            return tuple(sorted(self._folder(folder).names))
        except NotFound:
            return ()

    def size(self, path: PurePosixPath) -> int:
        """See `Disk.size`."""
        return len(self._file(path).data)

    def exists(self, path: PurePosixPath) -> bool:
        """See `Disk.exists`."""
        try:
            return self._place(path, follow=False).node is not None
        except NotFound:
            return False

    def free(self) -> int:
        """See `Disk.free`. Never negative."""
        return max(0, self.capacity - self._used - self._occupied)

    # --- what only the virtual world asks --------------------------------------------------------------

    def set_mode(self, path: PurePosixPath, *, private: bool) -> None:
        """Let its owner alone read a file, or everybody, durably and behind everybody's back. Raises: as `read`."""
        file = self._file(path)
        file.executable, file.private = False, private
        file.sync()

    def is_private(self, path: PurePosixPath) -> bool:
        """Whether its owner alone can read the file. Follows links. Raises: as `read`."""
        return self._file(path).private

    def is_executable(self, path: PurePosixPath) -> bool:
        """Whether the file can be executed. Follows links. Raises: as `read`."""
        return self._file(path).executable

    def sha256(self, path: PurePosixPath) -> Sha256:
        """The file's digest, remembered for as long as its contents stay. Follows links. Raises: as `read`."""
        file = self._file(path)
        if file.digest is None or file.digest[0] is not file.data:
            file.digest = (file.data, Sha256(sha256(file.data).hexdigest()))
        return file.digest[1]

    def is_durable(self, path: PurePosixPath) -> bool:
        """Whether a power cut leaves this file, named by no link, exactly as it is. Raises: as `read`."""
        folder = self._root
        for name in path.parts[1:-1]:
            if name in folder.history:
                return False
            folder = self._folder_in(folder, name, path)
        return path.name not in folder.history and self._file(path).is_synced

    def resolve(self, path: PurePosixPath) -> PurePosixPath:
        """The path with its last part's links followed. Raises: NotFound for a link that leads nowhere."""
        for _ in range(_MAX_LINKS):
            match self._place(path, follow=False).node:
                case None:
                    raise NotFound(f"{path} does not exist")
                case _Link(target=target):
                    path = path.parent / target
                case _:
                    return path
        raise DiskFault(f"{path} leads through too many links")

    def on_names_changed(self, folders: tuple[PurePosixPath, ...], callback: Callable[[], None]) -> None:
        """Call back after a name, a link target or a file's contents directly inside one of `folders` changed.

        Also after a power cut and after any change of folders, which may have moved them. The callback must not
        raise and must not change the disk.
        """
        self._watchers.append((frozenset(folders), callback))

    def mark_running(self, path: PurePosixPath) -> Callable[[], None]:
        """Make the file's text busy, so that writing to it is refused, until the answer is called.

        Raises: as `read`.
        """
        file = self._file(path)
        file.running += 1
        self._running.append(file)

        def ended() -> None:
            if file in self._running:
                self._running.remove(file)
                file.running -= 1

        return ended

    def occupy(self, size: int) -> None:
        """Take room that has no file in this tree (a container image). Raises: NoSpace, taking none."""
        if size > self.free():
            raise NoSpace(size, self.free())
        self._occupied += size

    def vacate(self, size: int) -> None:
        """Give back what `occupy` took."""
        self._occupied -= size

    def check_readable(self, path: PurePosixPath) -> None:
        """For programs that are about to read a file, a link or a folder. Raises: DiskFault."""
        if self.trouble is None or not self.trouble.unreadable:
            return
        try:
            led = self.resolve(path)
        except FleetError:
            led = path
        for bad in self.trouble.unreadable:
            if bad in (path, led, *path.parents, *led.parents):
                raise DiskFault(f"{path}: input/output error")

    def damage(self, path: PurePosixPath, data: bytes | None) -> None:
        """Give a file other contents, or none and no name either (None), durably and behind everybody's back.

        Raises: NotFound; Refused for what is not a file.
        """
        file = self._file(path)
        place = self._place(path, follow=True)
        if data is None:
            place.folder.set(place.name, None)
            place.folder.synced.pop(place.name, None)
            place.folder.history.pop(place.name, None)
            self._forget(file)
        else:
            self._resize(file, data)
            file.sync()
        self._notify(path)

    def sync_all(self) -> None:
        """Make everything durable, as after flashing a card and unmounting it."""
        self._root.sync()
        for _, _, node in _walk(self._root, live=True):
            if isinstance(node, _File | _Folder):
                node.sync()

    def durable_copy(self) -> DiskImage:
        """Another disk that holds what is durable on this one, as if its card were read out: nothing held in memory."""
        other = DiskImage(self.capacity)
        made: dict[int, _File] = {}
        _copy_durable(self._root, other._root, made)
        if VOLATILE.name in other._root.names:
            other._root.names[VOLATILE.name] = _Folder()
        other._recount()
        return other

    def power_cut(self, rng: Stream) -> None:
        """Lose power: settle everything un-synced by draws from `rng`, and empty what is held in memory."""
        _settle(self._root, rng)
        for file in self._running:
            file.running = 0
        self._running.clear()
        self._recount()
        if isinstance(self._root.names.get(VOLATILE.name), _Folder):
            self.remove_folder(VOLATILE)
            self.make_folder(VOLATILE)
            self._root.sync()
        self._notify_all()

    # --- inside ----------------------------------------------------------------------------------------

    def _change(self, operation: str, path: PurePosixPath) -> None:
        self.operations += 1
        if self.before_change is not None and not self.before_change(operation, path):
            raise PowerLost(operation, path)

    def _notify(self, *paths: PurePosixPath) -> None:
        for folders, callback in self._watchers:
            if any(path.parent in folders for path in paths):
                callback()

    def _notify_all(self) -> None:
        for _, callback in self._watchers:
            callback()

    def _place(self, path: PurePosixPath, *, follow: bool) -> _Place:
        """Raises: NotFound when a folder on the way is missing."""
        return self._plain_place(path, follow) or self._place_by_links(path, follow=follow)

    def _plain_place(self, path: PurePosixPath, follow: bool) -> _Place | None:
        """As `_place`, for a path of nothing but folders, as nearly all are; None for any other."""
        parts = path.parts
        if len(parts) < 2 or ".." in parts:
            return None
        folder, name = self._root, parts[-1]
        for part in parts[1:-1]:
            below = folder.names.get(part)
            if type(below) is not _Folder:
                return None
            folder = below
        return None if follow and type(folder.names.get(name)) is _Link else _Place(folder, name)

    def _place_by_links(self, path: PurePosixPath, *, follow: bool) -> _Place:
        trail = [self._root]
        rest = list(reversed(path.parts[1:]))
        name = ""
        hops = 0
        while rest:
            name = rest.pop()
            if name == "..":
                trail = trail[:-1] or trail
                name = ""
                continue
            match trail[-1].names.get(name):
                case _Link(target=target) if rest or follow:
                    hops += 1
                    if hops > _MAX_LINKS:
                        raise DiskFault(f"{path} leads through too many links")
                    if target.is_absolute():
                        trail = [self._root]
                    rest.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
                case _Folder() as folder:
                    if not rest:
                        return _Place(trail[-1], name)
                    trail.append(folder)
                case _ if rest:
                    raise NotFound(f"{path}: {name} is not a folder")
                case _:
                    return _Place(trail[-1], name)
        return _Place(trail[-1], "")

    def _file(self, path: PurePosixPath) -> _File:
        match self._place(path, follow=True).node:
            case _File() as file:
                return file
            case _Folder():
                raise Refused(f"{path} is a folder")
            case _:
                raise NotFound(f"{path} does not exist")

    def _folder(self, path: PurePosixPath) -> _Folder:
        match self._place(path, follow=True).node:
            case _Folder() as folder:
                return folder
            case _:
                raise NotFound(f"{path} is not a folder")

    def _folder_in(self, folder: _Folder, name: str, path: PurePosixPath) -> _Folder:
        match folder.names.get(name):
            case _Folder() as found:
                return found
            case _:
                raise NotFound(f"{path}: {name} is not a folder")

    def _writable(self, path: PurePosixPath) -> _File:
        place = self._place(path, follow=True)
        match place.node:
            case _File(running=0) as file:
                return file
            case _File():
                raise Refused(f"{path} is a running program")
            case _Folder():
                raise Refused(f"{path} is a folder")
            case _:
                file = _File()
                file.links = 1
                place.folder.set(place.name, file)
                return file

    def _resize(self, file: _File, data: bytes) -> None:
        self._used += len(data) - len(file.data)
        file.data = data

    def _forget(self, node: _Node | None) -> None:
        if isinstance(node, _File):
            node.links -= 1
            if node.links == 0:
                self._used -= len(node.data)

    def _recount(self) -> None:
        self._used = 0
        files = [node for _, _, node in _walk(self._root, live=True) if isinstance(node, _File)]
        for file in files:
            file.links = 0
        for file in files:
            self._used += 0 if file.links else len(file.data)
            file.links += 1


def _check_replaceable(node: _Node, replaced: _Node, target: PurePosixPath) -> None:
    match node, replaced:
        case _Folder(), _Folder():
            if replaced.names:
                raise Conflict(f"{target} is a folder that is not empty")
        case (_Folder(), _) | (_, _Folder()):
            raise Refused(f"{target}: a folder and a file do not replace each other")
        case _:
            return


def _walk(folder: _Folder, *, live: bool) -> Iterator[tuple[_Folder, str, _Node]]:
    """All that is below, in the order of names; each folder once."""
    seen, waiting = {id(folder)}, [folder]
    while waiting:
        at = waiting.pop()
        names = at.names if live else at.synced
        for name in sorted(names):
            node = names[name]
            if isinstance(node, _Folder):
                if id(node) in seen:
                    continue
                seen.add(id(node))
                waiting.append(node)
            yield at, name, node


def _copy_durable(source: _Folder, target: _Folder, made: dict[int, _File]) -> None:
    """Give `target` the durable names of `source`, with durable copies. A file of two names stays one (`made`)."""
    for name, node in source.synced.items():
        match node:
            case _Folder():
                folder = _Folder()
                _copy_durable(node, folder, made)
                target.names[name] = folder
            case _Link(target=led):
                target.names[name] = _Link(led)
            case _File():
                target.names[name] = made.setdefault(id(node), _durable_file(node))


def _durable_file(file: _File) -> _File:
    copy = _File()
    copy.data = file.synced or b""
    copy.executable, copy.private = file.synced_mode
    copy.sync()
    return copy


def _settle(root: _Folder, rng: Stream) -> None:
    """Make of the tree what a power cut leaves of it. Everything that is left is durable."""
    durable = {id(node): (folder, name, node) for folder, name, node in _walk(root, live=False)}
    live = {id(node): (folder, name) for folder, name, node in _walk(root, live=True)}
    _settle_names(root, rng)
    reached = {id(node) for _, _, node in _walk(root, live=True)}
    for key, (folder, name, node) in durable.items():
        if key in live and key not in reached:
            _restore(node, (folder, name), live[key])
    for folder in [root, *(node for _, _, node in _walk(root, live=True) if isinstance(node, _Folder))]:
        folder.sync()
    for _, _, node in _walk(root, live=True):
        if isinstance(node, _File):
            _settle_contents(node, rng)


def _settle_names(root: _Folder, rng: Stream) -> None:
    seen, waiting = {id(root)}, [root]
    while waiting:
        folder = waiting.pop()
        folder.part()
        for name in sorted(folder.history):
            past = folder.history[name]
            before = folder.synced.get(name)
            chosen = (before, past[-1], past[rng.randrange(len(past))])[rng.randrange(3)]
            if chosen is None:
                folder.names.pop(name, None)
            else:
                folder.names[name] = chosen
        for name in sorted(folder.names):
            node = folder.names[name]
            if isinstance(node, _Folder):
                if id(node) in seen:
                    del folder.names[name]
                else:
                    seen.add(id(node))
                    waiting.append(node)


def _restore(node: _Node, durable: tuple[_Folder, str], live: tuple[_Folder, str]) -> None:
    """A renamed file that lost both names comes back under the durable one, or where that is taken, the new one."""
    folder, name = live if durable[1] in durable[0].names else durable
    folder.part()
    folder.names[name] = node


def _settle_contents(file: _File, rng: Stream) -> None:
    if file.synced is None or file.data is not file.synced:
        old = file.synced or b""
        match rng.randrange(4):
            case 0:
                pass
            case 1:
                file.data = old
            case 2:
                file.data = file.data[: rng.randrange(len(file.data) + 1)]
            case _:
                cut = rng.randrange(len(file.data) + 1)
                file.data = file.data[:cut] + bytes(len(file.data) - cut)
    if file.mode != file.synced_mode and rng.randrange(2):
        file.executable, file.private = file.synced_mode
    file.sync()


class SimDisk:
    """The `Disk` port of one virtual process. A dead process changes nothing.

    Takes no virtual time and never yields, unless the card is in `Trouble`.
    """

    __slots__ = ("_image", "_process")

    def __init__(self, image: DiskImage, process: Alive) -> None:
        self._image = image
        self._process = process

    async def read(self, path: PurePosixPath, offset: int = 0, length: int | None = None) -> bytes:
        """See `Disk.read`."""
        return await self._look(self._image.read, path, offset, length)

    async def write(self, path: PurePosixPath, data: bytes, offset: int = 0) -> None:
        """See `Disk.write`."""
        await self._do(self._image.write, path, data, offset)

    async def make_executable(self, path: PurePosixPath) -> None:
        """See `Disk.make_executable`."""
        await self._do(self._image.make_executable, path)

    async def make_private(self, path: PurePosixPath) -> None:
        """See `Disk.make_private`."""
        await self._do(self._image.make_private, path)

    async def sync(self, path: PurePosixPath) -> None:
        """See `Disk.sync`."""
        await self._do(self._image.sync, path)

    async def sync_folder(self, path: PurePosixPath) -> None:
        """See `Disk.sync_folder`."""
        await self._do(self._image.sync_folder, path)

    async def rename(self, source: PurePosixPath, target: PurePosixPath) -> None:
        """See `Disk.rename`."""
        await self._do(self._image.rename, source, target)

    async def symlink(self, target: PurePosixPath, link: PurePosixPath) -> None:
        """See `Disk.symlink`."""
        await self._do(self._image.symlink, target, link)

    async def read_link(self, link: PurePosixPath) -> PurePosixPath:
        """See `Disk.read_link`."""
        return await self._look(self._image.read_link, link)

    async def unlink(self, path: PurePosixPath) -> None:
        """See `Disk.unlink`."""
        await self._do(self._image.unlink, path)

    async def make_folder(self, path: PurePosixPath) -> None:
        """See `Disk.make_folder`."""
        await self._do(self._image.make_folder, path)

    async def remove_folder(self, path: PurePosixPath) -> None:
        """See `Disk.remove_folder`."""
        await self._do(self._image.remove_folder, path)

    async def names(self, folder: PurePosixPath) -> tuple[str, ...]:
        """See `Disk.names`."""
        return await self._look(self._image.names, folder)

    async def size(self, path: PurePosixPath) -> int:
        """See `Disk.size`."""
        return await self._do(self._image.size, path)

    async def exists(self, path: PurePosixPath) -> bool:
        """See `Disk.exists`."""
        return await self._do(self._image.exists, path)

    async def free(self) -> int:
        """See `Disk.free`."""
        return await self._do(self._image.free)

    async def _look(
        self, act: Callable[Concatenate[PurePosixPath, P], T], path: PurePosixPath, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Read what can be damaged."""
        trouble = self._image.trouble
        if trouble is None:
            return await self._do(act, path, *args, **kwargs)
        await _pass(trouble.per_operation)
        if self._process.alive:
            self._image.check_readable(path)
            found = act(path, *args, **kwargs)
            if isinstance(found, bytes):
                await _pass(trouble.per_byte * len(found))
            if self._process.alive:
                return found
        return await gone()

    async def _do(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        trouble = self._image.trouble
        if trouble is not None:
            await _pass(trouble.per_operation // 2)
        if self._process.alive:
            try:
                found = act(*args, **kwargs)
            except PowerLost:
                return await gone()  # This process died in the middle of the call.
            if trouble is not None:
                await _pass(trouble.per_operation - trouble.per_operation // 2)
            if self._process.alive:
                return found
        return await gone()


async def _pass(length: int) -> None:
    """Let virtual time pass. Whoever is killed meanwhile does not come back."""
    if length > 0:
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        timer = loop.call_later(length / 1e9, _settle_waiter, over)
        try:
            await over
        finally:
            timer.cancel()


def _settle_waiter(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def gone() -> Never:
    """Where the code of a dead process stands: it never comes back from here."""
    while True:
        await asyncio.get_running_loop().create_future()

"""What a disk may hold after a power cut: a model of files and folders over a recorded run (see ``shim``).

Sure is only what was fsynced: a file's bytes by fsync or fdatasync of the file, a name by fsync of its folder (and
the folder's own name by fsync of the folder above). Everything else may have reached the disk or not, in any order,
and a write in pieces of a sector or a page. That is less than any file system in use guarantees, and what POSIX
leaves open (Pillai et al., "All file systems are not created equal", OSDI 2014). A failed fsync loses the bytes that
it should have written, and a later one that succeeds does not bring them back (see ``storage.local``).
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Mode = Literal["nothing", "everything", "names", "bytes", "chance"]
"""What survives of that which was not fsynced. ``everything`` is a kill -9, not a power cut."""
MODES: tuple[Mode, ...] = ("nothing", "names", "bytes", "chance")

_HEAD = struct.Struct("<c3xIIIQq")
_TORN_BYTES = (512, 4096)
"""A disk's sector, and a page of the cache: what is written whole or not at all."""
IGNORED = ("-shm",)
"""SQLite's index of its log is memory shared through a file; it is made anew after a crash."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One recorded call. ``op``: Create, Write, Truncate, Sync, failed sync (E), folder (D), Unlink, Rename."""

    op: str
    path: str
    other: str
    inode: int
    offset: int
    data: bytes


def read_trace(path: Path) -> list[Event]:
    """All events of a recorded run, in order."""
    text, place, events = path.read_bytes(), 0, []
    while place < len(text):
        op, names, others, size, inode, offset = _HEAD.unpack_from(text, place)
        start = place + _HEAD.size
        place = start + names + others + size
        events.append(
            Event(
                op=op.decode(),
                path=text[start : start + names].decode(),
                other=text[start + names : start + names + others].decode(),
                inode=inode,
                offset=offset,
                data=text[place - size : place],
            )
        )
    return events


@dataclass
class _File:
    now: bytearray = field(default_factory=bytearray)
    sure: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """(offset, data) of writes, (length, None) of truncations, since the last fsync."""

    def change(self, offset: int, data: bytes | None) -> None:
        _apply(self.now, offset, data)
        self.pending.append((offset, data))

    def sync(self) -> None:
        for offset, data in self.pending:
            _apply(self.sure, offset, data)
        self.pending.clear()

    def left(self, mode: Mode, chance: random.Random) -> bytes:
        if mode == "everything":
            return bytes(self.now)
        content = bytearray(self.sure)
        if mode in ("bytes", "chance"):
            for offset, data in self.pending:
                for place, piece in _pieces(offset, data, chance) if mode == "chance" else [(offset, data)]:
                    _apply(content, place, piece)
        return bytes(content)


@dataclass
class _Folder:
    now: dict[str, _File | _Folder] = field(default_factory=dict)
    sure: dict[str, _File | _Folder] = field(default_factory=dict)
    pending: list[tuple[str, str, _File | _Folder | None]] = field(default_factory=list)
    """(name, old name, what): a name that came (moved here from ``old name``, if any), or went (None)."""

    def change(self, name: str, old: str, node: _File | _Folder | None) -> None:
        _rename(self.now, name, old, node)
        self.pending.append((name, old, node))

    def sync(self) -> None:
        self.sure = dict(self.now)
        self.pending.clear()

    def left(self, mode: Mode, chance: random.Random) -> dict[str, _File | _Folder]:
        if mode == "everything":
            return self.now
        entries = dict(self.sure)
        for name, old, node in self.pending:
            if mode == "names" or (mode == "chance" and chance.random() < 0.5):
                _rename(entries, name, old, node)
        return entries


class Disk:
    """Follows a recorded run below ``root``, which was empty (and itself durable) when it began."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.top = _Folder()
        self._nodes: dict[int, _File | _Folder] = {root.stat().st_ino: self.top}

    def follow(self, event: Event) -> None:
        """One more call. ValueError for what the model does not know: it must not pretend to."""
        if event.path.endswith(IGNORED):
            return
        match event.op:
            case "C" | "D":
                node = self._nodes[event.inode] = _File() if event.op == "C" else _Folder()
                folder, name = self._place(event.path)
                folder.change(name, "", node)
            case "W" | "T":
                self._file(event).change(event.offset, event.data if event.op == "W" else None)
            case "S":
                self._node(event).sync()
            case "E":
                self._node(event).pending.clear()
            case "U":
                folder, name = self._place(event.path)
                folder.change(name, "", None)
            case "R" if self._place(event.path)[0] is self._place(event.other)[0]:
                folder, name = self._place(event.path)
                folder.change(self._place(event.other)[1], name, folder.now[name])
            case _:
                raise ValueError(f"the model of a power cut does not know {event.op} {event.other} of {event.path}")

    def image(self, mode: Mode, chance: random.Random) -> dict[str, bytes | None]:
        """What is found after a cut now: relative path → bytes (None: a folder), parents first."""
        return dict(_walk(self.top, "", mode, chance))

    def _place(self, path: str) -> tuple[_Folder, str]:
        *parents, name = path[len(self.root) + 1 :].split("/")
        folder = self.top
        for parent in parents:
            node = folder.now[parent]
            assert isinstance(node, _Folder)
            folder = node
        return folder, name

    def _node(self, event: Event) -> _File | _Folder:
        if event.inode not in self._nodes:
            raise ValueError(f"{event.path} was there before the recorded run began")
        return self._nodes[event.inode]

    def _file(self, event: Event) -> _File:
        node = self._node(event)
        assert isinstance(node, _File)
        return node


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The disk after a power cut that came behind the first ``event`` calls of a run."""

    event: int
    mode: Mode
    files: dict[str, bytes | None]
    told: bytes
    """What the process had told the world by then."""

    @property
    def digest(self) -> str:
        """Equal for cuts that cannot be told apart."""
        hashed = hashlib.sha256(self.told)
        for name, data in self.files.items():
            hashed.update(repr((name, data)).encode())
        return hashed.hexdigest()

    def write(self, folder: Path) -> None:
        """Put the image into an empty folder."""
        for name, data in self.files.items():
            if data is None:
                (folder / name).mkdir()
            else:
                (folder / name).write_bytes(data)


def turning_points(events: list[Event]) -> list[int]:
    """Where the worst case changes: just before and after every sync, and after every other record of ``told``."""
    places = {0, len(events)}
    for number, event in enumerate(events):
        if event.op in "SE":
            places |= {number, number + 1}
    return sorted(places)


def cuts(
    events: list[Event], root: Path, at: Collection[int], modes: Collection[Mode], told: str, seed: int
) -> Iterator[Cut]:
    """Every different image of these cuts. ``told``: the file (relative) that is the world, not the disk."""
    disk, seen, said = Disk(root), set[str](), b""
    for number in range(len(events) + 1):
        if number in at:
            for mode in modes:
                files = disk.image(mode, random.Random(f"{seed}/{number}"))
                files.pop(told, None)
                cut = Cut(event=number, mode=mode, files=files, told=said)
                if cut.digest not in seen:
                    seen.add(cut.digest)
                    yield cut
        if number < len(events):
            event = events[number]
            disk.follow(event)
            if event.op == "W" and event.path == f"{root}/{told}":
                said += event.data


def _walk(folder: _Folder, prefix: str, mode: Mode, chance: random.Random) -> Iterator[tuple[str, bytes | None]]:
    for name, node in sorted(folder.left(mode, chance).items()):
        if isinstance(node, _Folder):
            yield prefix + name, None
            yield from _walk(node, f"{prefix}{name}/", mode, chance)
        else:
            yield prefix + name, node.left(mode, chance)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    """A write, or (without data) a truncation to ``offset``; gaps are zeros."""
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


def _rename(entries: dict[str, _File | _Folder], name: str, old: str, node: _File | _Folder | None) -> None:
    if old:
        entries.pop(old, None)
    if node is None:
        entries.pop(name, None)
    else:
        entries[name] = node


def _pieces(offset: int, data: bytes | None, chance: random.Random) -> Iterator[tuple[int, bytes | None]]:
    """What of one call reached the disk: all, nothing, or some of its sectors or pages."""
    fate = chance.choice(["kept", "lost", "torn"])
    if fate == "kept":
        yield offset, data
    elif fate == "torn" and data is not None:
        size = chance.choice(_TORN_BYTES)
        start = 0
        while start < len(data):
            stop = min(len(data), start + size - (offset + start) % size)
            if chance.random() < 0.5:
                yield offset + start, data[start:stop]
            start = stop

"""What a power cut takes from a stopped nats-server: the newest records of its message files.

The server writes each message to the end of a file and syncs that file only every two minutes: on a machine that lost
its power the tail is gone, acknowledged as it was. Here the tail is cut off the file, at the border of a record, while
the server is down; the server then recovers as it does after such a crash, and numbers on from what is left.

A record is: its length (4 bytes, the highest bit marks headers), its sequence (8), its time (8), the length of the
subject (2), the subject, the message, a checksum (8). Sequences with one of the two highest bits set mark erasures.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fleet.contracts.errors import Unavailable
from fleet.contracts.layout import Bucket

_HEAD: Final = struct.Struct("<IQ")
_LENGTH: Final = 0x7FFF_FFFF
_ERASED: Final = 0b11 << 62
_SMALLEST: Final = 30


def lose_tail(store: Path, bucket: Bucket, writes: int) -> int:
    """Cut the newest `writes` messages off a bucket's files. The answer is how many there were to cut.

    Args:
        store: the server's `store_dir`; no server may run on it.

    Raises:
        Unavailable: the files are not as this knows them.
    """
    folder = next(iter(sorted(store.glob(f"jetstream/*/streams/KV_{bucket.value}/msgs"))), None)
    if folder is None:
        raise Unavailable(f"the store has no bucket {bucket}")
    lost = 0
    for path in sorted(folder.glob("*.blk"), key=lambda path: int(path.stem), reverse=True):
        lost += _cut(path, writes - lost)
        if lost == writes:
            break
    for path in folder.glob("index.db"):
        path.unlink()  # It tells of what is gone. Without it the server reads the messages again.
    return lost


def _cut(path: Path, writes: int) -> int:
    data = path.read_bytes()
    starts = [start for start, sequence in _records(data, path.name) if not sequence & _ERASED]
    lost = starts[-writes:] if writes else []
    if lost:
        os.truncate(path, lost[0])
    return len(lost)


def _records(data: bytes, name: str) -> Iterator[tuple[int, int]]:
    """Where each record begins, and its sequence."""
    at = 0
    while at < len(data):
        if len(data) - at < _SMALLEST:
            raise Unavailable(f"{name} ends within a record")
        length, sequence = _HEAD.unpack_from(data, at)
        length &= _LENGTH
        if length < _SMALLEST or at + length > len(data):
            raise Unavailable(f"{name} holds no record at byte {at}")
        yield at, sequence
        at += length

"""How a target writes bad entries: everything there is in every bucket, and bad values over one device's keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from fleet.capabilities.bus import Entry, Stored
from fleet.contracts.errors import Conflict, NotFound, Refused
from fleet.contracts.ids import DeviceId, Revision
from fleet.contracts.layout import Bucket
from harness import bad_entries
from harness.bad_entries import Becomes


class RawWriter(Protocol):
    """What a target offers for it: writes past all checks."""

    async def write(self, bucket: Bucket, key: bytes, value: bytes, headers: bytes, becomes: Becomes) -> Revision:
        """Write; raises Refused when the server does not take it. `becomes` is for a server that knows no headers."""
        ...

    async def entries(self, bucket: Bucket) -> tuple[Entry, ...]:
        """The newest entry of every key."""
        ...

    async def put_back(self, bucket: Bucket, key: str, value: bytes, last: Revision) -> None:
        """Write if `last` is still the newest revision of the key. Raises: Conflict."""
        ...


async def write_all(raw: RawWriter, device: DeviceId) -> Callable[[], Awaitable[None]]:
    """Write them all. What it answers puts the keys of `device` back that nobody has written since.

    Raises:
        NotFound: nothing stands under any key of the device. AssertionError: the server makes something else of an
        entry than `harness.bad_entries` says.
    """
    good = [
        entry
        for bucket in Bucket
        for entry in await raw.entries(bucket)
        if isinstance(entry, Stored) and bad_entries.belongs_to(device, bucket, entry.key)
    ]
    if not good:
        raise NotFound(f"nothing stands under any key of {device}")
    for bucket in Bucket:
        for bad in bad_entries.of_bucket(bucket):
            try:
                await raw.write(bucket, bad.key, bad.value, bad.headers, bad.becomes)
            except Refused:
                if bad.becomes is not Becomes.REFUSED:
                    raise
            else:
                assert bad.becomes is not Becomes.REFUSED, f"the server took {bad.name} in {bucket}"
    spoiled: dict[tuple[Bucket, str], Revision] = {}
    for bucket in Bucket:
        keys = tuple(entry.key for entry in good if entry.bucket is bucket)
        for key, value in bad_entries.over(keys):
            spoiled[bucket, key] = await raw.write(bucket, key.encode(), value, b"", Becomes.VALUE)

    async def heal() -> None:
        for entry in good:
            try:
                await raw.put_back(entry.bucket, entry.key, entry.value, spoiled[entry.bucket, entry.key])
            except Conflict:
                continue  # Its owner was quicker.

    return heal

"""The operator's hands: carry events to the brain and its instructions to the world.

Everything that happens goes through one `Brain` in the order in which this process sees it: pushes of the bus and
requests of devices directly in their callbacks, everything else from the few tasks below. Data never ends the
process; a defect does, with exit code 1, because going on with a broken brain would be worse.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from fleet.capabilities.bus import Entry, Request, Stored, Subscription
from fleet.capabilities.objects import Applied, InvalidObject, Removed
from fleet.contracts import layout
from fleet.contracts.errors import Conflict, FleetError, InvalidValue, NotFound, Refused, Unknown
from fleet.contracts.ids import DeviceId
from fleet.contracts.layout import Bucket
from fleet.contracts.objects import Object
from fleet.contracts.records import LockRequest
from fleet.contracts.time import Duration, Instant
from fleet.operator.brain import KINDS, Brain
from fleet.operator.events import (
    BucketRead,
    Delete,
    EntrySeen,
    Event,
    Instruction,
    KeyMissing,
    KeyWriteEnded,
    KindListed,
    ObjectSeen,
    ReadAgain,
    Report,
    SendStop,
    SessionBegan,
    StatusWriteEnded,
    StopEnded,
    Ticked,
    Update,
    WriteStatus,
)
from fleet.operator.fleet_state import READ_BUCKETS
from fleet.operator.ports import OperatorConfig, OperatorPorts, OperatorTimings

logger = logging.getLogger("fleet.operator")

WORKERS = 16
"""How many writes and requests are under way at once, so that a large fleet does not come as one burst."""


async def run_operator(ports: OperatorPorts, config: OperatorConfig, stop: asyncio.Event) -> int:
    """Run until `stop` is set; answers the exit code 0. Whoever made the ports closes them.

    Raises:
        ExceptionGroup: a defect. It ends the process: with code 1, and its story told by whoever started it.
    """
    await _Hands(ports, config.timings).run(stop)
    return 0


class _Hands:
    def __init__(self, ports: OperatorPorts, timings: OperatorTimings) -> None:
        self._clock, self._chance = ports.clock, ports.chance
        self._bus, self._objects = ports.bus, ports.objects
        self._timings = timings
        self._brain = Brain(timings)
        self._work: asyncio.Queue[Update | Delete | WriteStatus | SendStop] = asyncio.Queue()
        self._to_read: dict[Bucket, None] = {}
        self._reading_wanted = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._group = asyncio.TaskGroup()
        self._defect: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, stop: asyncio.Event) -> None:
        """Start everything, wait for `stop`, end everything. Raises: ExceptionGroup, with the defect inside."""
        self._tell(Ticked(self._now(), self._clock.wall(), self._bus.is_connected()))
        async with self._group:
            self._spawn(self._watch_for_defects())
            subscriptions = self._subscribe()
            try:
                self._spawn(self._read_buckets())
                self._spawn(self._tick())
                for kind in KINDS:
                    self._spawn(self._follow(kind))
                for _ in range(WORKERS):
                    self._spawn(self._carry_out())
                await stop.wait()
            finally:
                for subscription in subscriptions:
                    subscription.close()
            for task in list(self._tasks):
                task.cancel()

    def _subscribe(self) -> list[Subscription]:
        listening = [self._bus.listen(bucket, "", self._pushed) for bucket in READ_BUCKETS]
        return [
            *listening,
            self._bus.serve(layout.LOCK_SUBJECTS, self._asked),
            self._bus.on_session(self._session),
        ]

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = self._group.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def _now(self) -> Instant:
        return self._clock.monotonic()

    # --- callbacks of the bus: they must not raise

    def _pushed(self, entry: Entry) -> None:
        try:
            instructions = self._brain.entry(EntrySeen(entry, True, self._clock.monotonic()))
            if instructions:
                self._dispatch(instructions)
        except Exception as defect:  # noqa: BLE001 - handed to the task group, which ends the process
            self._fail(defect)

    def _asked(self, request: Request) -> bytes | None:
        try:
            return self._answer(request)
        except Exception as defect:  # noqa: BLE001 - handed to the task group, which ends the process
            self._fail(defect)
            return None

    def _session(self) -> None:
        try:
            self._tell(SessionBegan(self._now()))
            self._want(*READ_BUCKETS)
        except Exception as defect:  # noqa: BLE001 - handed to the task group, which ends the process
            self._fail(defect)

    def _fail(self, defect: Exception) -> None:
        if not self._defect.done():
            self._defect.set_exception(defect)

    async def _watch_for_defects(self) -> None:
        await self._defect

    def _answer(self, request: Request) -> bytes | None:
        """Answer a lock request; silence for what is none, or comes from a subject of another device."""
        try:
            asked = layout.decode(LockRequest, request.payload)
        except InvalidValue as error:
            logger.warning("a request on %a is unreadable: %s", request.subject, error)
            return None
        if request.subject != layout.lock(asked.device).name:
            logger.warning("a request on %a names another device", request.subject)
            return None
        reply, instructions = self._brain.lock(asked, self._now())
        self._dispatch(instructions)
        return layout.encode(reply)

    # --- to the brain and back

    def _tell(self, event: Event) -> None:
        self._dispatch(self._brain.handle(event))

    def _dispatch(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Report(text=text):
                    logger.warning("%s", text)
                case ReadAgain(bucket=bucket):
                    self._spawn(self._read_later(bucket))
                case _:
                    self._work.put_nowait(instruction)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(self._timings.tick)
            self._tell(Ticked(self._now(), self._clock.wall(), self._bus.is_connected()))

    async def _pause(self) -> None:
        retry = self._timings.retry
        await self._clock.sleep(self._chance.between(retry, retry * 2))

    # --- reading

    def _want(self, *buckets: Bucket) -> None:
        self._to_read.update(dict.fromkeys(buckets))
        self._reading_wanted.set()

    async def _read_later(self, bucket: Bucket) -> None:
        await self._pause()
        self._want(bucket)

    async def _read_buckets(self) -> None:
        while True:
            try:
                async with self._clock.timeout(self._timings.resync):
                    await self._reading_wanted.wait()
            except TimeoutError:
                self._want(*READ_BUCKETS)
            self._reading_wanted.clear()
            for bucket in [bucket for bucket in READ_BUCKETS if bucket in self._to_read]:
                await self._read(bucket)

    async def _read(self, bucket: Bucket) -> None:
        """Read one bucket; after a failure again later."""
        self._to_read.pop(bucket, None)
        seen = self._brain.state.high[bucket]
        try:
            async with self._clock.timeout(self._timings.read):
                entries = await self._bus.entries(bucket)
        except (FleetError, TimeoutError) as error:
            logger.info("bucket %s could not be read: %s", bucket.value, error)
            self._spawn(self._read_later(bucket))
            return
        self._tell(BucketRead(bucket, entries, seen, self._now()))

    async def _follow(self, kind: type[Object]) -> None:
        """List and watch a kind, for ever; list again when the watch ends, and every `resync`."""
        while True:
            try:
                async with self._clock.timeout(self._timings.read):
                    listing = await self._objects.list(kind)
                self._tell(KindListed(kind, listing, self._now()))
                await self._watch(kind, listing.resource_version)
            except (FleetError, TimeoutError) as error:
                logger.info("%s objects have to be listed again: %s", kind.kind_name, error)
                await self._pause()

    async def _watch(self, kind: type[Object], since: str) -> None:
        try:
            async with self._clock.timeout(self._timings.resync):
                async for change in self._objects.watch(kind, since):
                    self._tell(ObjectSeen(change, self._now()))
        except TimeoutError:
            return
        await self._pause()

    # --- writing

    async def _carry_out(self) -> None:
        while True:
            instruction = await self._work.get()
            match instruction:
                case Update() | Delete():
                    await self._write(instruction)
                case WriteStatus():
                    await self._write_status(instruction)
                case SendStop():
                    await self._send_stop(instruction)

    async def _write(self, write: Update | Delete) -> None:
        ended = KeyWriteEnded(write.key, self._now())
        try:
            async with self._clock.timeout(self._timings.write):
                await self._write_once(write)
        except Refused as error:
            logger.error("writing %a was refused: %s", write.key, error)
            self._spawn(self._end_later(ended, self._timings.resync))
        except (Conflict, Unknown, TimeoutError) as error:
            logger.info("writing %a: %r; looking what stands there", write.key, error)
            await self._look(write.key)
            self._spawn(self._end_later(ended))
        except FleetError as error:
            logger.info("writing %a failed: %s", write.key, error)
            self._spawn(self._end_later(ended))
        else:
            self._tell(KeyWriteEnded(write.key, self._now()))

    async def _write_once(self, write: Update | Delete) -> None:
        match write:
            case Update(key=key, record=record, last=last):
                value = layout.encode(record)
                revision = await self._bus.update(Bucket.DESIRED, key, value, last)
                self._tell(EntrySeen(Stored(Bucket.DESIRED, key, revision, value), False, self._now()))
            case Delete(key=key, last=last):
                await self._bus.delete(Bucket.DESIRED, key, last)
                await self._look(key)

    async def _look(self, key: str) -> None:
        """Read a key of the desired bucket directly; when that fails, what was known before stands."""
        try:
            async with self._clock.timeout(self._timings.request):
                entry = await self._bus.get(Bucket.DESIRED, key)
        except (FleetError, TimeoutError) as error:
            logger.info("%a could not be read: %s", key, error)
            return
        if entry is None:
            self._tell(KeyMissing(Bucket.DESIRED, key, self._now()))
        else:
            self._tell(EntrySeen(entry, False, self._now()))

    async def _write_status(self, write: WriteStatus) -> None:
        item = write.item
        ended = StatusWriteEnded(item.kind_name, item.name, self._now())
        try:
            async with self._clock.timeout(self._timings.write):
                written = await self._objects.replace_status(item)
        except (FleetError, TimeoutError) as error:
            logger.info("the status of %s %s was not written: %r", item.kind_name, item.name, error)
            await self._look_at_object(item)
            self._spawn(self._end_later(ended))
        else:
            self._tell(ObjectSeen(Applied(written), self._now()))
            self._tell(ended)

    async def _look_at_object(self, item: Object) -> None:
        try:
            async with self._clock.timeout(self._timings.request):
                found = await self._objects.get(type(item), item.name)
        except NotFound:
            self._tell(ObjectSeen(Removed(item.kind_name, item.name), self._now()))
        except InvalidValue as error:
            self._tell(ObjectSeen(InvalidObject(item.kind_name, item.name, str(error)), self._now()))
        except (FleetError, TimeoutError) as error:
            logger.info("%s %s could not be read: %s", item.kind_name, item.name, error)
        else:
            self._tell(ObjectSeen(Applied(found), self._now()))

    async def _send_stop(self, stop: SendStop) -> None:
        """Whatever the answer: only the heartbeats of the successor tell whether the instance is gone."""
        device: DeviceId = stop.request.device
        logger.info("asking %s to stop for %s", stop.request.instance, stop.request.successor)
        try:
            await self._bus.request(layout.stop(device).name, layout.encode(stop.request), self._timings.request)
        except FleetError as error:
            logger.info("the stop of %s was not answered: %s", stop.request.instance, error)
        self._tell(StopEnded(device, self._now()))

    async def _end_later(self, ended: KeyWriteEnded | StatusWriteEnded, pause: Duration | None = None) -> None:
        if pause is None:
            await self._pause()
        else:
            await self._clock.sleep(pause)
        match ended:
            case KeyWriteEnded(key=key):
                self._tell(KeyWriteEnded(key, self._now()))
            case StatusWriteEnded(kind=kind, name=name):
                self._tell(StatusWriteEnded(kind, name, self._now()))

"""The operator's hands: carry events to the brain and its instructions to the world.

Everything that happens goes through one `Brain` in the order in which this process sees it: pushes of the bus and
requests of devices directly in their callbacks, everything else from the few tasks below. Data never ends the
process; a defect does, with exit code 1, because going on with a broken brain would be worse.

Of several replicas the one that holds the lease acts (`fleet.operator.lease`). The others read and listen: their
brains are not ready, so that they want nothing, and devices hear nothing from them. Taking the lease begins with a
reading of everything. A leader that cannot renew in time sends nothing until it can; one that learns that another
replica took the lease ends with exit code 75, because what it believes may be outdated, and is started again.
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
from fleet.operator.election import Election
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
from fleet.operator.ports import OperatorConfig, OperatorPorts

logger = logging.getLogger("fleet.operator")

WORKERS = 16
"""How many writes and requests are under way at once, so that a large fleet does not come as one burst."""


LOST_LEASE = 75
"""The exit code of a replica that led and leads no more: it is to be started again."""
_LOOK_AGAIN = Duration.millis(10)
_GRACE = Duration.seconds(1)
"""Before another replica may act: what has been answered by then is seen before it is decided whether to leave."""


async def run_operator(ports: OperatorPorts, config: OperatorConfig, stop: asyncio.Event) -> int:
    """Run until `stop` is set, or the lease is lost; answers the exit code. Whoever made the ports closes them.

    Raises:
        ExceptionGroup: a defect. It ends the process: with code 1, and its story told by whoever started it.
    """
    return await _Hands(ports, config).run(stop)


class _Hands:
    def __init__(self, ports: OperatorPorts, config: OperatorConfig) -> None:
        self._clock, self._chance = ports.clock, ports.chance
        self._bus, self._objects = ports.bus, ports.objects
        self._timings = config.timings
        self._brain = Brain(config.timings)
        self._brain.stand_by()
        self._election = Election(
            ports.clock, ports.objects, config.timings, config.replica, ports.chance.token(), self._stands
        )
        self._reading_begun = False
        self._led = False
        self._may_act = asyncio.Event()
        self._open: dict[str, None] = {}
        self._unsure: dict[str, None] = {}
        self._over = asyncio.Event()
        self._code = 0
        self._followers: list[asyncio.Task[None]] = []
        self._work: asyncio.Queue[Update | Delete | WriteStatus | SendStop] = asyncio.Queue()
        self._to_read: dict[Bucket, None] = {}
        self._reading_wanted = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._group = asyncio.TaskGroup()
        self._defect: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, stop: asyncio.Event) -> int:
        """Start everything, wait for the end, end everything. Raises: ExceptionGroup, with the defect inside."""
        self._tell(Ticked(self._now(), self._clock.wall(), self._bus.is_connected()))
        async with self._group:
            self._spawn(self._watch_for_defects())
            subscriptions = self._subscribe()
            try:
                self._spawn(self._end_with(stop))
                self._spawn(self._take_part())
                self._spawn(self._read_buckets())
                self._spawn(self._tick())
                for _ in range(WORKERS):
                    self._spawn(self._carry_out())
                await self._over.wait()
                self._election.resign()
            finally:
                for subscription in subscriptions:
                    subscription.close()
            is_drained = await self._drain()
            for task in list(self._tasks):
                task.cancel()
        if is_drained:
            await self._election.release()
        return self._code

    async def _end_with(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._over.set()

    async def _drain(self) -> bool:
        """Wait until nothing that was sent is under way. False: that took too long, or is not worth while."""
        if self._code != 0:
            return False
        try:
            async with self._clock.timeout(self._timings.request):
                while self._unsettled:
                    await self._clock.sleep(_LOOK_AGAIN)
        except TimeoutError:
            return False
        return True

    def _subscribe(self) -> list[Subscription]:
        listening = [self._bus.listen(bucket, "", self._pushed) for bucket in READ_BUCKETS]
        return [
            *listening,
            self._bus.serve(layout.LOCK_SUBJECTS, self._asked),
            self._bus.on_session(self._session),
        ]

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self._group.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    def _now(self) -> Instant:
        return self._clock.monotonic()

    # --- the lease

    async def _take_part(self) -> None:
        await self._election.run()
        self._code = LOST_LEASE
        self._over.set()

    def _stands(self) -> None:
        """A step of the election is over."""
        if self._election.leads and not self._led:
            self._led = True
            self._spawn(self._guard())
            logger.info("this replica leads")
            self._brain.take_office()
            self._read_everything()
        elif not self._election.leads and not self._reading_begun:
            self._read_everything()
        if self._election.acts:
            self._may_act.set()

    def _read_everything(self) -> None:
        """From now on, and once more from the beginning when the lease has been taken."""
        self._reading_begun = True
        for task in self._followers:
            task.cancel()
        self._followers = [self._spawn(self._follow(kind)) for kind in KINDS]
        self._want(*READ_BUCKETS)

    async def _turn(self) -> None:
        """Return when something may be sent."""
        while not self._election.acts:
            self._may_act.clear()
            await self._may_act.wait()

    async def _guard(self) -> None:
        """Leave before another replica may act, if a write is under way that could be made after that.

        The end of this process ends its connection, and what waits in a buffer for the network to come back with it.
        """
        while True:
            left = Duration(self._election.exposed_in - _GRACE)
            await self._clock.sleep(max(left, _GRACE))
            if left > 0 or not self._unsettled or self._election.exposed_in > 0:
                continue
            logger.warning("the lease may be another's, and nobody knows of %s: leaving", self._unsettled)
            self._code = LOST_LEASE
            self._over.set()
            return

    @property
    def _unsettled(self) -> list[str]:
        """The keys of writes that may yet be made: those under way, and those of which nobody knows."""
        return [*self._open, *self._unsure]

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
            if self._reading_begun:
                self._want(*READ_BUCKETS)
        except Exception as defect:  # noqa: BLE001 - handed to the task group, which ends the process
            self._fail(defect)

    def _fail(self, defect: Exception) -> None:
        if not self._defect.done():
            self._defect.set_exception(defect)

    async def _watch_for_defects(self) -> None:
        await self._defect

    def _answer(self, request: Request) -> bytes | None:
        """Answer a lock request; silence for what is none or names another device, and unless it acts."""
        if not self._election.acts:
            return None
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
        return None if reply is None else layout.encode(reply)

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
                if self._reading_begun:
                    self._want(*READ_BUCKETS)
            self._reading_wanted.clear()
            for bucket in [bucket for bucket in READ_BUCKETS if bucket in self._to_read]:
                await self._read(bucket)

    async def _read(self, bucket: Bucket) -> None:
        """Read one bucket; after a failure again later."""
        self._to_read.pop(bucket, None)
        seen, led, unsure = self._brain.state.high[bucket], self._led, list(self._unsure)
        try:
            async with self._clock.timeout(self._timings.read):
                entries = await self._bus.entries(bucket)
        except (FleetError, TimeoutError) as error:
            logger.info("bucket %s could not be read: %s", bucket.value, error)
            self._spawn(self._read_later(bucket))
            return
        if led is not self._led:
            return  # it may lack what the leader before wrote, and is on the list again
        if bucket is Bucket.DESIRED:
            for key in unsure:
                self._unsure.pop(key, None)
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
            await self._turn()
            match instruction:
                case Update() | Delete():
                    await self._write(instruction)
                case WriteStatus():
                    await self._write_status(instruction)
                case SendStop():
                    await self._send_stop(instruction)

    async def _write(self, write: Update | Delete) -> None:
        ended = KeyWriteEnded(write.key, self._now())
        self._open[write.key] = None
        try:
            async with self._clock.timeout(self._timings.write):
                await self._write_once(write)
        except Refused as error:
            logger.error("writing %a was refused: %s", write.key, error)
            self._spawn(self._end_later(ended, self._timings.resync))
        except (Conflict, Unknown, TimeoutError) as error:
            logger.info("writing %a: %r; looking what stands there", write.key, error)
            if not isinstance(error, Conflict):
                self._unsure[write.key] = None
            await self._look(write.key)
            self._spawn(self._end_later(ended))
        except FleetError as error:
            logger.info("writing %a failed: %s", write.key, error)
            self._spawn(self._end_later(ended))
        else:
            self._tell(KeyWriteEnded(write.key, self._now()))
        finally:
            del self._open[write.key]

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
        self._unsure.pop(key, None)
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

# SPDX-License-Identifier: LGPL-2.1-or-later
import asyncio
import errno
import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import pytest_asyncio

from tests.lib.collectors import Fills
from tests.lib.resources import open_fds, settled, tmpfs
from tests.lib.waiting import eventually
from vmcoredd_daemon.collectors.descriptor import DescriptorCollector
from vmcoredd_daemon.config.limits import Limits
from vmcoredd_daemon.dumps.buffer import Buffer
from vmcoredd_daemon.dumps.collector import Collected
from vmcoredd_daemon.dumps.device_dump import Change, DeviceDump
from vmcoredd_daemon.dumps.dump_list import DumpList
from vmcoredd_daemon.dumps.spool import Spool
from vmcoredd_daemon.dumps.spool_directory import boot_id
from vmcoredd_daemon.errors import (
    Busy,
    CollectorFailed,
    Disabled,
    InvalidArgs,
    NameInUse,
    NoSpace,
    QuotaExceeded,
    TimedOut,
    TooLarge,
    UnknownDump,
    VmcoreddError,
    WriteFailed,
)
from vmcoredd_daemon.manifest import State
from vmcoredd_daemon.note import ByteOrder

PAGE = 4096


class Raises(Fills):
    """A collector that fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        raise self._error


class Hangs(Fills):
    """A collector that never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.started = asyncio.Event()

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        self.started.set()
        await asyncio.Event().wait()
        raise AssertionError


class Damages(Fills):
    """A collector that does to its buffer what it should not."""

    def __init__(self, damage: Callable[[Buffer], object]) -> None:
        super().__init__()
        self._damage = damage

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        self._damage(buffer)
        return Collected(4)


class Keeps(Fills):
    """A collector that fails, and keeps the descriptor that it was given."""

    def __init__(self, kept: list[int]) -> None:
        super().__init__()
        self._kept = kept

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        self._kept.append(os.open(f"/proc/self/fd/{buffer.fd}", os.O_RDWR))
        raise CollectorFailed("no device")


class Rig:
    """A dump list over a spool, and all that it announced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changes: list[tuple[str, str]] = []
        self.spool: Spool | None = None

    def open(self, limits: Limits | None = None, *, enabled: bool = True, keep_free: int = 0) -> DumpList:
        self.spool = Spool.open(self.path, PAGE, ByteOrder.LITTLE, keep_free)
        self.dumps = DumpList(self.spool, limits or Limits(), disabled="" if enabled else "switched off")
        self.dumps.listeners.append(lambda change, dump: self.changes.append((change.value, dump.name)))
        return self.dumps

    async def add(
        self, name: str, collector: Fills | None = None, size: int = 100, **options: float
    ) -> DeviceDump:
        return await self.dumps.add_device_dump(name, size, collector or Fills(), **({"timeout": 5} | options))

    def files(self) -> list[str]:
        return sorted(os.listdir(self.path / boot_id()))

    def states(self) -> dict[str, State]:
        return {dump.name: dump.state for dump in self.dumps}

    def close(self) -> None:
        for dump in self.dumps.complete:
            if dump.note is not None:
                os.close(dump.note.fd)
        if self.spool is not None:
            self.spool.close()


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    before = open_fds()
    rig = Rig(tmp_path / "spool")
    rig.open()
    yield rig
    rig.close()
    # A buffer that no caller waits for any more is closed when it is there.
    assert await settled(open_fds, before) == before


async def reopen(rig: Rig, limits: Limits | None = None, *, enabled: bool = True) -> DumpList:
    rig.close()
    return rig.open(limits, enabled=enabled)


async def test_device_dump_is_added(rig: Rig) -> None:
    collector = Fills(b"data" * 10)
    before = time.time_ns() // 1000
    dump = await rig.add("nic0", collector, 5000)
    assert (dump.number, dump.name, dump.limit, dump.note_size) == (1, "nic0", 5000, PAGE)
    assert (dump.state, dump.size, dump.collector, dump.error) == (State.COMPLETE, 40, "fills", None)
    assert dump.sha256 == hashlib.sha256(b"data" * 10).hexdigest()
    assert before <= dump.started_usec <= dump.finished_usec <= time.time_ns() // 1000
    assert collector.closed == 1
    assert rig.dumps.complete == (dump,) == tuple(rig.dumps)
    assert list(rig.dumps) == [dump]
    assert rig.files() == ["000001.note"]
    assert rig.changes == [("reserved", "nic0"), ("added", "nic0")]
    assert dump.note is not None
    assert os.pread(dump.note.fd, 41, 64) == b"data" * 10 + b"\0"


async def test_limits_count_what_is_reserved_and_then_what_is_kept(rig: Rig) -> None:
    dumps = await reopen(rig, Limits(max_dump_size=4 * PAGE, max_total_size=6 * PAGE))
    hanging = Hangs()
    await rig.add("hangs", hanging, 4 * PAGE - 64, wait=False)
    await hanging.started.wait()
    with pytest.raises(QuotaExceeded, match="nic0: 28672 bytes in all exceed MaxTotalSize=24576"):
        await rig.add("nic0", size=2 * PAGE)
    await dumps.drain(0)
    await rig.add("small", Fills(b"data"), 4 * PAGE - 64)
    kept = await rig.add("kept", Fills(b"data"), 4 * PAGE - 64, keep_size=True)
    assert kept.note_size == 4 * PAGE
    with pytest.raises(QuotaExceeded, match="nic0: 28672 bytes in all"):
        await rig.add("nic0", size=PAGE)
    await dumps.remove(kept.number)
    await rig.add("nic0", size=PAGE)


async def test_device_dump_comes_back(rig: Rig) -> None:
    dumps = [await rig.add(name, Fills(name.encode())) for name in ("b", "a", "c")]
    await rig.dumps.remove(2)
    await reopen(rig)
    assert rig.spool is not None
    for spooled in rig.spool.recover(lambda name, error: pytest.fail(f"{name}: {error}")):
        rig.dumps.restore(spooled)
    assert [dump.record() for dump in rig.dumps.complete] == [dumps[0].record(), dumps[2].record()]
    assert (await rig.add("a")).number == 4
    with pytest.raises(NameInUse):
        await rig.add("c")
    assert [dump.name for dump in rig.dumps.complete] == ["b", "c", "a"]


async def test_nothing_is_a_device_dump_too(rig: Rig) -> None:
    dump = await rig.add("nic0", Fills(b""))
    assert (dump.state, dump.size, dump.sha256) == (State.COMPLETE, 0, hashlib.sha256().hexdigest())


async def test_collector_is_run_outside_of_the_lock(rig: Rig) -> None:
    hanging = Hangs()
    await rig.add("hangs", hanging, wait=False)
    await hanging.started.wait()
    await rig.add("fast")
    assert rig.states() == {"hangs": State.COLLECTING, "fast": State.COMPLETE}
    await rig.dumps.drain(0)


@pytest.mark.parametrize(
    ("name", "size", "error"),
    [
        ("", 100, InvalidArgs),
        ("x" * 44, 100, InvalidArgs),
        ("x\n", 100, InvalidArgs),
        ("nic1", 0, InvalidArgs),
        ("nic1", -1, InvalidArgs),
        ("nic1", 0xFFFFFFFF, TooLarge),
        ("nic1", 1 << 40, TooLarge),
        ("nic1", (256 << 20) - 63, TooLarge),
        ("nic0", 100, NameInUse),
        ("vmcoredd_manifest", 100, NameInUse),
    ],
)
async def test_what_is_refused(rig: Rig, name: str, size: int, error: type[VmcoreddError]) -> None:
    await rig.add("nic0")
    rig.changes.clear()
    collector = Hangs()
    for wait in (True, False):
        with pytest.raises(error):
            await rig.add(name, collector, size, wait=wait)
    assert collector.closed == 2
    assert not collector.started.is_set()
    assert rig.changes == []
    assert rig.states() == {"nic0": State.COMPLETE}


async def test_order_of_checks(rig: Rig) -> None:
    async def refusal(name: str, size: int) -> type[VmcoreddError]:
        with pytest.raises(VmcoreddError) as raised:
            await rig.add(name, size=size)
        return raised.type

    limits = Limits(max_dumps=1, max_dump_size=PAGE, max_total_size=PAGE)
    await reopen(rig, limits)
    await rig.add("nic0")
    # Whatever is wrong as well, what the kernel checks comes first, then the name, then the limits.
    assert await refusal("", 0) is InvalidArgs
    assert await refusal("nic0", 0) is InvalidArgs
    assert await refusal("nic0", 5000) is NameInUse
    assert await refusal("nic1", 5000) is TooLarge
    assert await refusal("nic1", 100) is QuotaExceeded
    rig.dumps.seal("the service is stopping")
    assert await refusal("", 0) is Busy
    await reopen(rig, limits, enabled=False)
    rig.dumps.seal("the service is stopping")
    assert await refusal("", 0) is Disabled


async def test_number_of_device_dumps_is_limited(rig: Rig) -> None:
    await reopen(rig, Limits(max_dumps=2))
    await rig.add("a")
    await rig.add("b", Hangs(), wait=False)
    with pytest.raises(QuotaExceeded, match="device dump c: MaxDumps=2 is reached"):
        await rig.add("c")
    await rig.dumps.drain(0.01)
    await rig.add("c")


async def test_bytes_are_limited(rig: Rig) -> None:
    await reopen(rig, Limits(max_dump_size=2 * PAGE, max_total_size=3 * PAGE))
    with pytest.raises(TooLarge, match="device dump a: 12288 bytes exceed MaxDumpSize=8192"):
        await rig.add("a", size=2 * PAGE)
    await rig.add("a", size=2 * PAGE - 64, keep_size=True)
    with pytest.raises(QuotaExceeded, match="device dump b: 16384 bytes in all exceed MaxTotalSize=12288"):
        await rig.add("b", size=PAGE)
    await rig.add("b", size=PAGE - 64)
    await rig.dumps.remove(1)
    await rig.add("c", size=2 * PAGE - 64)


async def test_bytes_are_reserved_before_they_are_collected(rig: Rig) -> None:
    await reopen(rig, Limits(max_total_size=2 * PAGE))
    results = await asyncio.gather(
        *(rig.add(f"nic{i}", Fills(delay=0.01)) for i in range(5)), return_exceptions=True
    )
    assert [type(result) for result in results] == [DeviceDump, DeviceDump, *[QuotaExceeded] * 3]


@pytest.mark.parametrize(
    ("collector", "error", "code"),
    [
        (lambda: Raises(CollectorFailed("no device", errno.ENODEV)), CollectorFailed, errno.ENODEV),
        (lambda: Raises(RuntimeError("secret")), CollectorFailed, errno.EIO),
        (lambda: Raises(OSError(errno.ENOSPC, "secret")), CollectorFailed, errno.EIO),
        (lambda: Raises(TimeoutError()), TimedOut, errno.ETIMEDOUT),
        (lambda: Fills(size=101), CollectorFailed, errno.EOVERFLOW),
        (lambda: Fills(size=-1), CollectorFailed, errno.EOVERFLOW),
        (lambda: Damages(lambda buffer: os.ftruncate(buffer.fd, 0)), CollectorFailed, errno.EOVERFLOW),
        (lambda: Damages(lambda buffer: os.pwrite(buffer.fd, b"x", 4096)), CollectorFailed, errno.EOVERFLOW),
    ],
)
async def test_collector_fails(
    rig: Rig, collector: Callable[[], Fills], error: type[VmcoreddError], code: int
) -> None:
    before, failing = open_fds(), collector()
    with pytest.raises(error) as raised:
        await rig.add("nic0", failing)
    assert raised.value.errno == code
    assert "secret" not in str(raised.value)
    assert failing.closed == 1
    assert open_fds() == before
    assert rig.files() == []
    assert rig.dumps.complete == ()
    (failed,) = rig.dumps
    assert (failed.state, failed.error, failed.note) == (State.FAILED, raised.value, None)
    assert rig.changes == [("reserved", "nic0"), ("failed", "nic0")]
    (failure,) = (await rig.dumps.snapshot()).failures
    assert (failure.name, failure.error, failure.message) == ("nic0", error.dbus_name, str(raised.value))
    # The name is free again.
    assert (await rig.add("nic0")).number == 2
    # That it failed before is no longer of interest.
    assert [dump.state for dump in rig.dumps] == [State.COMPLETE]
    assert rig.changes[2:] == [("reserved", "nic0"), ("added", "nic0"), ("removed", "nic0")]


async def test_unexpected_error_is_logged(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(CollectorFailed, match="device dump nic0: internal error"):
        await rig.add("nic0", Raises(RuntimeError("what nobody thought of")))
    assert "what nobody thought of" in caplog.text


async def test_data_that_a_collector_left_behind_its_true_size(rig: Rig) -> None:
    dump = await rig.add("nic0", Fills(b"x" * 100, size=10))
    assert dump.note is not None
    assert os.pread(dump.note.fd, 100, 64) == (b"x" * 10).ljust(100, b"\0")


async def test_source_that_has_more(rig: Rig) -> None:
    source = os.memfd_create("source")
    os.write(source, b"x" * 101)
    os.lseek(source, 0, os.SEEK_SET)
    dump = await rig.dumps.add_device_dump("nic0", 100, DescriptorCollector(source, "memfd"), timeout=5)
    assert (dump.state, dump.size) == (State.TRUNCATED, 100)
    assert rig.dumps.complete == (dump,)


async def test_no_space(rig: Rig, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mount", 64 << 10) as mount:
        rig.close()
        rig.path = mount / "spool"
        rig.open()
        with pytest.raises(NoSpace, match="nic0: cannot be kept in the spool: No space left on device"):
            await rig.add("nic0", size=100_000)
        await rig.add("nic0", size=10_000)
        assert rig.states() == {"nic0": State.COMPLETE}
        await reopen(rig)


async def test_deadline(rig: Rig) -> None:
    before, collector = open_fds(), Hangs()
    with pytest.raises(TimedOut, match=r"device dump nic0: the collector did not finish within 0\.05 s"):
        await asyncio.wait_for(rig.add("nic0", collector, timeout=0.05), 2)
    assert collector.closed == 1
    assert open_fds() == before
    await rig.add("nic0")


async def test_deadline_begins_when_it_is_collected(rig: Rig) -> None:
    await reopen(rig, Limits(max_collecting=1))
    await asyncio.gather(*(rig.add(f"nic{i}", Fills(delay=0.1), timeout=0.3) for i in range(5)))
    assert len(rig.dumps.complete) == 5


async def test_without_waiting(rig: Rig) -> None:
    dump = await rig.add("nic0", Fills(delay=0.02), wait=False)
    assert (dump.state, dump.size, dump.note) == (State.COLLECTING, 0, None)
    assert rig.dumps.complete == ()
    with pytest.raises(NameInUse):
        await rig.add("nic0")
    with pytest.raises(Busy, match="device dump nic0 is still being collected"):
        await rig.dumps.remove(1)
    await rig.dumps.drain(1)
    assert [dump.state for dump in rig.dumps] == [State.COMPLETE]


async def test_failure_that_nobody_waits_for(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.add("nic0", Raises(CollectorFailed("no device")), wait=False)
    await rig.dumps.drain(1)
    assert rig.states() == {"nic0": State.FAILED}
    assert caplog.text == ""


async def test_caller_that_leaves(rig: Rig) -> None:
    task = asyncio.create_task(rig.add("nic0", Fills(delay=0.05)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rig.states() == {"nic0": State.COLLECTING}
    await rig.dumps.drain(1)
    assert rig.states() == {"nic0": State.COMPLETE}


async def test_drain_gives_up_on_what_hangs(rig: Rig) -> None:
    before, hanging = open_fds(), Hangs()
    await rig.add("hangs", hanging, wait=False)
    await rig.add("slow", Fills(delay=0.05), wait=False)
    rig.dumps.seal("the service is stopping")
    await asyncio.wait_for(rig.dumps.drain(0.8), 5)
    assert rig.states() == {"hangs": State.FAILED, "slow": State.COMPLETE}
    (failure,) = (await rig.dumps.snapshot()).failures
    assert failure.message == "device dump hangs: the collector did not finish before the shutdown"
    assert failure.error == TimedOut.dbus_name
    assert hanging.closed == 1
    assert open_fds() == before + 1
    await asyncio.wait_for(rig.dumps.drain(10), 1)


class Outruns(Fills):
    """A collector that has done its part when no thread has time for the spool."""

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        loop, busy = asyncio.get_running_loop(), threading.Event()
        loop.set_default_executor(ThreadPoolExecutor(1))
        loop.run_in_executor(None, busy.wait)
        loop.call_later(0.3, busy.set)
        return await super().collect(dump_name, buffer)


async def test_drain_keeps_what_is_collected(rig: Rig) -> None:
    await rig.add("nic0", Outruns(delay=0.05), wait=False)
    await asyncio.wait_for(rig.dumps.drain(0.15), 5)
    assert rig.states() == {"nic0": State.COMPLETE}


async def test_deadline_is_for_the_collector_alone(rig: Rig) -> None:
    dump = await rig.add("nic0", Outruns(delay=0.05), timeout=0.15)
    assert dump.state is State.COMPLETE


async def test_drain_ends_what_waits_for_its_turn(rig: Rig) -> None:
    await reopen(rig, Limits(max_collecting=1))
    for name in ("a", "b", "c"):
        await rig.add(name, Hangs(), wait=False)
    waiter = asyncio.create_task(rig.add("d", Hangs()))
    await asyncio.sleep(0.01)
    await rig.dumps.drain(0.01)
    assert set(rig.states().values()) == {State.FAILED}
    with pytest.raises(TimedOut):
        await waiter
    assert sorted(rig.changes[4:]) == [("failed", name) for name in "abcd"]


async def test_drain_with_nothing_to_do(rig: Rig) -> None:
    await rig.dumps.drain(10)


async def test_seal(rig: Rig) -> None:
    await rig.add("nic0")
    assert rig.dumps.accepting
    rig.dumps.seal("the service is stopping")
    assert not rig.dumps.accepting
    for attempt in (rig.add("nic1"), rig.dumps.remove(1), rig.dumps.remove(99)):
        with pytest.raises(Busy, match=r"^the service is stopping$"):
            await attempt
    assert rig.states() == {"nic0": State.COMPLETE}


async def test_what_the_service_has_begun_is_taken_despite_a_seal(rig: Rig) -> None:
    rig.dumps.seal("the service is stopping")
    await rig.dumps.add_device_dump("nic0", 100, Fills(), timeout=5, for_service=True)
    assert rig.states() == {"nic0": State.COMPLETE}
    await reopen(rig, enabled=False)
    with pytest.raises(Disabled):
        await rig.dumps.add_device_dump("nic1", 100, Fills(), timeout=5, for_service=True)


async def test_settled_when_everything_has_ended(rig: Rig) -> None:
    assert await rig.dumps.settle(0)
    await rig.add("nic0", Hangs(), wait=False)
    assert not await rig.dumps.settle(0.01)
    await rig.dumps.drain(0)
    assert await rig.dumps.settle(0)


async def test_seal_for_a_while(rig: Rig) -> None:
    with rig.dumps.sealed("a vmcore is being written"), pytest.raises(Busy, match="a vmcore is being written"):
        await rig.add("nic0")
    await rig.add("nic0")
    with rig.dumps.sealed("a vmcore is being written"):
        rig.dumps.seal("the service is stopping")
    with pytest.raises(Busy, match="the service is stopping"):
        await rig.add("nic1")
    with rig.dumps.sealed("a vmcore is being written"), pytest.raises(Busy, match="the service is stopping"):
        await rig.add("nic1")
    assert not rig.dumps.accepting


async def test_what_was_begun_is_finished_under_a_seal(rig: Rig) -> None:
    task = asyncio.create_task(rig.add("nic0", Fills(delay=0.02)))
    await asyncio.sleep(0)
    with rig.dumps.sealed("a vmcore is being written"):
        assert (await task).state is State.COMPLETE


async def test_remove(rig: Rig) -> None:
    before = open_fds()
    await rig.add("nic0")
    with pytest.raises(CollectorFailed):
        await rig.add("nic1", Raises(CollectorFailed("no device")))
    generation = rig.dumps.generation
    await rig.dumps.remove(1)
    assert rig.dumps.generation > generation
    await rig.dumps.remove(2)
    assert list(rig.dumps) == []
    assert rig.files() == []
    assert open_fds() == before
    assert rig.changes[-2:] == [("removed", "nic0"), ("removed", "nic1")]
    for number in (1, 2, 3, 0, -1):
        with pytest.raises(UnknownDump, match=f"there is no device dump {number}"):
            await rig.dumps.remove(number)
    assert (await rig.add("nic0")).number == 3


async def test_removed_device_dump_keeps_no_room(rig: Rig) -> None:
    """A reader that has it open is at its end; under a second name, which another program gave to it, it stays."""
    place = rig.path / boot_id()
    for name in ("nic0", "nic1"):
        await rig.add(name, Fills(b"data" * 10_000), size=40_000)
    os.link(place / "000002.note", rig.path / "saved")
    with (place / "000001.note").open("rb") as first, (place / "000002.note").open("rb") as second:
        await rig.dumps.remove(1)
        await rig.dumps.remove(2)
        assert first.read() == b""
        assert second.read()[64:][:40_000] == b"data" * 10_000


class Seals(Fills):
    """A collector that keeps its descriptor, and tries to keep its memory, too."""

    def __init__(self, kept: list[int], failure: CollectorFailed | None) -> None:
        super().__init__(b"data")
        self._kept = kept
        self._failure = failure

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        self._kept.append(os.open(f"/proc/self/fd/{buffer.fd}", os.O_RDWR))
        with pytest.raises(PermissionError):
            fcntl.fcntl(self._kept[0], fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE)
        if self._failure is not None:
            raise self._failure
        return await super().collect(dump_name, buffer)


@pytest.mark.parametrize("failure", [None, CollectorFailed("no device")], ids=["removed", "failed"])
async def test_memory_is_free_while_others_have_it_open(failure: CollectorFailed | None) -> None:
    dumps, kept = DumpList(Spool.in_memory(PAGE, ByteOrder.LITTLE), Limits()), list[int]()
    adding = dumps.add_device_dump("nic0", 1 << 20, Seals(kept, failure), timeout=5)
    if failure is not None:
        with pytest.raises(CollectorFailed):
            await adding
    else:
        dump = await adding
        await dumps.remove(dump.number)
    await eventually(lambda: os.fstat(kept[0]).st_blocks == 0)
    os.close(kept[0])
    dumps.close()


async def test_failed_device_dump_keeps_no_room(rig: Rig, tmp_path: Path) -> None:
    kept: list[int] = []
    with tmpfs(tmp_path / "mount", 1 << 20) as mount:
        rig.close()
        rig.path = mount / "spool"
        rig.open()
        for number in range(4):
            with pytest.raises(CollectorFailed):
                await rig.add(f"nic{number}", Keeps(kept), size=600_000)
        for fd in kept:
            os.close(fd)
        await reopen(rig)


async def test_remove_twice_at_once(rig: Rig) -> None:
    await rig.add("nic0")
    results = await asyncio.gather(rig.dumps.remove(1), rig.dumps.remove(1), return_exceptions=True)
    assert {type(result) for result in results} == {type(None), UnknownDump}


async def test_remove_that_fails_leaves_it(rig: Rig) -> None:
    dump = await rig.add("nic0")
    note = rig.path / boot_id() / "000001.note"
    note.unlink()
    note.mkdir()
    with pytest.raises(WriteFailed):
        await rig.dumps.remove(1)
    assert rig.dumps.complete == (dump,)


async def test_snapshot_waits_for_a_removal(rig: Rig) -> None:
    await rig.add("nic0")
    second = await rig.add("nic1")
    removal = asyncio.create_task(rig.dumps.remove(1))
    await eventually(rig.dumps._lock.locked, interval=0)
    with rig.dumps.sealed("a vmcore is being written"):
        snapshot = await rig.dumps.snapshot()
    assert snapshot.notes == (second.note,)
    assert snapshot.records == (second.record(),)
    assert snapshot.generation == rig.dumps.generation
    await removal


async def test_generation_follows_what_a_vmcore_would_hold(rig: Rig) -> None:
    assert rig.dumps.generation == 0
    await rig.add("nic0")
    assert rig.dumps.generation == 1
    with pytest.raises(CollectorFailed):
        await rig.add("nic1", Raises(CollectorFailed("no device")))
    assert rig.dumps.generation == 1


async def test_failures_are_bounded(rig: Rig) -> None:
    await reopen(rig, Limits(max_failures=3))
    await rig.add("good")
    for i in range(5):
        with pytest.raises(CollectorFailed):
            await rig.add(f"bad{i}", Raises(CollectorFailed("no device")))
    snapshot = await rig.dumps.snapshot()
    assert [failure.name for failure in snapshot.failures] == ["bad2", "bad3", "bad4"]
    assert snapshot.failures_forgotten == 2
    assert [dump.name for dump in rig.dumps] == ["good", "bad2", "bad3", "bad4"]
    assert [name for change, name in rig.changes if change == "removed"] == ["bad0", "bad1"]


async def test_listeners_see_each_step_in_the_list(rig: Rig) -> None:
    seen: list[tuple[Change, State, bool]] = []

    def listen(change: Change, dump: DeviceDump) -> None:
        seen.append((change, dump.state, dump in list(rig.dumps)))

    rig.dumps.listeners.append(listen)
    await rig.add("nic0")
    with pytest.raises(CollectorFailed):
        await rig.add("nic1", Raises(CollectorFailed("no device")))
    await rig.dumps.remove(1)
    assert seen == [
        (Change.RESERVED, State.COLLECTING, True),
        (Change.ADDED, State.COMPLETE, True),
        (Change.RESERVED, State.COLLECTING, True),
        (Change.FAILED, State.FAILED, True),
        (Change.REMOVED, State.COMPLETE, False),
    ]


async def test_clear_spool(rig: Rig) -> None:
    await rig.add("nic0")
    await rig.add("nic1")
    # Only what the vmcore has: the other one became durable after that.
    await rig.dumps.clear_spool([1])
    assert rig.files() == ["000002.note"]
    assert len(rig.dumps.complete) == 2
    await rig.dumps.remove(1)


async def test_two_hundred_collectors_at_once(rig: Rig) -> None:
    await reopen(rig, Limits(max_dumps=200, max_collecting=64))
    running, most = 0, 0

    class Slow(Fills):
        async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                await asyncio.sleep(0.1)
                if int(dump_name.removeprefix("nic")) % 10 == 0:
                    raise CollectorFailed("no device")
                os.pwrite(buffer.fd, dump_name.encode(), buffer.offset)
                return Collected(len(dump_name))
            finally:
                running -= 1

    before = open_fds()
    start = time.monotonic()
    results = await asyncio.gather(*(rig.add(f"nic{i}", Slow()) for i in range(200)), return_exceptions=True)
    assert time.monotonic() - start < 8
    assert most == 64
    assert [type(result) for result in results].count(CollectorFailed) == 20
    complete = rig.dumps.complete
    assert sorted(dump.name for dump in complete) == sorted(f"nic{i}" for i in range(200) if i % 10)
    for dump in complete:
        assert dump.note is not None
        assert os.pread(dump.note.fd, dump.size, 64) == dump.name.encode()
        assert dump.sha256 == hashlib.sha256(dump.name.encode()).hexdigest()
    assert len(rig.files()) == 180
    assert open_fds() == before + 180
    assert rig.changes.count(("reserved", "nic0")) == 1
    assert len(rig.changes) == 400


async def test_memory_in_place_of_a_disk() -> None:
    before = open_fds()
    dumps = DumpList(Spool.in_memory(PAGE, ByteOrder.LITTLE), Limits())
    dump = await dumps.add_device_dump("nic0", 100, Fills(), timeout=5)
    assert dump.note is not None
    assert os.pread(dump.note.fd, 5, 64) == b"data\0"
    await dumps.clear_spool([1])
    await dumps.remove(1)
    assert open_fds() == before

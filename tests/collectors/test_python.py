# SPDX-License-Identifier: LGPL-2.1-or-later
import asyncio
import errno
import resource
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import BinaryIO

import pytest
import pytest_asyncio

from tests.lib import vendor_collectors
from tests.lib.collectors import written
from tests.lib.resources import few_threads
from tests.lib.service import Service
from tests.lib.waiting import eventually, is_busy
from vmcoredd_daemon.collectors.python import GROUP, MAX_DUMPS, PythonCollector, plan, registered
from vmcoredd_daemon.dumps.buffer import Buffer
from vmcoredd_daemon.dumps.collector import Collected
from vmcoredd_daemon.errors import Busy, CollectorFailed, TimedOut, TooLarge, VmcoreddError
from vmcoredd_daemon.threads.loop import AbandonedThreads, started_executor

SIZE = 5000
ENTRY_POINTS = f"[{GROUP}]\nnic = tests.lib.vendor_collectors:Good\n"
METADATA = "Metadata-Version: 2.1\nName: vendor\nVersion: 1\n"


class Writes:
    """A collector that does what a function does."""

    def __init__(self, function: Callable[[BinaryIO], object]) -> None:
        self.function = function

    def device_dumps(self) -> Iterator[tuple[str, int]]:
        yield "nic0", SIZE

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        self.function(data)


@pytest_asyncio.fixture
async def executor() -> None:
    """Let the executor's threads run from the beginning, as the service does."""
    asyncio.get_running_loop().set_default_executor(started_executor())


async def collect(buffer: Buffer, function: Callable[[BinaryIO], object], timeout: float = 20) -> Collected:
    return await PythonCollector("test", Writes(function), timeout).collect("nic0", buffer)


def install(directory: Path, kind: str, entry_points: str = ENTRY_POINTS) -> None:
    """Install a package of which there is only the metadata."""
    if kind == "archive":
        with zipfile.ZipFile(directory / "vendor.zip", "w") as archive:
            archive.writestr("vendor-1.dist-info/entry_points.txt", entry_points)
            archive.writestr("vendor-1.dist-info/METADATA", METADATA)
        return
    metadata, name = {
        "wheel": ("vendor-1.dist-info", "METADATA"),
        "egg-info": ("vendor-1.egg-info", "PKG-INFO"),
        "egg": ("vendor-1.egg/EGG-INFO", "PKG-INFO"),
    }[kind]
    (directory / metadata).mkdir(parents=True)
    (directory / metadata / "entry_points.txt").write_text(entry_points)
    (directory / metadata / name).write_text(METADATA)


@pytest.mark.parametrize(
    ("kind", "entry"),
    [("wheel", ""), ("egg-info", ""), ("egg", "vendor-1.egg"), ("archive", "vendor.zip")],
)
def test_packages_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, entry: str) -> None:
    assert registered() == {}
    install(tmp_path, kind)
    monkeypatch.syspath_prepend(str(tmp_path / entry))
    assert {name: load() for name, load in registered().items()} == {"nic": vendor_collectors.Good}


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a-1.dist-info" / "entry_points.txt").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "missing"))
    assert registered() == {}
    install(tmp_path, "wheel")
    assert list(registered()) == ["nic"]


@pytest.mark.parametrize("some", [False, True])
def test_importlib_metadata_is_for_those_who_need_it(
    source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, some: bool
) -> None:
    (tmp_path / "packages").mkdir()
    install(tmp_path / "packages", "wheel", ENTRY_POINTS if some else "[console_scripts]\nvendor = vendor:main\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    with Service(None, source_vmcore, tmp_path) as service:
        assert service.start().stop() == 0
    imported = {line.rpartition("|")[2].strip() for line in service.log().splitlines() if "|" in line}
    assert "vmcoredd_daemon.collectors.python" in imported
    assert ("importlib.metadata" in imported) is some


def test_plan_asks_for_names_and_sizes() -> None:
    collector, dumps = plan("good", EntryPoint("good", "tests.lib.vendor_collectors:Good", GROUP).load)
    assert dumps == [("python0", 1 << 20), ("python1", 1 << 20)]
    description = "good: tests.lib.vendor_collectors.Good"
    assert PythonCollector("good", collector, 1).description == description


@pytest.mark.parametrize(
    ("dumps", "problem"),
    [
        ([("nic", 0)], r"\('nic', 0\) is not a dump name and a size"),
        ([("nic", -1)], r"\('nic', -1\) is not a dump name and a size"),
        ([("nic", 1.5)], r"\('nic', 1.5\) is not a dump name and a size"),
        ([("nic", 1, 1)], r"\('nic', 1, 1\) is not a dump name and a size"),
        ([(b"nic", 1)], r"\(b'nic', 1\) is not a dump name and a size"),
        (["a\nb"], r"'a\\nb' is not a dump name and a size"),
        ([("nic", 1)] * (MAX_DUMPS + 1), "more than 64 device dumps"),
        (None, "TypeError: .* is not iterable"),
    ],
)
def test_plan_that_is_none(monkeypatch: pytest.MonkeyPatch, dumps: object, problem: str) -> None:
    class Planner(Writes):
        def __init__(self) -> None:
            super().__init__(lambda data: None)

        def device_dumps(self) -> Iterator[tuple[str, int]]:
            return dumps  # type: ignore[return-value]

    monkeypatch.setattr(sys.modules[__name__], "planner", Planner, raising=False)
    with pytest.raises(CollectorFailed, match=f"^collector bad: {problem}"):
        plan("bad", EntryPoint("bad", f"{__name__}:planner", GROUP).load)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("no.such.module:Name", "ModuleNotFoundError: "),
        ("os:no_such_name", "AttributeError: "),
        ("os:sep", "TypeErr"),
    ],
)
def test_entry_point_that_leads_nowhere(value: str, problem: str) -> None:
    with pytest.raises(CollectorFailed, match=f"^collector bad: {problem}"):
        plan("bad", EntryPoint("bad", value, GROUP).load)


async def test_what_it_writes_is_kept(buffer: Buffer) -> None:
    def function(data: BinaryIO) -> None:
        assert data.writable()
        assert data.write(b"some") == data.tell() == 4
        assert data.write(memoryview(b" thing")) == 6
        assert data.write(b"") == 0

    assert await collect(buffer, function) == Collected(10)
    assert written(buffer, 11) == b"some thing\0"


async def test_as_much_as_there_is_room_for(buffer: Buffer) -> None:
    assert await collect(buffer, lambda data: data.write(b"x" * SIZE)) == Collected(SIZE)


async def test_more_than_there_is_room_for(buffer: Buffer) -> None:
    def function(data: BinaryIO) -> None:
        data.write(b"x" * (SIZE - 1))
        # One that does not look at errors.
        with pytest.raises(TooLarge):
            data.write(b"yz")

    collected = await collect(buffer, function)
    assert (collected.size, collected.truncated, type(collected.error)) == (SIZE, True, TooLarge)
    assert written(buffer, SIZE + 1) == b"x" * (SIZE - 1) + b"y\0"


async def test_what_was_written_before_it_raised_is_kept(buffer: Buffer) -> None:
    def function(data: BinaryIO) -> None:
        data.write(b"half")
        raise ValueError("no\nmore")

    collected = await collect(buffer, function)
    assert (collected.size, collected.truncated) == (4, True)
    assert str(collected.error).startswith("device dump nic0: ValueError: no\\nmore (test_python.py:")


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda data: None, "device dump nic0: the collector wrote nothing"),
        (
            lambda data: data.write("text"),
            "device dump nic0: TypeError: memoryview: a bytes-like object is required",
        ),
        (lambda data: sys.exit(3), "device dump nic0: SystemExit: 3"),
    ],
)
async def test_nothing_to_keep(buffer: Buffer, function: Callable[[BinaryIO], object], problem: str) -> None:
    with pytest.raises(CollectorFailed, match=f"^{problem}"):
        await collect(buffer, function)


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("data_before", [b"", b"so far"])
async def test_one_that_hangs_is_cut_off(buffer: Buffer, cancel: bool, data_before: bytes) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    errors: list[Exception] = []

    def function(data: BinaryIO) -> None:
        data.write(data_before)
        begun.set()
        go_on.wait()
        try:
            data.write(b"too late")
        except VmcoreddError as error:
            errors.append(error)
        ended.set()

    work = asyncio.create_task(collect(buffer, function, 20 if cancel else 1))
    await asyncio.to_thread(begun.wait)
    if cancel:
        work.cancel()
    when = "before the shutdown" if cancel else "within 1 s"
    if data_before:
        collected = await work
        assert (collected.size, collected.truncated) == (len(data_before), True)
        problem: BaseException | None = collected.error
    else:
        with pytest.raises(TimedOut) as raised:
            await work
        problem = raised.value
    assert str(problem) == f"device dump nic0: the collector did not finish {when}"
    go_on.set()
    await asyncio.to_thread(ended.wait)
    assert [str(error) for error in errors] == ["device dump nic0: the time of the collector is over"]
    assert written(buffer, 20) == data_before.ljust(20, b"\0")


async def test_no_thread_to_collect_in(executor: None, buffer: Buffer) -> None:
    with few_threads(0), pytest.raises(CollectorFailed) as raised:
        await collect(buffer, lambda data: data.write(b"data"))
    assert str(raised.value) == "device dump nic0: cannot run the collector: cannot start a thread"


async def test_no_thread_to_end_it_in(executor: None, buffer: Buffer) -> None:
    with few_threads(1):
        assert await collect(buffer, lambda data: data.write(b"data")) == Collected(4)


async def test_no_descriptor_for_it(buffer: Buffer) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (buffer.fd, limits[1]))
    try:
        with pytest.raises(CollectorFailed) as raised:
            await collect(buffer, lambda data: data.write(b"data"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert str(raised.value) == "device dump nic0: cannot run the collector: Too many open files"
    assert raised.value.errno == errno.EMFILE


async def test_thread_of_one_that_hangs_is_counted_until_it_ends(buffer: Buffer) -> None:
    abandoned, go_on = AbandonedThreads(1), threading.Event()

    def function(data: BinaryIO) -> None:
        data.write(b"so far")
        go_on.wait()
        data.write(b"too late")

    collector = PythonCollector("test", Writes(function), 0.2, abandoned)
    assert (await collector.collect("nic0", buffer)).size == 6
    with pytest.raises(Busy):
        abandoned.check()
    go_on.set()
    await eventually(lambda: not is_busy(abandoned.check))

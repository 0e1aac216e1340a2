# SPDX-License-Identifier: LGPL-2.1-or-later
import _thread
import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lib.resources import open_fds
from vmcoredd_daemon.errors import Busy
from vmcoredd_daemon.threads import loop as loop_module
from vmcoredd_daemon.threads.loop import (
    AbandonedThreads,
    Loop,
    ThreadNotStarted,
    run_apart,
    run_in_own_thread,
    run_with_duplicate,
    wait_for,
)

Started = list[tuple[Callable[..., object], tuple[object, ...]]]


@pytest.fixture
def not_begun(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Threads are started, and do not begin."""
    started: Started = []
    monkeypatch.setattr(loop_module, "START_TIMEOUT", 0.1)
    monkeypatch.setattr(loop_module._thread, "start_new_thread", lambda *thread: started.append(thread))
    return started


async def test_thread_that_does_not_begin(not_begun: Started) -> None:
    made: list[int] = []
    with pytest.raises(ThreadNotStarted):
        await run_in_own_thread(made.append, 1)
    ((thread, arguments),) = not_begun
    # If it begins later, it leaves everything as it is.
    thread(*arguments)
    assert made == []


async def test_executor_takes_the_place_of_a_thread_that_does_not_begin(not_begun: Started) -> None:
    made: list[int] = []
    executor = ThreadPoolExecutor(1)
    # As started_executor() does it.
    future = executor.submit(int)
    assert not_begun == []
    assert future.result() == 0
    asyncio.get_running_loop().set_default_executor(executor)
    await run_apart(lambda: made.append(1))
    for thread, arguments in not_begun:
        thread(*arguments)
    assert made == [1]


async def test_duplicate_of_a_thread_that_does_not_begin_is_closed(not_begun: Started) -> None:
    read, write = os.pipe()
    before = open_fds()
    with pytest.raises(ThreadNotStarted):
        await run_with_duplicate(os.close, write)
    await asyncio.sleep(0)
    assert open_fds() == before
    os.close(read)
    os.close(write)


async def test_threads_that_hang_are_counted_until_they_end() -> None:
    abandoned, event = AbandonedThreads(2), os.eventfd(0, os.EFD_SEMAPHORE)
    reads = [run_in_own_thread(os.read, event, 8) for _ in range(2)]
    abandoned.add(reads[0])
    abandoned.check()
    abandoned.add(reads[1])
    with pytest.raises(Busy, match="2 threads hang: no more are started"):
        abandoned.check()
    os.eventfd_write(event, 1)
    await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0)
    abandoned.check()
    os.eventfd_write(event, 1)
    await asyncio.wait(reads)
    os.close(event)


def test_signals_that_a_loop_has_listened_to_are_ignored_when_it_is_closed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        loop = Loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: None)
        loop.close()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGTERM, before)


def test_threads_that_hang_at_the_end() -> None:
    # In a process of its own: pytest has other threads.
    script = (
        "import os; from vmcoredd_daemon.threads.loop import started_executor, wait_for_threads;"
        "executor, (reading, writing) = started_executor(2), os.pipe();"
        "executor.submit(os.read, reading, 1); executor.shutdown(wait=False);"
        "print(wait_for_threads(0.5)); os.write(writing, b'x'); print(wait_for_threads(30))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\nTrue\n"


async def test_error_of_work_that_was_given_up_is_not_logged() -> None:
    logged: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    reading, writing = os.pipe()

    def fail() -> bytes:
        os.read(reading, 1)
        return os.read(-1, 1)

    with pytest.raises(TimeoutError):
        await wait_for(work := run_in_own_thread(fail), 0.01)
    os.write(writing, b"x")
    await asyncio.wait([work])
    assert isinstance(work._exception, OSError)
    del work
    gc.collect()
    for fd in (reading, writing):
        os.close(fd)
    assert logged == []


def test_error_in_the_last_turn_of_the_loop_is_not_logged() -> None:
    logged: list[dict[str, object]] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: logged.append(context))
    event, threads = os.eventfd(0), _thread._count()

    async def abandon_one() -> None:
        with pytest.raises(TimeoutError):
            await wait_for(run_in_own_thread(lambda: os.read(event, 8) and os.read(-1, 8)), 0.01)

    def end() -> None:
        os.eventfd_write(event, 1)
        while _thread._count() > threads:
            time.sleep(0.001)
        # The future has its error before that, in the same turn, and its callbacks would be called in the next.
        loop.call_soon(loop.stop)

    loop.run_until_complete(abandon_one())
    loop.call_soon(end)
    loop.run_forever()
    loop.close()
    gc.collect()
    os.close(event)
    assert logged == []

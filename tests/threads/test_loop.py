# SPDX-License-Identifier: LGPL-2.1-or-later
import asyncio
import gc
import os
import signal
import subprocess
import sys

import pytest

from vmcoredd_daemon.errors import Busy
from vmcoredd_daemon.threads.loop import (
    AbandonedThreads,
    Loop,
    run_in_own_thread,
    wait_for,
)


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

# SPDX-License-Identifier: LGPL-2.1-or-later
import asyncio
import fcntl
import os
import signal
from pathlib import Path

import pytest

from tests.lib.resources import children, few_threads, open_fds
from tests.lib.shell_program import shell_program
from tests.lib.waiting import eventually, is_busy
from vmcoredd_daemon.collectors.process import Starter
from vmcoredd_daemon.threads.loop import AbandonedThreads


async def test_program_in_a_file_system_that_hangs(tmp_path: Path) -> None:
    """exec() waits until a lease on the program is given up: by this process, which has to go on for that."""
    program = shell_program(tmp_path / "program")
    lease = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    broken = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGIO, broken.set)
    before = open_fds()
    try:
        fcntl.fcntl(lease, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        starter = Starter()
        starting = asyncio.create_task(starter.start([str(program)], {}))
        await broken.wait()
        # Before Python 3.11.4, vfork() would keep this process from going on until the kernel has waited for 45 s
        # and takes the lease away; then the start would be over soon.
        await asyncio.wait([starting], timeout=0.3)
        assert not starting.done()
        # Others, that would start one after the other, do not wait for it.
        for other in await asyncio.gather(*(starter.start(["true"], {}) for _ in range(3))):
            await other.exited
            other.close()
            assert other.returncode == 0
        assert not starting.done()
    finally:
        os.close(lease)
        loop.remove_signal_handler(signal.SIGIO)
    process = await starting
    await process.exited
    process.close()
    assert process.returncode == 0
    assert open_fds() == before - 1


async def test_no_thread_no_process() -> None:
    before = open_fds(), children(os.getpid())
    with few_threads(0), pytest.raises(OSError, match="cannot start a thread"):
        await Starter().start(["sleep", "1000"], {})
    assert (open_fds(), children(os.getpid())) == before


async def test_one_thread_is_enough_for_a_process() -> None:
    before = open_fds(), children(os.getpid())
    with few_threads(1):
        process = await Starter().start(["sleep", "1000"], {})
        await process.stop()
    process.close()
    assert process.returncode == -signal.SIGTERM
    assert (open_fds(), children(os.getpid())) == before


async def test_process_that_is_left_alone_is_counted_until_it_ends() -> None:
    abandoned = AbandonedThreads(1)
    process = await Starter(abandoned).start(["sleep", "1000"], {})
    process.close()
    # There was no time to see it end: it could be in D state.
    assert is_busy(abandoned.check)
    await process.exited
    await asyncio.sleep(0)
    assert not is_busy(abandoned.check)
    assert process.returncode == -signal.SIGKILL


async def test_start_that_hangs_is_counted_until_it_ends(tmp_path: Path) -> None:
    program = shell_program(tmp_path / "program")
    lease = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    broken = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGIO, broken.set)
    abandoned = AbandonedThreads(1)
    before = open_fds()
    fcntl.fcntl(lease, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    starting = asyncio.create_task(Starter(abandoned).start([str(program)], {}))
    await broken.wait()
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert is_busy(abandoned.check)
    os.close(lease)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGIO)
    await eventually(lambda: not is_busy(abandoned.check))
    assert open_fds() == before - 1

# SPDX-License-Identifier: LGPL-2.1-or-later
import asyncio
import fcntl
import os
import signal
from pathlib import Path

from tests.resources import open_fds
from vmcoredd_daemon.collectors.process import Starter


async def test_program_in_a_file_system_that_hangs(tmp_path: Path) -> None:
    """exec() waits until a lease on the program is given up: by this process, which has to go on for that."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
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

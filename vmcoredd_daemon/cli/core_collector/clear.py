# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clears the spool of the device dumps that a vmcore on the disk has: those of the service, or what it has left.

It runs in a child process, as :mod:`.sources` does. What stays, ``vmcoredd resolve`` clears at a next boot.
"""

import fcntl
import logging
import os

from ...config.config import load
from ...config.vmcore_format import Format
from ...dumps.recovery import recover
from ...dumps.spool_directory import open_private, remove_notes
from ...files import MEMORY_FILE_SYSTEMS, close, file_system, sync_file
from ...manifest import ManifestDump
from ...vmcore.inspect.inspect import find, held
from .gather import Request


def run(request: Request, path: str, records: frozenset[ManifestDump]) -> None:
    """Remove those of *records* from the spool that the vmcore at *path* has. Raises VmcoreddError and OSError."""
    # What is wrong is sent: without a handler it would be on standard error, too.
    logging.getLogger().addHandler(logging.NullHandler())
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if file_system(fd) in MEMORY_FILE_SYSTEMS:
            return
        sync_file(path)
        saved = held(find(fd, path), records)
    finally:
        close(fd)
    configuration = load(request.config)
    try:
        directory = open_private(configuration.spool_directory, make=False)
    except FileNotFoundError:
        # No service has run, or it had no disk.
        return
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _clear(directory, saved)
    except BlockingIOError:
        # A service that writes a vmcore, too, needs them for that.
        if configuration.output.format is Format.NONE:
            _clear_service(request, saved)
    finally:
        close(directory)


def _clear(directory: int, saved: frozenset[ManifestDump]) -> None:
    numbers = []
    # What is damaged was reported when it was read for the vmcore.
    for spooled in recover(directory, lambda name, error: None):
        close(spooled.note.fd)
        if spooled.record in saved:
            numbers.append(spooled.number)
    remove_notes(directory, numbers)


def _clear_service(request: Request, saved: frozenset[ManifestDump]) -> None:
    """Have the service remove them: it holds the spool. Raises VmcoreddError."""
    # Imported late: the bus takes memory and time, and beside kdump-tools no service runs any more.
    import asyncio

    from .sources import record_of, running_service

    async def clear() -> None:
        client = await running_service(request)
        try:
            for dump in await client.list_dumps():
                if record_of(dump) in saved:
                    await client.remove_dump(dump.path)
        finally:
            await client.close()

    asyncio.run(clear())

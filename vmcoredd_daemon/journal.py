# SPDX-License-Identifier: LGPL-2.1-or-later
"""Structured log: to the journal through systemd-python if stderr is connected to it, else to stderr.

Sending to journald can block, so entries go through a queue to a thread; those that do not fit the queue are
counted. Every event has a MESSAGE_ID and VMCOREDD_* fields; see systemd.journal-fields(7).
"""

import errno
import logging
import os
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from typing import TypeAlias

from .errors import VmcoreddError, WriteFailed
from .files import open_directory, open_new, sync
from .text import printable, valid

log = logging.getLogger("vmcoredd")

IDENTIFIER = "vmcoredd-daemon"
"""SYSLOG_IDENTIFIER= of every entry of the service."""

QUEUE_SIZE = 4096
"""Entries that wait for journald."""

FLUSH_TIMEOUT = 10.0
"""Seconds to send the last of them at the end."""

SAVED_JOURNAL = "vmcoredd-journal.json"
MAX_LINE = 1 << 16
"""Bytes of an entry; ours have about 2,000."""

SAVE_TIMEOUT = 15.0
"""Seconds for both calls of journalctl: with FLUSH_TIMEOUT, fewer than the last EXTEND_TIMEOUT_USEC= asks for."""

_Entries: TypeAlias = "queue.SimpleQueue[logging.LogRecord | None]"


class Event(Enum):
    """The events, by their MESSAGE_ID."""

    STARTED = "575a1d93064b4d08a4f2ea2db0a63f57"
    DISABLED = "f9f4ba8b42054c528c26ac63961b3917"
    STOPPED = "e76065e5d74940d29c0301488e830bae"
    DUMP_ADDED = "f922dfe79ccc4cdb91a9a9250295a7e7"
    DUMP_TRUNCATED = "620628aeebdc4c6cb547a2e356eb4ced"
    DUMP_FAILED = "70c0e617c1e94b9aa2a2b7155eedd86e"
    DUMP_REMOVED = "f1d68bc797d84e8a9d8db9eee7536704"
    DUMP_RECOVERED = "b4fc1459895944c4842f16d2098c45ca"
    DUMP_DAMAGED = "b364d7ec2b0945a38ec214647f3ecf51"
    DUMP_LEFT_BEHIND = "045649f4ada24931ad35c3c311b550c3"
    SPOOL_RESOLVED = "f4b419ae23d043c095514c58795b0ce7"
    VMCORE_WRITTEN = "730cad66075e45f28913add0fa05a938"
    VMCORE_FAILED = "2d0c546c4ae446eca68db06a50c61d24"
    FORMAT_CHANGED = "9dc317b7c004438fab9ce86ec35d9011"
    SOURCE_UNREADABLE = "15f1ce25e59a422c93d517bda6323f46"
    SPACE_SHORT = "4e4e7ef8435f418586a4db13c23f4427"
    CRASH_REMOVED = "54cc8297f3f14396862f6d4d0efda260"
    KERNEL_LOG_MISSING = "13c0ddda3b3d464a87d07345a0bee222"
    SPOOL_UNUSABLE = "1b5b9e4bac484332aabc77e51b4c64de"
    BUS_UNAVAILABLE = "241b7486a02f47449babc98700c6e459"


_DUMP = ("dump_name", "collector")
_ADDED = (*_DUMP, "size", "note_size", "sha256")

FIELDS: dict[Event, tuple[str, ...]] = {
    Event.STARTED: ("source",),
    Event.DISABLED: ("source",),
    Event.STOPPED: ("path",),
    Event.DUMP_ADDED: _ADDED,
    Event.DUMP_TRUNCATED: _ADDED,
    Event.DUMP_FAILED: (*_DUMP, "error", "errno"),
    Event.DUMP_REMOVED: _DUMP,
    Event.DUMP_RECOVERED: ("dump_name",),
    Event.DUMP_DAMAGED: ("dump_name",),
    Event.DUMP_LEFT_BEHIND: ("spool",),
    Event.SPOOL_RESOLVED: ("spool", "path", "dumps", "attached"),
    Event.VMCORE_WRITTEN: ("path", "size", "dumps", "fallback"),
    Event.VMCORE_FAILED: ("source", "target"),
    Event.FORMAT_CHANGED: ("source", "format"),
    Event.SOURCE_UNREADABLE: ("source", "unreadable_pages", "missing_bytes", "blocked"),
    Event.SPACE_SHORT: ("free", "size"),
    Event.CRASH_REMOVED: ("path",),
    Event.KERNEL_LOG_MISSING: ("source",),
    Event.SPOOL_UNUSABLE: ("spool",),
    Event.BUS_UNAVAILABLE: ("bus",),
}
"""The fields that each may have, without the prefix VMCOREDD_; the manual page lists them."""


def record(event: Event, level: int, message: str, **fields: object) -> None:
    """Log *message*, one line, with the event's MESSAGE_ID and *fields*, whose names get the prefix VMCOREDD_."""
    log.log(level, "%s", message, extra={"MESSAGE_ID": event.value, **journal_fields(**fields)})


def journal_fields(**fields: object) -> dict[str, str]:
    """Return *fields* under their names in the journal, for ``extra=`` of a logger."""
    return {f"VMCOREDD_{name.upper()}": valid(str(value)) for name, value in fields.items()}


@contextmanager
def logging_started(identifier: str = IDENTIFIER) -> Iterator[None]:
    """Log through a thread while the context lasts; its end waits up to FLUSH_TIMEOUT for the last entries.

    *identifier* names the program in each entry.

    Raises VmcoreddError when no thread can be started.
    """
    entries: _Entries = queue.SimpleQueue()
    listener = _Listener(entries, _handler_for(identifier))
    root = logging.getLogger()
    handler = _Handler(entries)
    try:
        listener.start()
    except RuntimeError as error:
        raise VmcoreddError(f"cannot start a thread: {error}") from error
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        listener.end(handler.lost)


class _Handler(QueueHandler):
    """Puts entries into the queue, and counts those that do not fit."""

    def __init__(self, entries: _Entries) -> None:
        super().__init__(entries)
        # Not queue.Queue(maxsize): a destructor that runs while its lock is held may log and deadlock.
        self._entries = entries
        self.lost = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Format the message: one line of it, and of each line of a traceback, whatever a path in it has."""
        prepared: logging.LogRecord = super().prepare(record)
        text = str(prepared.msg)
        lines = [text] if record.exc_info is None else text.split("\n")
        prepared.msg = prepared.message = "\n".join(map(printable, lines))
        return prepared

    def enqueue(self, record: logging.LogRecord) -> None:
        if self._entries.qsize() >= QUEUE_SIZE:
            self.lost += 1
            return
        if self.lost:
            self._entries.put(_loss(self.lost))
            self.lost = 0
        self._entries.put(record)


class _Listener(QueueListener):
    """Takes entries from the queue; the process exits without waiting for its thread, which is a daemon thread."""

    def __init__(self, entries: _Entries, handler: logging.Handler) -> None:
        super().__init__(entries, handler)
        self._entries = entries

    def handle(self, record: logging.LogRecord) -> None:
        # Not by their handle(): it holds a lock, for which the interpreter waits at exit, even if journald hangs.
        for handler in self.handlers:
            handler.emit(record)

    def end(self, lost: int) -> None:
        """Have the thread end after the last entry, and wait for that at most FLUSH_TIMEOUT."""
        if lost:
            self._entries.put(_loss(lost))
        self._entries.put(None)
        if self._thread is not None:
            self._thread.join(FLUSH_TIMEOUT)


def _loss(lost: int) -> logging.LogRecord:
    return log.makeRecord(log.name, logging.ERROR, __file__, 0, f"{lost} log entries were lost", (), None)


def save_journal(directory: Path) -> None:
    """Save what this service has logged since boot into *directory*, as lines of JSON. Blocks.

    In a capture kernel the journal is in memory, and gone after the reboot. If the disk is full, only complete
    lines are saved. Does nothing if the log does not go to the journal. Raises WriteFailed.
    """
    if not _stderr_is_journal():
        return
    until = time.monotonic() + SAVE_TIMEOUT
    select = ["--boot", f"--identifier={IDENTIFIER}", "--output=json", "--no-pager"]
    try:
        subprocess.run(["journalctl", "--sync"], check=False, timeout=SAVE_TIMEOUT)
        with open(_new_file(directory, SAVED_JOURNAL), "wb") as file:
            try:
                subprocess.run(["journalctl", *select], stdout=file, check=True, timeout=until - time.monotonic())
            finally:
                complete = _truncate_to_lines(file.fileno())
            sync(file.fileno())
        if not complete:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except (OSError, subprocess.SubprocessError) as error:
        raise WriteFailed(f"{directory / SAVED_JOURNAL}: cannot save the journal: {error}") from error


def _truncate_to_lines(fd: int) -> bool:
    """Cut off an incomplete last line, as a full disk leaves it; return whether there was none."""
    end = os.fstat(fd).st_size
    start = max(0, end - MAX_LINE)
    size = start + os.pread(fd, end - start, start).rfind(b"\n") + 1
    os.ftruncate(fd, size)
    return size == end


def _new_file(directory: Path, name: str) -> int:
    parent = open_directory(directory)
    try:
        return open_new(parent, name)
    finally:
        os.close(parent)


def _stderr_is_journal() -> bool:
    # systemd.exec(5): $JOURNAL_STREAM has device and inode of the stream that is connected to the journal.
    stream = os.environ.get("JOURNAL_STREAM", "")
    try:
        state = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        # Closed at the start, then it is None; or since.
        return False
    return stream == f"{state.st_dev}:{state.st_ino}"


def _handler_for(identifier: str) -> logging.Handler:
    return _journal_handler(identifier) if _stderr_is_journal() else _stderr_handler(identifier)


def _journal_handler(identifier: str) -> logging.Handler:
    # Imported late: only for the journal.
    from systemd import journal

    def send(message: str, /, **fields: object) -> None:
        # JournalHandler passes every attribute of the record, even "message"; journal fields are in capitals.
        journal.send(message, **{name: value for name, value in fields.items() if name.isupper()})

    handler: logging.Handler = journal.JournalHandler(sender_function=send, SYSLOG_IDENTIFIER=identifier)
    return handler


def _stderr_handler(identifier: str) -> logging.Handler:
    if sys.stderr is None:
        # Closed at the start.
        return logging.NullHandler()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{identifier}[%(process)d]: %(levelname)s: %(message)s"))
    return handler

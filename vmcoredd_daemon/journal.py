# SPDX-License-Identifier: LGPL-2.1-or-later
"""Structured log: to the journal through systemd-python, or to stderr where that is not the journal.

Sending to journald can block, so records go through a queue to a thread of their own. Every event has a MESSAGE_ID
and VMCOREDD_* fields; see systemd.journal-fields(7).
"""

import logging
import os
import queue
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path

from .errors import VmcoreddError, WriteFailed

log = logging.getLogger("vmcoredd")

IDENTIFIER = "vmcoredd-daemon"
"""SYSLOG_IDENTIFIER= of every entry."""

SAVED_JOURNAL = "vmcoredd-journal.json"
SAVE_TIMEOUT = 20.0
"""Seconds that journalctl may take."""


class Event(Enum):
    """The events, by their MESSAGE_ID."""

    STARTED = "575a1d93064b4d08a4f2ea2db0a63f57"
    STOPPED = "e76065e5d74940d29c0301488e830bae"
    DUMP_ADDED = "f922dfe79ccc4cdb91a9a9250295a7e7"
    DUMP_TRUNCATED = "620628aeebdc4c6cb547a2e356eb4ced"
    DUMP_FAILED = "70c0e617c1e94b9aa2a2b7155eedd86e"
    DUMP_REMOVED = "f1d68bc797d84e8a9d8db9eee7536704"
    DUMP_RECOVERED = "b4fc1459895944c4842f16d2098c45ca"
    DUMP_DAMAGED = "b364d7ec2b0945a38ec214647f3ecf51"
    DUMP_LEFT_BEHIND = "045649f4ada24931ad35c3c311b550c3"
    VMCORE_WRITTEN = "730cad66075e45f28913add0fa05a938"
    VMCORE_FAILED = "2d0c546c4ae446eca68db06a50c61d24"
    FORMAT_CHANGED = "9dc317b7c004438fab9ce86ec35d9011"
    SOURCE_UNREADABLE = "15f1ce25e59a422c93d517bda6323f46"
    SPACE_SHORT = "4e4e7ef8435f418586a4db13c23f4427"
    KERNEL_LOG_MISSING = "13c0ddda3b3d464a87d07345a0bee222"
    SPOOL_UNUSABLE = "1b5b9e4bac484332aabc77e51b4c64de"
    BUS_UNAVAILABLE = "241b7486a02f47449babc98700c6e459"


def record(event: Event, level: int, message: str, **fields: object) -> None:
    """Log *message*, one line, with the event's MESSAGE_ID and *fields*, whose names get the prefix VMCOREDD_."""
    extra = {f"VMCOREDD_{name.upper()}": str(value) for name, value in fields.items()}
    log.log(level, "%s", message, extra={"MESSAGE_ID": event.value, **extra})


@contextmanager
def logging_started() -> Iterator[None]:
    """Log through a thread while the context lasts; at its end everything is out. Raises VmcoreddError."""
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    listener = QueueListener(records, _journal_handler() if _stderr_is_journal() else _stderr_handler())
    root = logging.getLogger()
    handler = QueueHandler(records)
    try:
        listener.start()
    except RuntimeError as error:
        raise VmcoreddError(f"no thread can be started: {error}") from error
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        listener.stop()


def save_journal(directory: Path) -> None:
    """Save what this service has logged since boot into *directory*, as lines of JSON. Blocks.

    In a capture kernel the journal is in memory, and gone after the reboot. Does nothing where the log does not
    go to the journal. Raises WriteFailed.
    """
    if not _stderr_is_journal():
        return
    select = ["--boot", f"--identifier={IDENTIFIER}", "--output=json", "--no-pager"]
    try:
        subprocess.run(["journalctl", "--sync"], check=False, timeout=SAVE_TIMEOUT)
        with (directory / SAVED_JOURNAL).open("wb") as file:
            subprocess.run(["journalctl", *select], stdout=file, check=True, timeout=SAVE_TIMEOUT)
            os.fsync(file.fileno())
    except (OSError, subprocess.SubprocessError) as error:
        raise WriteFailed(f"{directory / SAVED_JOURNAL}: cannot save the journal: {error}") from error


def _stderr_is_journal() -> bool:
    # systemd.exec(5): $JOURNAL_STREAM holds device and inode of the stream that goes to the journal.
    stream = os.environ.get("JOURNAL_STREAM", "")
    try:
        state = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return stream == f"{state.st_dev}:{state.st_ino}"


def _journal_handler() -> logging.Handler:
    from systemd import journal

    def send(message: str, /, **fields: object) -> None:
        # JournalHandler passes every attribute of the record, its "message" too; the journal's own fields are in
        # capital letters.
        journal.send(message, **{name: value for name, value in fields.items() if name.isupper()})

    handler: logging.Handler = journal.JournalHandler(sender_function=send, SYSLOG_IDENTIFIER=IDENTIFIER)
    return handler


def _stderr_handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{IDENTIFIER}[%(process)d]: %(levelname)s: %(message)s"))
    return handler

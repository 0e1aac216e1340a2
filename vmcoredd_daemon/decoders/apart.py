# SPDX-License-Identifier: LGPL-2.1-or-later
"""Decoders run in a process of their own: what they read is hostile, and some are programs of others.

The process has limits of time, memory, open files and output; its answer comes through a pipe. A decoder that is
not ours has no network either: it is in a network namespace of its own, user_namespaces(7), or it does not run.
"""

import ctypes
import json
import math
import os
import re
import resource
import select
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn

from ..errors import InvalidDump, VmcoreddError
from ..files import write_all
from ..text import printable, shortened
from .decoded import Decode, Decoded, Section, Text, pack, unpack

TIMEOUT = 20.0
"""Seconds that a decoder may take."""
MEMORY = 512 << 20
"""Bytes of address space that it may take in addition to what the program has."""
OUTPUT = 16 << 20
"""Bytes of its answer."""
_FILES = 64
"""Open files of a process."""
FILE_SIZE = 64 << 20
"""Bytes of a file that a program may write."""

MAX_FINDINGS = 256
"""Findings of a program."""
INPUT = 256 << 20
"""Bytes of a device dump that a program gets."""

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
"""linux/sched.h"""
_PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h"""
_ERROR = "error"
"""The key of an answer that is an error."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process wrote, and how it ended."""

    output: bytes
    status: int
    """Exit status, or the number of the signal that ended it, negative."""


def decode_apart(decode: Decode, dump_name: str, data: BinaryIO, *, built_in: bool) -> Decoded:
    """Call *decode* in a process of its own. Blocks. Raises InvalidDump for whatever goes wrong in it.

    One that is *built_in* starts no process and uses no network, and needs no namespace for that.
    """

    def run(answer: int) -> None:
        write_all(answer, json.dumps(_answer(decode, dump_name, data)).encode())

    ended = _run(run, built_in=built_in)
    try:
        answer = json.loads(ended.output) if ended.output else None
    except (ValueError, RecursionError):
        answer = None
    if answer is None:
        raise InvalidDump(f"the decoder gave no answer: {_how(ended.status)}")
    if isinstance(answer, dict) and isinstance(answer.get(_ERROR), str):
        raise InvalidDump(printable(answer[_ERROR]))
    return unpack(answer)


def decode_by_program(command: Sequence[str], data: BinaryIO) -> Decoded:
    """Run *command* with *data* as its standard input, an unnamed file. Blocks. Raises InvalidDump.

    What it prints is text; the first line is the title. A line that begins with ``<0>`` to ``<4>``, as for
    SyslogLevelPrefix= in systemd.exec(5), is a finding, too.
    """
    program = os.path.basename(command[0])
    try:
        with tempfile.TemporaryFile() as input_file, tempfile.TemporaryFile() as messages:
            if data.seek(0, os.SEEK_END) > INPUT:
                raise InvalidDump(f"{program}: programs get no device dump of more than {INPUT >> 20} MiB")
            data.seek(0)
            while block := data.read(1 << 20):
                input_file.write(block)
            input_file.flush()
            input_file.seek(0)

            def run(answer: int) -> None:
                for number, fd in enumerate((input_file.fileno(), answer, messages.fileno())):
                    os.dup2(fd, number)
                os.closerange(3, _FILES)
                for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
                    signal.signal(ignored, signal.SIG_DFL)
                os.execvp(command[0], list(command))

            ended = _run(run, built_in=False, file_size=max(FILE_SIZE, input_file.tell()))
            if ended.status != 0:
                messages.seek(max(0, messages.seek(0, os.SEEK_END) - 400))
                last = messages.read().decode(errors="backslashreplace").strip().rpartition("\n")[2]
                raise InvalidDump(": ".join(filter(None, (program, _how(ended.status), shortened(last)))))
    except OSError as error:
        raise InvalidDump(f"{program}: cannot be run: {error.strerror}") from error
    return _of_text(ended.output.decode(errors="backslashreplace"))


def _of_text(text: str) -> Decoded:
    lines, findings = list[str](), list[str]()
    for line in text.splitlines():
        is_finding = re.match("<[0-4]>", line) is not None
        lines.append(line[3:] if is_finding else line)
        if is_finding and len(findings) < MAX_FINDINGS:
            findings.append(shortened(line[3:].strip()))
    title = printable(lines[0].strip()) if lines and lines[0].strip() not in findings else ""
    return Decoded(title, tuple(findings), sections=(Section("", (Text("", "\n".join(lines) + "\n"),)),))


def _answer(decode: Decode, dump_name: str, data: BinaryIO) -> object:
    try:
        data.seek(0)
        return pack(decode(dump_name, data))
    except VmcoreddError as error:
        return {_ERROR: str(error)}
    except MemoryError:
        return {_ERROR: f"the decoder needs more than {MEMORY >> 20} MiB of memory"}
    except Exception as error:
        # A decoder of others may raise anything, and costs its own text only.
        return {_ERROR: f"the decoder failed: {type(error).__name__}: {shortened(str(error))}"}


def _run(child: Callable[[int], None], *, built_in: bool, file_size: int = 0) -> Ended:
    """Run *child* in a process with limits, and return what it wrote to its pipe. Raises InvalidDump."""
    # Loaded before there is a process that could be out of memory.
    libc = ctypes.CDLL(None, use_errno=True)
    if not built_in:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    reading = writing = -1
    try:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            _child(child, writing, libc, built_in=built_in, file_size=file_size)
        os.close(writing)
        writing = -1
        try:
            output = _read(reading, pid)
        finally:
            # Also after an interrupt: no process of the decoder is left behind.
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if not built_in:
                _kill_orphans()
    except OSError as error:
        raise InvalidDump(f"no process for the decoder: {error.strerror}") from error
    finally:
        for fd in (reading, writing):
            if fd >= 0:
                os.close(fd)
    return Ended(output, os.waitstatus_to_exitcode(status))


def _child(
    run: Callable[[int], None], answer: int, libc: ctypes.CDLL, *, built_in: bool, file_size: int
) -> NoReturn:
    status = 125
    try:
        for caught in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(caught, signal.SIG_DFL)
        # If the parent is killed, nobody else ends a decoder that waits for ever.
        signal.alarm(int(TIMEOUT) + 5)
        # Without a controlling terminal: a decoder could write to it, and type into it (TIOCSTI).
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        _limit(file_size)
        if not built_in and not _leave_network(libc):
            write_all(answer, json.dumps({_ERROR: "no network namespace can be made for the decoder"}).encode())
            status = 126
        else:
            run(answer)
            status = 0
    except BaseException:
        # The exit status says that it failed: nothing must return into the program's own code.
        status = 127
    finally:
        os._exit(status)


def _limit(file_size: int) -> None:
    with open("/proc/self/statm", "rb") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    for what, limit in (
        (resource.RLIMIT_AS, size + MEMORY),
        (resource.RLIMIT_CPU, math.ceil(TIMEOUT)),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _FILES),
    ):
        hard = resource.getrlimit(what)[1]
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        # At its soft limit of processor time a process gets SIGXCPU, which says why it ends.
        resource.setrlimit(what, (soft, soft + (what == resource.RLIMIT_CPU and soft == limit)))


def _leave_network(libc: ctypes.CDLL) -> bool:
    """Enter an empty network namespace; return whether that was possible."""
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWNET) == 0:
        return True
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    # As the same user as before: user_namespaces(7), "Defining user and group ID mappings".
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    return True


def _read(fd: int, pid: int) -> bytes:
    """Return what came through *fd* when *pid* has ended. Raises InvalidDump if that is too long, or too late."""
    pieces: list[bytes] = []
    size, deadline = 0, time.monotonic() + TIMEOUT
    process = os.pidfd_open(pid)
    try:
        while piece := _wait(fd, deadline) and os.read(fd, 1 << 16):
            pieces.append(piece)
            size += len(piece)
            if size > OUTPUT:
                raise InvalidDump(f"the decoder gave more than {OUTPUT >> 20} MiB")
        # A program may close its output some time before it ends.
        _wait(process, deadline)
    finally:
        os.close(process)
    return b"".join(pieces)


def _wait(fd: int, deadline: float) -> Literal[True]:
    if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        raise InvalidDump(f"the decoder did not finish within {TIMEOUT:g} s")
    return True


def _kill_orphans() -> None:
    """End what a decoder has left behind: it is ours now, see prctl(2), PR_SET_CHILD_SUBREAPER."""
    children = Path("/proc/self/task", str(os.getpid()), "children")
    # The file is missing if the kernel has no CONFIG_PROC_CHILDREN.
    with suppress(OSError):
        while orphans := children.read_text().split():
            for orphan in map(int, orphans):
                os.kill(orphan, signal.SIGKILL)
                os.waitpid(orphan, 0)


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    if -status == signal.SIGXCPU:
        return f"it took more than {TIMEOUT:g} s of processor time"
    with suppress(ValueError):
        return f"{signal.Signals(-status).name} ended it"
    return f"signal {-status} ended it"

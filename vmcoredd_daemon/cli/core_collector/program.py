# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand core-collector: makedumpfile, as kdump runs it, and device dumps in what it writes.

The memory comes first. makedumpfile writes a file alone, and device dumps are attached after it has ended; a
flattened dump goes through a filter that passes it on unchanged if anything is wrong. If any of this fails,
makedumpfile is still run with its options, and the caller sees its exit status, output and errors. Little is
imported before it runs: it needs the memory.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from ...errors import VmcoreddError
from ...terminal.exit import FAILURE, shell_status
from ...terminal.stdio import complain, show
from ...vmcore.copy.page_cache import write_back_while
from .makedumpfile import (
    CORE_COLLECTOR,
    HANDSHAKE,
    OWN_PREFIX,
    Call,
    be_killed_first,
    become,
    parse,
    reason,
    start,
    wait,
)


def run(arguments: Sequence[str]) -> int:
    """Run makedumpfile with *arguments*; return its exit status, negative for a signal. May not return."""
    try:
        call = parse(arguments)
    except Exception as error:
        complain(f"no device dumps attached: {reason(error)}")
        if any(argument.startswith(HANDSHAKE) for argument in arguments):
            # It has not been told that makedumpfile was started, and does it now.
            return FAILURE
        _execute(Call(arguments=[argument for argument in arguments if not argument.startswith(OWN_PREFIX)]))
    _keep_handshake(call)
    for problem in call.problems:
        complain(problem)
    if call.unknown:
        complain(f"no device dumps attached: unknown option {call.unknown[:80]!a}")
    if call.options & {"h", "help"}:
        _help()
    # With standard output closed there is nothing to filter.
    if not call.writes_a_dump or (call.flattened and sys.stdout is None):
        _execute(call)
    return _stream(call) if call.flattened else _file(call)


def _help() -> None:
    """Show our own options, before makedumpfile shows its own."""
    # Imported late: the parser takes memory, and only --help needs it.
    from .. import arguments

    with suppress(VmcoreddError, BrokenPipeError):
        show(f"{arguments.parser_of(CORE_COLLECTOR).format_help()}\n")


def _keep_handshake(call: Call) -> None:
    """Keep the handshake's descriptor from the programs that we run."""
    try:
        os.set_inheritable(call.handshake, False)
    except OSError:
        if "handshake" in call.own:
            call.problems.append(f"{HANDSHAKE}{call.own['handshake'][:80]!a} is not an open descriptor above 2")


def _execute(call: Call) -> NoReturn:
    """Become makedumpfile, with the standard descriptors that the caller gave us."""
    for fd, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            os.close(fd)
    become(call)


def _file(call: Call) -> int:
    destination = call.operands[1]
    existed = os.path.lexists(destination)
    process = start(call)
    with _forward_signals(process), write_back_while(destination):
        be_killed_first()
        status = wait(process)
    call.tell(f"ended {shell_status(status)}")
    call.hang_up()
    # If it failed, a file that existed before may not be its own; if it was killed, the file cannot be read.
    if status == 0 or (status > 0 and not existed and os.path.isfile(destination)):
        try:
            # Imported late: makedumpfile needed the memory until here.
            from . import attach

            attach.attach_to_file(call, destination, status)
        except Exception as error:
            complain(f"no device dumps attached to {destination}: {reason(error)}")
    return status


@contextmanager
def _forward_signals(process: int) -> Iterator[None]:
    """Send makedumpfile the signals that would end us: when it ends, so do we."""

    def forward(number: int, frame: FrameType | None) -> None:
        # It may have just ended.
        with suppress(ProcessLookupError):
            os.kill(process, number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stream(call: Call) -> int:
    try:
        # Imported late, so that a bug there costs no memory: makedumpfile runs anyway.
        from . import attach, stream

        gathered = attach.gather_for(call, None)
    except Exception as error:
        complain(f"no device dumps attached to standard output: {reason(error)}")
        _execute(call)
    if not gathered.records and not gathered.failures:
        complain("there are no device dumps to attach")
        _execute(call)
    try:
        return stream.run(call, gathered)
    finally:
        gathered.close()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand core-collector: makedumpfile, as kdump runs it, and device dumps in what it writes.

The memory comes first. A file is written by makedumpfile alone, and device dumps are attached when it has ended; a
flattened dump passes through a filter that passes it on unchanged where anything is wrong. Whatever is wrong with
us, makedumpfile runs with its options, and its exit status, output and errors are what the caller sees.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from ...errors import VmcoreddError
from ...terminal.stdio import complain, show
from ...vmcore.copy.page_cache import write_back_while
from .makedumpfile import IGNORED_BY_PYTHON, finish, missing, reason, start
from .makedumpfile_options import CORE_COLLECTOR, OWN_PREFIX, Call, parse


def run(arguments: Sequence[str]) -> int:
    """Run makedumpfile with *arguments*; return its exit status, negative for a signal. May not return at all."""
    try:
        call = parse(arguments)
    except Exception as error:
        complain(f"no device dumps are attached: {reason(error)}")
        _execute(Call(arguments=[argument for argument in arguments if not argument.startswith(OWN_PREFIX)]))
    for problem in call.problems:
        complain(problem)
    if call.unknown:
        complain(f"option {call.unknown[:80]!a} is not known: device dumps are not attached")
    if call.options & {"h", "help"}:
        _help()
    # Without a standard output there is nothing to filter.
    if not call.writes_a_dump or (call.flattened and sys.stdout is None):
        _execute(call)
    return _stream(call) if call.flattened else _file(call)


def _help() -> None:
    """Show our own options, before makedumpfile shows its own."""
    from .. import arguments

    with suppress(VmcoreddError, BrokenPipeError):
        show(f"{arguments.parser_of(CORE_COLLECTOR).format_help()}\n")


def _execute(call: Call) -> NoReturn:
    """Become makedumpfile."""
    for number in IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(call.program, [call.program, *call.arguments])
    except OSError as error:
        sys.exit(missing(call, error))


def _file(call: Call) -> int:
    destination = call.operands[1]
    existed = os.path.lexists(destination)
    try:
        process = start(call)
    except OSError as error:
        return missing(call, error)
    with _passing_on_signals(process), write_back_while(destination):
        status = finish(process)
    # Where it failed, a file that was there before is none of its; where it was killed, there is nothing to read.
    if status == 0 or (status > 0 and not existed and os.path.isfile(destination)):
        try:
            from . import attach as core_collector_notes

            core_collector_notes.attach_to_file(call, destination, status)
        except Exception as error:
            complain(f"no device dumps attached to {destination}: {reason(error)}")
    return status


@contextmanager
def _passing_on_signals(process: int) -> Iterator[None]:
    """Let makedumpfile have the signals that would end us, so that it ends, and we with it."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        # It may have ended a moment ago.
        with suppress(ProcessLookupError):
            os.kill(process, number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stream(call: Call) -> int:
    try:
        from . import attach as core_collector_notes
        from . import stream as core_collector_stream

        gathered = core_collector_notes.gather_for(call, None)
    except Exception as error:
        complain(f"no device dumps attached to standard output: {reason(error)}")
        _execute(call)
    if not gathered.records and not gathered.failures:
        complain("there are no device dumps to attach")
        _execute(call)
    try:
        return core_collector_stream.run(call, gathered)
    finally:
        gathered.close()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand attach: put files into a vmcore that is finished, as device dumps."""

import argparse
import signal

from .. import __version__
from ..terminal.exit import SUCCESS, UsageError
from ..terminal.progress_line import steps
from ..terminal.stdio import complain, standard_input
from ..vmcore.attach.attach import STDIN, attach_files
from .operands import named_files


def run(options: argparse.Namespace) -> int:
    """Attach; return the exit status. Only what goes wrong is worth a line."""
    if options.stream:
        from . import stream

        return stream.run(options.arguments)
    vmcore, *dumps = options.arguments
    if not dumps:
        raise UsageError(
            "the following arguments are required: NAME=FILE or SPOOL.note (see vmcoredd attach --help)"
        )
    files = named_files(dumps)
    from_stdin = sum(file.path == STDIN for file in files)
    if from_stdin > 1:
        raise UsageError("standard input can be one device dump only")
    if from_stdin:
        standard_input()
    with steps() as step:
        attached = attach_files(vmcore, files, f"vmcoredd {__version__}", _ignore_interrupts, step)
    for warning in attached.warnings:
        complain(f"{vmcore}: {warning}")
    for name in attached.altered:
        complain(f"{vmcore}: device dump {name} is attached, but it was altered meanwhile")
    return SUCCESS


def _ignore_interrupts() -> None:
    # Until here a signal leaves the vmcore as it was; what is left to do takes a moment, and then it is attached.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

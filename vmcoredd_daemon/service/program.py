# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program ``vmcoredd-daemon``."""

import argparse
import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..config.config import Configuration, load
from ..errors import VmcoreddError
from ..journal import logging_started, save_journal
from ..terminal.exit import FAILURE, SUCCESS, USAGE, UsageError, leave
from ..terminal.parser import Parser, Version, path
from ..terminal.stdio import complain
from ..threads.loop import Loop, wait_for_threads

_PROGRAM = "vmcoredd-daemon"

THREADS_TIMEOUT = 10.0
"""Seconds for the threads of the executors at the end: one may hang in a disk or a file system."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit status: 0 if a complete vmcore is on disk, 1 if not, 2 on a usage error."""
    try:
        options = parser().parse_args(arguments)
    except (UsageError, VmcoreddError) as error:
        complain(error, _PROGRAM)
        return USAGE if isinstance(error, UsageError) else FAILURE
    except BrokenPipeError:
        return leave(-signal.SIGPIPE)
    # Memory and registers are for root only, even if makedumpfile creates the file, or no unit sets UMask=.
    os.umask(0o077)
    try:
        configuration = _configuration(options)
        with logging_started():
            # Imported late: --help, and a configuration that is refused, do not need them.
            from ..collectors.settings import directories
            from .daemon import Daemon

            daemon = Daemon(
                configuration,
                options.bus_address,
                use_bus=not options.no_bus,
                collectors=directories(options.config),
            )
            with asyncio.Runner(loop_factory=Loop) as runner:
                result = runner.run(daemon.run())
        if result.directory is not None:
            _save_journal(result.directory)
        status = SUCCESS if result.complete else FAILURE
    except VmcoreddError as error:
        complain(error, _PROGRAM)
        status = FAILURE
    if not wait_for_threads(THREADS_TIMEOUT):
        # The interpreter would wait for them.
        os._exit(status)
    return status


def _save_journal(directory: Path) -> None:
    try:
        save_journal(directory)
    except VmcoreddError as error:
        # The exit status only tells about the vmcore.
        complain(error, _PROGRAM)


def _configuration(options: argparse.Namespace) -> Configuration:
    configuration = load(options.config)
    given = {name: getattr(options, name) for name in ("source", "target", "spool")}
    return replace(configuration, **{name: value for name, value in given.items() if value is not None})


def parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog=_PROGRAM,
        usage=f"{_PROGRAM} [OPTIONS]",
        description="Take device dumps over D-Bus, and write a vmcore with them on SIGTERM.",
    )
    parser.add_argument("--config", type=path, metavar="FILE", help="configuration file")
    parser.add_argument("--source", type=path, metavar="FILE", help="vmcore to read, usually /proc/vmcore")
    parser.add_argument(
        "--target", type=path, metavar="DIR", help="directory that gets a directory for this crash"
    )
    parser.add_argument("--spool", type=path, metavar="DIR", help="directory that keeps device dumps until then")
    parser.add_argument("--bus-address", metavar="ADDRESS", help="message bus, by default the system bus")
    parser.add_argument("--no-bus", action="store_true", help="do not use a message bus")
    parser.add_argument("--version", action=Version, nargs=0, help="print the version")
    return parser

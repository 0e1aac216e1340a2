# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program ``vmcoredd``."""

import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from ..errors import VmcoreddError
from ..terminal.exit import FAILURE, SUCCESS, USAGE, UsageError, leave
from ..terminal.stdio import complain, discard
from .core_collector.makedumpfile import CORE_COLLECTOR

if TYPE_CHECKING:
    import argparse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status: 0, 1 on failure, 2 on a usage error, with one line on stderr.

    On a signal it cleans up, and then that signal ends it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = _status(list(sys.argv[1:] if arguments is None else arguments))
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            # Nothing is left to clean up.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        status = -signal.SIGINT
    return leave(status)


def _status(words: list[str]) -> int:
    try:
        return _run(words)
    except SystemExit as stop:
        # A signal; or --help or --version, whose output is printed.
        return int(stop.code or SUCCESS)
    except UsageError as error:
        complain(error)
        return USAGE
    except VmcoreddError as error:
        complain(error)
    except BrokenPipeError:
        discard(sys.stdout)
        return -signal.SIGPIPE
    except Exception as error:
        complain(f"internal error: {type(error).__name__}: {error}")
    return FAILURE


def _run(words: list[str]) -> int:
    if words[:1] == [CORE_COLLECTOR]:
        # Its options are those of makedumpfile, --help included. Imported late: memory is scarce where it runs.
        from .core_collector import program

        return program.run(words[1:])
    # Imported late: the parser takes memory, and core-collector does not need it.
    from . import arguments

    # Raise an exception, so that temporary files are removed.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    options = arguments.parse(words)
    try:
        run = _command(options.command)
    except ModuleNotFoundError as error:
        # Of a file that `make reader` has built, which has no bus, or in a capture kernel, where no one reads.
        raise VmcoreddError(f"{options.command} needs the Python module {error.name}, which is missing") from error
    return run(options)


def _command(name: str) -> "Callable[[argparse.Namespace], int]":
    # Imported late: each needs other modules, and those for files need no bus.
    match name:
        case "attach":
            from .attach import run
        case "check":
            from .check.check import run
        case "crashes":
            from .crashes import run
        case "diff":
            from .diff import run
        case "extract":
            from .extract import run
        case "inspect":
            from .inspect import run
        case "report":
            from .report.report import run
        case "resolve":
            from .resolve.resolve import run
        case "run":
            from .run import run
        case "show":
            from .show import run
        case "verify":
            from .verify import run
        case _:
            from .service import run
    return run


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(-number)

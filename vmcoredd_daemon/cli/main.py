# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program ``vmcoredd``. What a subcommand needs is imported when it runs: files need no bus."""

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from ..errors import VmcoreddError
from ..terminal.exit import FAILURE, SUCCESS, USAGE, UsageError, leave
from ..terminal.stdio import complain, discard
from .core_collector.makedumpfile import CORE_COLLECTOR


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status: 0, 1 when it failed, 2 for wrong usage. Says why in one line.

    Does not return when a signal has ended what it did.
    """
    return leave(_outcome(list(sys.argv[1:] if arguments is None else arguments)))


def _outcome(words: list[str]) -> int:
    try:
        return _run(words)
    except SystemExit as stop:
        # A signal; or --help and --version, whose output show() has printed.
        return int(stop.code or SUCCESS)
    except UsageError as error:
        complain(error)
        return USAGE
    except VmcoreddError as error:
        complain(error)
    except KeyboardInterrupt:
        return -signal.SIGINT
    except BrokenPipeError:
        discard(sys.stdout)
        return -signal.SIGPIPE
    except Exception as error:
        complain(f"internal error: {type(error).__name__}: {error}")
    return FAILURE


def _run(words: list[str]) -> int:
    if words[:1] == [CORE_COLLECTOR]:
        # Its options are those of makedumpfile, --help included. And it runs where memory is scarce.
        from .core_collector import program

        return program.run(words[1:])
    from . import arguments

    # What is temporary is removed, whoever ends us.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    options = arguments.parse(words)
    match options.command:
        case "inspect":
            from . import inspect

            return inspect.run(options)
        case "verify":
            from . import verify

            return verify.run(options)
        case "extract":
            from . import extract

            return extract.run(options)
        case "attach":
            from . import attach

            return attach.run(options)
        case "run":
            from . import run

            return run.run(options)
    from . import service

    return service.run(options)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(-number)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program ``vmcoredd``. What a subcommand needs is imported when it runs: files need no bus."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .. import __version__, values
from ..errors import VmcoreddError
from .table import complain, discard_output, show

SUCCESS, FAILURE, USAGE = 0, 1, 2
INTERRUPTED = 130
"""What a shell reports for a program that SIGINT has ended."""
NOBODY_READS = 141
"""The same for SIGPIPE, which Python ignores."""


class UsageError(Exception):
    """The program was called in a way that cannot work."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status: 0, 1 when it failed, 2 for wrong usage. Says why in one line."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words[:1] == ["core-collector"]:
            # Its options are those of makedumpfile, --help included.
            from . import core_collector

            return core_collector.run(words[1:])
        return _run(_parser().parse_args(words))
    except SystemExit as stop:
        # --help and --version, whose output show() has printed.
        return int(stop.code or SUCCESS)
    except UsageError as error:
        complain(error)
        return USAGE
    except VmcoreddError as error:
        complain(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        discard_output()
        return NOBODY_READS
    except Exception as error:
        complain(f"internal error: {type(error).__name__}: {error}")
    return FAILURE


def _run(options: argparse.Namespace) -> int:
    if options.command in {"inspect", "extract"}:
        from . import files

        return files.run(options)
    if options.command == "attach":
        from . import attach

        return attach.run(options)
    if options.command == "run":
        from . import run

        return run.run(options)
    from . import service

    return service.run(options)


class _Parser(argparse.ArgumentParser):
    """Prints through :mod:`.table`, and says in one line what is wrong."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs, allow_abbrev=False)  # type: ignore[arg-type]

    def print_help(self, file: object = None) -> None:
        show(self.format_help())

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        show(f"{parser.prog} {__version__}\n")
        parser.exit()


def _parser() -> _Parser:
    parser = _Parser(prog="vmcoredd", description="Device dumps (NT_VMCOREDD notes) in the vmcore of a crash.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    bus = _Parser(add_help=False)
    bus.add_argument("--bus-address", metavar="ADDRESS", help="message bus, by default the system bus")
    json = _Parser(add_help=False)
    json.add_argument("--json", action="store_true", help="print JSON")

    add = _command(commands, "add", "add a device dump to the vmcore to be written", bus)
    add.add_argument("name", metavar="NAME", help="dump name, 1 to 43 characters of printable ASCII")
    add.add_argument("file", metavar="FILE", nargs="?", default="-", help="by default, or with -, standard input")
    add.add_argument("--size", type=_size, metavar="N", help="most bytes it may hold (K, M, G), by default FILE's")
    add.add_argument("--timeout", type=_seconds, metavar="SEC", help="seconds that reading FILE may take")
    _command(commands, "list", "list the service's device dumps", bus, json)
    _command(commands, "status", "show the state of the service", bus, json)
    _command(commands, "write", "write the vmcore now, and print its path", bus)
    remove = _command(commands, "remove", "remove a device dump", bus)
    remove.add_argument("name", metavar="NAME", help="dump name")

    run = _command(commands, "run", "run registered collectors: those named, or all that are enabled", bus, json)
    run.add_argument("collectors", metavar="COLLECTOR", nargs="*")
    run.add_argument("--timeout", type=_seconds, metavar="SEC", help="seconds for each, instead of its own")
    alone = run.add_mutually_exclusive_group()
    alone.add_argument("--list", action="store_true", help="only list what would be collected; needs no service")
    alone.add_argument("-o", "--output", type=Path, metavar="DIR", help="without the service: write files there")
    run.add_argument("--config", type=Path, metavar="FILE", help="of the service, for --list and --output")

    inspect = _command(commands, "inspect", "list and verify the device dumps in a vmcore", json)
    inspect.add_argument("vmcore", metavar="VMCORE")
    extract = _command(commands, "extract", "copy a device dump out of a vmcore")
    extract.add_argument("vmcore", metavar="VMCORE")
    extract.add_argument("dump", metavar="NAME|INDEX", help="digits are an index")
    extract.add_argument("-o", "--output", metavar="FILE", help="by default, or with -, standard output")
    attach = _command(commands, "attach", "put files into a finished vmcore, as device dumps")
    attach.add_argument("--stream", action="store_true", help="into a flattened vmcore, from stdin to stdout")
    attach.usage = "vmcoredd attach VMCORE NAME=FILE...\n       vmcoredd attach --stream NAME=FILE..."
    attach.add_argument(
        "arguments", metavar="[VMCORE] NAME=FILE...", nargs="+", help="not with --stream, FILE - is standard input"
    )
    collector = _command(commands, "core-collector", "makedumpfile, and the device dumps in what it writes")
    collector.usage = "vmcoredd core-collector [OPTIONS OF MAKEDUMPFILE] SOURCE DESTINATION"
    return parser


def _command(
    commands: "argparse._SubParsersAction[_Parser]", name: str, description: str, *parents: _Parser
) -> _Parser:
    summary = f"{description[0].upper()}{description[1:]}."
    return commands.add_parser(name, help=description, description=summary, parents=list(parents))


def _size(value: str) -> int:
    try:
        return values.size_above_0(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{value[:80]!a} is not {error}") from None


def _seconds(value: str) -> float:
    seconds = float(value) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) else 0.0
    if seconds == 0:
        raise argparse.ArgumentTypeError(f"{value[:80]!a} is not a time in seconds")
    return seconds

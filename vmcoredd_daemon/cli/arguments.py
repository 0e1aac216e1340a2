# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line of ``vmcoredd``: the one source of its ``--help``, which fits a screen of 80x24."""

import argparse
import re
from pathlib import Path
from typing import NoReturn, TypeAlias

from .. import __version__, values
from . import UsageError
from .console import show

MODES = ("short", "pretty", "off")
"""Of ``--json``; alone it is short, and pretty on a terminal, as systemd's ``-j``."""

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """Prints through :mod:`.console`, and says in one line what is wrong."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs, allow_abbrev=False, formatter_class=_Help)  # type: ignore[arg-type]

    def print_help(self, file: object = None) -> None:
        """Print the help on standard output. Raises WriteFailed."""
        show(self.format_help())

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message} (see {self.prog} --help)")


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=80)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # What is optional belongs to its option: --json VMCORE is the option alone, and a file.
        return super()._format_action_invocation(action).replace(" [MODE]", "[=MODE]")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        show(f"{parser.prog} {__version__}\n")
        parser.exit()


def parse(words: list[str]) -> argparse.Namespace:
    """Return what *words* say. Raises UsageError; raises SystemExit when it has printed what they ask for."""
    end = words.index("--") if "--" in words else len(words)
    options = ["--json=auto" if word == "--json" else word for word in words[:end]]
    try:
        return parser().parse_args([*options, *words[end:]])
    except UsageError as error:
        raise UsageError(str(error).replace("--json=auto", "--json")) from None


def parser() -> Parser:
    """Return the parser of the whole program."""
    main = Parser(
        prog="vmcoredd", usage="vmcoredd COMMAND ...", description="Device dumps in the vmcore of a crash."
    )
    main.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = main.add_subparsers(
        dest="command", metavar="COMMAND", required=True, title="commands", prog="vmcoredd"
    )
    _service_commands(commands, _bus(), _view(table=True), _view(table=False))
    _file_commands(commands, _view(table=True), _view(table=False))
    return main


def _bus() -> Parser:
    bus = Parser(add_help=False)
    bus.add_argument("--bus-address", metavar="ADDRESS", help="message bus, by default the system bus")
    return bus


def _view(*, table: bool) -> Parser:
    view = Parser(add_help=False)
    view.set_defaults(legend=True, full=False)
    json = "JSON: short, pretty or off"
    view.add_argument("--json", metavar="MODE", nargs="?", type=_mode, default="off", help=json)
    view.add_argument("-j", dest="json", action="store_const", const="auto", help=argparse.SUPPRESS)
    view.add_argument("--bytes", action="store_true", help="sizes in bytes")
    view.add_argument("--no-pager", dest="pager", action="store_false", help="do not pipe output into a pager")
    if table:
        view.add_argument("--no-legend", dest="legend", action="store_false", help="tables without a header")
        view.add_argument("-l", "--full", action="store_true", help="do not ellipsize")
    return view


def _service_commands(commands: Commands, bus: Parser, table: Parser, view: Parser) -> None:
    add = _command(commands, "add", "add a device dump to the vmcore to be written", bus)
    add.usage = "vmcoredd add [OPTIONS] NAME [FILE]"
    add.add_argument("name", metavar="NAME", help="dump name, 1 to 43 characters of printable ASCII")
    add.add_argument("file", metavar="FILE", nargs="?", default="-", help="by default, or with -, standard input")
    add.add_argument("--size", type=_size, metavar="N", help="most bytes it may hold (K, M, G), by default FILE's")
    add.add_argument("--timeout", type=_seconds, metavar="SEC", help="seconds that reading FILE may take")

    run = _command(commands, "run", "run registered collectors", bus, table)
    run.usage = "vmcoredd run [OPTIONS] [COLLECTOR...]"
    run.add_argument("collectors", metavar="COLLECTOR", nargs="*", help="by default all that are enabled")
    run.add_argument("--timeout", type=_seconds, metavar="SEC", help="seconds for each, instead of its own")
    alone = run.add_mutually_exclusive_group()
    alone.add_argument("--list", action="store_true", help="only list what would be collected; no service")
    alone.add_argument("-o", "--output", type=Path, metavar="DIR", help="without the service: write files there")
    run.add_argument("--config", type=Path, metavar="FILE", help="of the service, for --list and --output")

    _command(commands, "list", "list the service's device dumps", bus, table).usage = "vmcoredd list [OPTIONS]"
    _command(commands, "status", "show the state of the service", bus, view).usage = "vmcoredd status [OPTIONS]"
    _command(commands, "write", "write the vmcore now, and print its path", bus)
    remove = _command(commands, "remove", "remove a device dump", bus)
    remove.add_argument("name", metavar="NAME", help="dump name")


def _file_commands(commands: Commands, table: Parser, view: Parser) -> None:
    inspect = _command(commands, "inspect", "show a vmcore, and the device dumps in it", table)
    inspect.usage = "vmcoredd inspect [OPTIONS] VMCORE"
    inspect.add_argument("vmcore", metavar="VMCORE", help="ELF, kdump-compressed or flattened")
    inspect.add_argument("--map", action="store_true", help="draw what lies where in the file")

    verify = _command(commands, "verify", "check a vmcore, and what crash and makedumpfile do with it", view)
    verify.usage = "vmcoredd verify [OPTIONS] VMCORE"
    verify.add_argument("vmcore", metavar="VMCORE", help="ELF, kdump-compressed or flattened")

    extract = _command(commands, "extract", "copy device dumps out of a vmcore")
    extract.usage = "vmcoredd extract VMCORE NAME|INDEX [-o FILE]\n       vmcoredd extract VMCORE --all DIR"
    extract.add_argument("vmcore", metavar="VMCORE", help="ELF, kdump-compressed or flattened")
    extract.add_argument("dump", metavar="NAME|INDEX", nargs="?", help="digits are an index")
    where = extract.add_mutually_exclusive_group()
    where.add_argument("-o", "--output", metavar="FILE", help="by default, or with -, standard output")
    where.add_argument("--all", type=Path, metavar="DIR", help="all device dumps, each into a file of its name")

    attach = _command(commands, "attach", "put files into a finished vmcore, as device dumps")
    attach.add_argument("--stream", action="store_true", help="into a flattened vmcore, from stdin to stdout")
    attach.usage = "vmcoredd attach VMCORE NAME=FILE...\n       vmcoredd attach --stream NAME=FILE..."
    attach.add_argument(
        "arguments",
        metavar="[VMCORE] NAME=FILE...",
        nargs="+",
        help="or files of the spool, *.note; not with --stream, FILE - is standard input",
    )
    collector = _command(commands, "core-collector", "makedumpfile, and device dumps in what it writes")
    collector.usage = "vmcoredd core-collector [OPTIONS OF MAKEDUMPFILE] SOURCE DESTINATION"


def _command(commands: Commands, name: str, description: str, *parents: Parser) -> Parser:
    summary = f"{description[0].upper()}{description[1:]}."
    return commands.add_parser(name, help=description, description=summary, parents=list(parents))


def _mode(value: str) -> str:
    if value not in (*MODES, "auto"):
        raise argparse.ArgumentTypeError(f"{value[:80]!a} is not {', '.join(MODES[:-1])} or {MODES[-1]}")
    return value


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

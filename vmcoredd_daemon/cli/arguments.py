# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line of ``vmcoredd``, and so its ``--help``, which fits 80 columns."""

import argparse
import re
import time
from collections.abc import Iterable, Mapping
from functools import partial
from textwrap import fill
from types import MappingProxyType
from typing import NoReturn, TypeAlias

from .. import __version__
from ..config import values
from ..errors import InvalidArgs
from ..manifest import check_kind
from ..terminal.exit import UsageError
from ..terminal.parser import (
    PYTHON_VERSION,
    Parser,
    Version,
    help_width,
    library_versions,
    parse_command,
    path,
    path_as_given,
)
from ..terminal.view import View
from .core_collector.makedumpfile import CORE_COLLECTOR
from .json_objects import VERSION
from .timestamps import timestamp

MODES = ("short", "pretty", "lines", "off")
"""Of ``--json``; without a value: pretty on a terminal, else short, as systemd's ``-j``."""

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Prepare for a crash": ("check",),
        "Read vmcores": ("crashes", "inspect", "show", "report", "diff", "verify", "extract"),
        "Add to a vmcore": ("attach", CORE_COLLECTOR, "resolve"),
        "Talk to the service": ("add", "run", "list", "status", "write", "remove"),
    }
)
"""The commands as ``--help`` lists them."""

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def parse(words: list[str]) -> argparse.Namespace:
    """Parse *words*. Raises UsageError; raises SystemExit after --help or --version."""
    main, commands = _parsers()
    if "--version" in words and (mode := _json_of_version(words)) is not None:
        _show_version(mode)
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    options = parse_command(main, commands.choices, words)
    if options.command == CORE_COLLECTOR:
        raise UsageError(f"{CORE_COLLECTOR} must be the first word: all others are for makedumpfile")
    return options


def parser() -> Parser:
    """Return the parser of the complete program."""
    return _parsers()[0]


def parser_of(command: str) -> Parser:
    """Return the parser of one command."""
    return _parsers()[1].choices[command]


def _parsers() -> tuple[Parser, Commands]:
    main = _Main(prog="vmcoredd", usage="vmcoredd COMMAND ...")
    main.add_argument("--version", action=Version, nargs=0, help="print the version")
    commands = main.add_subparsers(
        dest="command", metavar="COMMAND", required=True, title="commands", prog="vmcoredd", parser_class=Parser
    )
    _check(commands, _view(table=True))
    _service_commands(commands, _bus(), _view(table=True), _view(table=False))
    _file_commands(commands, _view(table=True), _view(table=False))
    main.summaries = {action.dest: action.help or "" for action in commands._choices_actions}
    return main, commands


def _json_of_version(words: list[str]) -> str | None:
    """Return the mode of ``--json`` if all *words* are ``--version --json``, in any order."""
    modes = {"-j": "auto", "--json": "auto"} | {f"--json={mode}": mode for mode in MODES[:-1]}
    others = [word for word in words if word != "--version"]
    return modes.get(others[0]) if len(others) == 1 else None


def _show_version(mode: str) -> NoReturn:
    versions = {"vmcoredd": __version__, "json": VERSION, "python": PYTHON_VERSION}
    View(json=mode).show_json({**versions, "libraries": library_versions()})
    raise SystemExit(0)


class _Main(Parser):
    """The program without a command: its help has the commands in groups, as systemctl(1) does."""

    summaries: Mapping[str, str] = MappingProxyType({})
    """Of the commands, one line each."""

    def format_help(self) -> str:
        """Return the help."""
        column = max(map(len, self.summaries)) + 4
        wrapped = partial(fill, width=help_width(), subsequent_indent=" " * column)
        text = "vmcoredd COMMAND [OPTIONS] ...\n\nDevice dumps in the vmcore of a crash.\n"
        for title, names in GROUPS.items():
            text += f"\n{title}:\n"
            text += "".join(wrapped(f"  {name:{column - 2}}{self.summaries[name]}") + "\n" for name in names)
        return (
            text
            + "\n"
            + fill("See vmcoredd COMMAND --help, and the manual page vmcoredd(1).", help_width())
            + "\n"
        )

    def error(self, message: str) -> NoReturn:
        """Raise UsageError; for a word that is no command, with the command that is most like it."""
        if found := re.match(r"argument COMMAND: invalid choice: (.*) \(choose from", message):
            # Imported late: few words are wrong.
            from difflib import get_close_matches

            word = found[1].strip("'\"")
            like = get_close_matches(word, self.summaries, 1)
            message = f"there is no command {word}" + (f", did you mean {like[0]}?" if like else "")
        super().error(message)


def _bus() -> Parser:
    bus = Parser(add_help=False)
    bus.add_argument("--bus-address", metavar="ADDRESS", help="message bus, by default the system bus")
    return bus


def _view(*, table: bool) -> Parser:
    view = Parser(add_help=False)
    view.set_defaults(legend=True, full=False)
    json = "JSON: short, pretty, lines or off"
    view.add_argument("--json", metavar="MODE", nargs="?", type=_mode, const="auto", default="off", help=json)
    view.add_argument("-j", dest="json", action="store_const", const="auto", help=argparse.SUPPRESS)
    view.add_argument("--bytes", action="store_true", help="sizes in bytes")
    view.add_argument("--no-pager", dest="pager", action="store_false", help="do not pipe output into a pager")
    if table:
        view.add_argument("--no-legend", dest="legend", action="store_false", help="tables without a header")
        view.add_argument("-l", "--full", action="store_true", help="do not ellipsize")
    return view


def _check(commands: Commands, table: Parser) -> None:
    what = "check whether a panic would give a vmcore with device dumps"
    check = _command(commands, "check", what, [""], table)
    check.add_argument("--root", type=path, metavar="DIR", default="/", help="of the system, by default this one")
    image = "of the capture kernel, if dracut has made one for vmcoredd, by default /boot/vmcoredd.img"
    check.add_argument("--initramfs", type=path, metavar="FILE", help=image)


def _service_commands(commands: Commands, bus: Parser, table: Parser, view: Parser) -> None:
    add = _command(commands, "add", "add a device dump to the vmcore to be written", ["NAME [FILE]"], bus)
    add.add_argument("name", metavar="NAME", help="dump name, 1 to 43 characters of printable ASCII")
    add.add_argument("file", metavar="FILE", nargs="?", default="-", help="by default, or with -, standard input")
    add.add_argument("--size", type=_size, metavar="N", help="most bytes it may hold (K, M, G), by default FILE's")
    add.add_argument("--timeout", type=_seconds, metavar="SEC", help="seconds that reading FILE may take")
    add.add_argument(
        "--kind", type=_kind, metavar="NAME/VERSION", default="", help="format of the data, for decoders"
    )
    add.add_argument("--keep-size", action="store_true", help="N bytes in the vmcore, too, even if FILE has fewer")

    run = _command(commands, "run", "run registered collectors", ["[COLLECTOR...]"], bus, table)
    run.add_argument("collectors", metavar="COLLECTOR", nargs="*", help="by default all that are enabled")
    run.add_argument("--timeout", type=_seconds, metavar="SEC", help="seconds for each, instead of its own")
    alone = run.add_mutually_exclusive_group()
    alone.add_argument("--list", action="store_true", help="list what would be collected; needs no service")
    alone.add_argument(
        "-o", "--output", type=path, metavar="DIR", help="run without the service, write files there"
    )
    run.add_argument("--config", type=path, metavar="FILE", help="of the service, for --list and --output")

    _command(commands, "list", "list the service's device dumps", [""], bus, table)
    _command(commands, "status", "show the state of the service", [""], bus, view)
    _command(commands, "write", "write the vmcore now, and print its path", [""], bus)
    remove = _command(commands, "remove", "remove a device dump", ["NAME"], bus)
    remove.add_argument("name", metavar="NAME", help="dump name")


def _file_commands(commands: Commands, table: Parser, view: Parser) -> None:
    vmcore = Parser(add_help=False)
    kinds = "ELF, kdump-compressed or flattened, also in gzip or such"
    vmcore.add_argument("vmcore", metavar="VMCORE", help=kinds)
    vmcores = Parser(add_help=False)
    vmcores.add_argument("vmcores", metavar="VMCORE", nargs="+", help=f"{kinds}, or a directory")
    inspect = _command(commands, "inspect", "show vmcores and their device dumps", ["VMCORE..."], vmcores, table)
    inspect.add_argument("--map", action="store_true", help="draw a map of one VMCORE")

    what = "show what the device dumps of a vmcore say"
    show = _command(commands, "show", what, ["VMCORE [NAME|INDEX|GLOB[/MEMBER]...]"], vmcore, table)
    show.add_argument("names", metavar="NAME|INDEX|GLOB[/MEMBER]", nargs="*", help="by default one line for each")
    data = show.add_mutually_exclusive_group()
    data.add_argument("--hex", action="store_true", help="the data in hexadecimal")
    data.add_argument("--raw", action="store_true", help="the data themselves")
    show.add_argument(
        "--config", type=path, metavar="FILE", help="vmcoredd.conf, beside which collectors.d has decoders"
    )

    what = "make a page for a support ticket of a vmcore"
    report = _command(commands, "report", what, ["VMCORE", "VMCORE... -C DIR"], vmcores)
    page = "HTML; by default, or with -, on standard output"
    pages = report.add_mutually_exclusive_group()
    pages.add_argument("-o", "--output", type=path_as_given, default="-", metavar="FILE", help=page)
    pages.add_argument(
        "-C", "--directory", type=path, metavar="DIR", help="a page for each, of its directory's name"
    )
    private = "leave out host names, serial numbers, and the like"
    report.add_argument("--redact", action="store_true", help=private)
    report.add_argument(
        "--config", type=path, metavar="FILE", help="vmcoredd.conf, beside which collectors.d has decoders"
    )

    what = "check a vmcore, and what crash and makedumpfile do with it"
    _command(commands, "verify", what, ["VMCORE..."], vmcores, view)
    _crashes(commands, table)
    what = "show which device dumps of two vmcores differ"
    diff = _command(commands, "diff", what, ["VMCORE VMCORE"], table)
    diff.add_argument("before", metavar="VMCORE", help="the first one")
    diff.add_argument("after", metavar="VMCORE", help="the other one")
    diff.add_argument(
        "--config", type=path, metavar="FILE", help="vmcoredd.conf, beside which collectors.d has decoders"
    )

    usages = ["VMCORE NAME|INDEX", "VMCORE NAME|INDEX|GLOB... -C DIR", "VMCORE --all DIR"]
    extract = _command(commands, "extract", "copy device dumps out of a vmcore", usages, vmcore)
    extract.add_argument("dumps", metavar="NAME|INDEX|GLOB", nargs="*", help="digits are an index")
    where = extract.add_mutually_exclusive_group()
    where.add_argument(
        "-o",
        "--output",
        type=path_as_given,
        default="-",
        metavar="FILE",
        help="by default, or with -, standard output",
    )
    where.add_argument("--all", type=path, metavar="DIR", help="extract all, each to a file of its name")
    where.add_argument("-C", "--directory", type=path, metavar="DIR", help="each to a file of its name")
    extract.add_argument("--unpack", action="store_true", help="archives become directories")
    extract.add_argument("--no-colons", dest="colons", action="store_false", help="file names without colons")

    usages = ["VMCORE NAME=FILE...", "--stream NAME=FILE..."]
    attach = _command(commands, "attach", "add files to a finished vmcore, as device dumps", usages)
    attach.add_argument("--stream", action="store_true", help="into a flattened vmcore, from stdin to stdout")
    attach.add_argument("--force", action="store_true", help="also to a kdump-compressed file that was cut off")
    attach.add_argument(
        "arguments",
        metavar="[VMCORE] NAME=FILE...",
        nargs="+",
        help="or *.note of the spool; FILE - is standard input, not with --stream",
    )
    _core_collector(commands)
    what = "put what crashes have left in the spool into their vmcores"
    resolve = _command(commands, "resolve", what, ["[VMCORE|DIR...]"])
    known = "by default where the service and kdump-tools save them"
    resolve.add_argument("vmcores", metavar="VMCORE|DIR", nargs="*", help=known)
    resolve.add_argument("--config", type=path, metavar="FILE", help="of the service")


def _crashes(commands: Commands, table: Parser) -> None:
    crashes = _command(commands, "crashes", "list the vmcores of crashes", ["[VMCORE|DIR...]"], table)
    crashes.add_argument("vmcores", metavar="VMCORE|DIR", nargs="*", help="by default Target= of the service")
    crashes.add_argument("--since", type=_timestamp, metavar="TIME", help="not older: 2026-11-24 10:20, today")
    crashes.add_argument("--until", type=_timestamp, metavar="TIME", help="not newer")
    crashes.add_argument("--host", metavar="GLOB", help="of hosts with such a name")
    crashes.add_argument("--dump", metavar="GLOB", help="with a device dump of such a name")
    crashes.add_argument("-1", dest="newest", action="store_true", help="the newest only")
    crashes.add_argument("-r", "--reverse", action="store_true", help="the newest first")
    crashes.add_argument("--config", type=path, metavar="FILE", help="of the service")


def _core_collector(commands: Commands) -> None:
    """Add the command, only for its help: makedumpfile.py parses its arguments."""
    what = "run makedumpfile, and add device dumps to its output"
    collector = _command(commands, CORE_COLLECTOR, what, ["SOURCE DESTINATION"])
    time = "seconds for all device dumps together, by default 60"
    collector.add_argument("--vmcoredd-timeout=", metavar="SEC", help=time)
    collector.add_argument("--vmcoredd-config=", metavar="FILE", help="configuration of the service")
    what = "its spool, if the one that it configures has nothing of this boot"
    collector.add_argument("--vmcoredd-spool=", metavar="DIRECTORY", help=what)
    collector.add_argument("--vmcoredd-bus-address=", metavar="ADDRESS", help="message bus")
    what = "descriptor for vmcoredd-core-collector(8)"
    collector.add_argument("--vmcoredd-handshake=", metavar="FD", help=what)


def _command(commands: Commands, name: str, description: str, usages: Iterable[str], *parents: Parser) -> Parser:
    summary = f"{description[0].upper()}{description[1:]}."
    usage = "\n       ".join(f"vmcoredd {name} [OPTIONS] {usage}".rstrip() for usage in usages)
    command = commands.add_parser(name, help=description, description=summary, usage=usage, parents=list(parents))
    command.add_argument("--version", action=Version, nargs=0, help=argparse.SUPPRESS)
    return command


def _mode(value: str) -> str:
    if value not in (*MODES, "auto"):
        raise argparse.ArgumentTypeError(f"{value[:80]!a} is not {', '.join(MODES[:-1])} or {MODES[-1]}")
    return value


def _kind(value: str) -> str:
    try:
        check_kind(value)
    except InvalidArgs as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return value


def _size(value: str) -> int:
    try:
        return values.size_above_0(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{value[:80]!a} is not {error}") from None


def _timestamp(value: str) -> float:
    try:
        return timestamp(value, time.time())
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{value[:80]!a} is not {error}") from None


def _seconds(value: str) -> float:
    seconds = float(value) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) else 0.0
    if seconds == 0:
        raise argparse.ArgumentTypeError(f"{value[:80]!a} is not a time in seconds")
    return seconds

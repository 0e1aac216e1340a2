# SPDX-License-Identifier: LGPL-2.1-or-later
"""Command lines as of systemd's tools: options anywhere, as getopt_long(3) takes them, and one-line errors."""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from .. import __version__
from .exit import UsageError
from .stdio import show

PYTHON_VERSION = ".".join(map(str, sys.version_info[:3]))
LIBRARIES = ("dbus-next", "pyelftools", "systemd-python")
"""As PyPI names them."""


class Parser(argparse.ArgumentParser):
    """Prints through :mod:`.stdio`, and raises UsageError."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs, allow_abbrev=False, formatter_class=_Help)  # type: ignore[arg-type]
        # Help and messages are the same with each Python: 3.14 colours the one, 3.15 has guesses in the other.
        self.color = self.suggest_on_error = False

    def print_help(self, file: object = None) -> None:
        """Print the help on standard output. Raises WriteFailed."""
        show(self.format_help())

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message} (see {self.prog} --help)")


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        width = help_width()
        super().__init__(prog, max_help_position=min(26, width // 2), width=width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # An optional value takes an equals sign: in --json VMCORE the second word is a file.
        return super()._format_action_invocation(action).replace(" [MODE]", "[=MODE]").replace("= ", "=")


def help_width() -> int:
    """Return the characters of a line of help: those of the terminal, 80 at most and if there is none."""
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout is not None else 0
    except OSError:
        columns = 0
    # A serial console says 0.
    return min(columns, 80) or 80


class Version(argparse.Action):
    """Prints the version of the program, and of what it runs with."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print it on standard output. Raises WriteFailed."""
        libraries = "".join(f", {name} {version}" for name, version in library_versions().items())
        show(f"{parser.prog.split()[0]} {__version__}\nPython {PYTHON_VERSION}{libraries}\n")
        parser.exit()


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed: an initramfs does not say, a reader has not all."""
    # Imported late: it takes time and memory.
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def parse_command(main: Parser, commands: Mapping[str, Parser], words: list[str]) -> argparse.Namespace:
    """Parse *words* by *main*, or by one of its *commands*. Options may stand anywhere.

    Raises UsageError; raises SystemExit after --help or --version.
    """
    known = {name: option for each in (main, *commands.values()) for name, option in _options(each)}
    options, arguments = _permuted(words, known)
    command = commands.get(arguments[0]) if arguments else None
    if command is None:
        return main.parse_args([*(word for option in options for word in option), *arguments[:1]])
    own = dict(_options(command))
    wrong = [option[0] for option in options if _option_name(option[0]) not in own]
    right = [word for option in options for word in option if _option_name(option[0]) in own]
    # Options first: argparse takes an optional argument for missing if an option comes before it.
    given = argparse.Namespace(command=arguments[0])
    parsed, left = command.parse_known_args([*right, "--", *arguments[1:]], given)
    wrong += [word for word in left if word != "--"]
    if wrong:
        command.error(f"unrecognized arguments: {' '.join(wrong)}")
    return parsed


def _options(parser: Parser) -> Iterable[tuple[str, argparse.Action]]:
    return parser._option_string_actions.items()


def _permuted(words: list[str], known: Mapping[str, argparse.Action]) -> tuple[list[list[str]], list[str]]:
    """Return the options among *words*, each with the word that is its value, and the arguments."""
    options: list[list[str]] = []
    arguments: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return options, [*arguments, *rest]
        if not word.startswith("-") or word == "-":
            arguments.append(word)
            continue
        options.append([word])
        if rest and _wants_value(word, known):
            options[-1].append(rest.pop(0))
    return options, arguments


def _wants_value(word: str, known: Mapping[str, argparse.Action]) -> bool:
    """Return whether the next word is the value of the option *word*, or of the last of its letters."""
    if word.startswith("--"):
        return word in known and known[word].nargs is None
    for position, letter in enumerate(word[1:], 2):
        option = known.get(f"-{letter}")
        if option is None or option.nargs is None:
            return option is not None and position == len(word)
    return False


def _option_name(word: str) -> str:
    return word.partition("=")[0] if word.startswith("--") else word[:2]


def path(value: str) -> Path:
    """Parse the path of an option. An empty one is refused: it would be the working directory."""
    if not value:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(value)


def path_as_given(value: str) -> str:
    """Parse a path, kept as text because ``-`` is not ``./-``."""
    path(value)
    return value

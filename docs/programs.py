# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command lines of the programs, as their argument parsers have them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping

from vmcoredd_daemon.cli import arguments as arguments_of_vmcoredd
from vmcoredd_daemon.service import program


def vmcoredd() -> argparse.ArgumentParser:
    """Return the parser of vmcoredd."""
    return arguments_of_vmcoredd.parser()


def daemon() -> argparse.ArgumentParser:
    """Return the parser of vmcoredd-daemon."""
    return program.parser()


def commands() -> Mapping[str, argparse.ArgumentParser]:
    """Return the parsers of vmcoredd's subcommands, by name."""
    for action in vmcoredd()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    raise LookupError("vmcoredd has no subcommands")


def common_options() -> dict[tuple[str, ...], argparse.Action]:
    """Return the options that at least four subcommands have, with the same meaning, by their names."""
    all_options = [option for parser in commands().values() for option in options(parser)]
    found = {tuple(option.option_strings): option for option in all_options if option.dest != "help"}
    return {
        names: option
        for names, option in found.items()
        if sum((each.option_strings, each.help) == (list(names), option.help) for each in all_options) >= 4
    }


def options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the options of a parser that are documented."""
    for action in parser._actions:
        if action.option_strings and action.help is not argparse.SUPPRESS:
            yield action


def arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the positional arguments of a parser."""
    for action in parser._actions:
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction):
            yield action


def value(action: argparse.Action) -> str:
    """Return what stands for the value of an option in a manual page, empty where it has none."""
    if action.nargs == 0:
        return ""
    return str(action.metavar or action.dest.upper())

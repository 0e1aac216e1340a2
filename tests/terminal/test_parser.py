# SPDX-License-Identifier: LGPL-2.1-or-later
"""Options anywhere among the arguments, as getopt_long(3) has it; what is wrong, in one line."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from docs import programs
from tests.lib.vmcoredd import run
from vmcoredd_daemon import __version__
from vmcoredd_daemon.cli.arguments import parse
from vmcoredd_daemon.terminal.exit import UsageError

COMMAND_LINES = {
    "add": ([["add"], ["nic"], ["-"]], [["--size", "1M"], ["--timeout=3"], ["--bus-address", "ADDRESS"]]),
    "run": ([["run"], ["pci"], ["nvme"]], [["--timeout", "3"], ["-o", "directory"], ["--json"]]),
    "remove": ([["remove"], ["nic"]], [["--bus-address", "ADDRESS"]]),
    "inspect": ([["inspect"], ["vmcore"]], [["--json=short"], ["-l"], ["--map"]]),
    "show": ([["show"], ["vmcore"], ["a"], ["b/c"]], [["--json"], ["--config", "c"]]),
    "report": ([["report"], ["vmcore"]], [["-o", "page"], ["--redact"]]),
    "verify": ([["verify"], ["vmcore"], ["b"]], [["--json"], ["--bytes"]]),
    "diff": ([["diff"], ["a"], ["b"]], [["--json"], ["--config", "c"], ["-l"]]),
    "crashes": ([["crashes"], ["a"], ["b"]], [["-1"], ["--since", "@5"], ["--host=*"], ["-r"]]),
    "extract": ([["extract"], ["vmcore"], ["0"]], [["-o", "-"]]),
    "extract --all": ([["extract"], ["vmcore"]], [["--all", "directory"]]),
    "attach": ([["attach"], ["vmcore"], ["a=b"], ["c=d"]], [["--stream"]]),
}
"""The arguments, which stay in their order, and options, which come anywhere."""


def parsed(*groups: list[str]) -> dict[str, Any]:
    return vars(parse([word for group in groups for word in group]))


def orders(arguments: list[list[str]], options: list[list[str]]) -> list[tuple[list[str], ...]]:
    every = itertools.permutations([*arguments, *options])
    return [order for order in every if [group for group in order if group in arguments] == arguments]


@pytest.mark.parametrize("name", COMMAND_LINES)
def test_options_in_every_order(name: str) -> None:
    arguments, options = COMMAND_LINES[name]
    expected = parsed(*arguments[:1], *options, *arguments[1:])
    found = orders(arguments, options)
    assert len(found) > 1
    for order in found:
        assert parsed(*order) == expected, order


def test_every_command_is_here() -> None:
    commands = {words[0][0] for words, _ in COMMAND_LINES.values()}
    assert {*commands, "check", "list", "resolve", "status", "write", "core-collector"} == set(programs.commands())


def test_an_option_has_a_value_in_all_commands_or_in_none() -> None:
    """So that the command can be told behind options."""
    found: dict[str, set[object]] = {}
    for command in programs.commands().values():
        for action in programs.options(command):
            for option in action.option_strings:
                found.setdefault(option, set()).add(action.nargs)
    assert {option: values for option, values in found.items() if len(values) > 1} == {}


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["extract", "vmcore", "--", "-o"], "dumps", ["-o"]),
        (["extract", "--", "vmcore", "--all"], "dumps", ["--all"]),
        (["--", "extract", "vmcore", "-1"], "dumps", ["-1"]),
        (["extract", "vmcore", ""], "dumps", [""]),
        (["extract", "vmcore", "0", "-ooutput"], "output", "output"),
        (["extract", "vmcore", "0", "-o", "./-"], "output", "./-"),
        (["extract", "vmcore", "0"], "output", "-"),
        (["-lo", "directory", "run"], "output", Path("directory")),
        (["-jl", "list"], "json", "auto"),
        (["list", "-lj"], "full", True),
        (["list"], "json", "off"),
        (["--json", "list"], "json", "auto"),
        (["add", "--size", "1", "--size=2K", "nic"], "size", 2048),
        (["crashes", "--until=2026-11-24 10:20"], "until", 1795515600.0),
    ],
)
def test_what_is_said(words: list[str], name: str, value: object) -> None:
    assert parsed(words)[name] == value


@pytest.mark.parametrize(
    ("words", "reason", "command"),
    [
        (["list", "nic"], "unrecognized arguments: nic", "list"),
        (["list", "--", "-x"], "unrecognized arguments: -x", "list"),
        (["inspect", "--nonsense", "x", "y"], "unrecognized arguments: --nonsense", "inspect"),
        (["--size", "1M", "inspect", "vmcore"], "unrecognized arguments: --size", "inspect"),
        (["extract", "vmcore", "-1"], "unrecognized arguments: -1", "extract"),
        (["--json", "core-collector", "a", "b"], "unrecognized arguments: --json a b", "core-collector"),
        (["add", "nic", "--size"], "argument --size: expected one argument", "add"),
        (["list", "--full=yes"], "argument -l/--full: ignored explicit argument 'yes'", "list"),
        (["inspect"], "the following arguments are required: VMCORE", "inspect"),
        (["-l"], "the following arguments are required: COMMAND", ""),
        (["run", "--list", "-o", "out"], "argument -o/--output: not allowed with argument --list", "run"),
        (["run", "-o", ""], "argument -o/--output: the path is empty", "run"),
        (["run", "--config=", "-l"], "argument --config: the path is empty", "run"),
        (["extract", "vmcore", "--all", ""], "argument --all: the path is empty", "extract"),
        (["extract", "vmcore", "0", "-o", ""], "argument -o/--output: the path is empty", "extract"),
    ],
)
def test_what_is_wrong(words: list[str], reason: str, command: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert str(caught.value) == f"{reason} (see {' '.join(filter(None, ['vmcoredd', command]))} --help)"


def test_core_collector_is_the_first_word() -> None:
    with pytest.raises(UsageError, match="core-collector must be the first word"):
        parse(["--", "core-collector"])


@pytest.mark.parametrize("words", [["--version"], ["list", "--version"], ["--version", "list"]])
def test_version_anywhere(words: list[str]) -> None:
    assert run(*words).stdout.splitlines()[0] == f"vmcoredd {__version__}"


@pytest.mark.parametrize("name", sorted(programs.commands()))
def test_usage_lines_are_alike(name: str) -> None:
    usage = programs.commands()[name].format_usage()
    lines = usage.removeprefix("usage: ").rstrip().split("\n")
    assert all(line.lstrip().startswith(f"vmcoredd {name} [OPTIONS]") for line in lines)
    if name != "core-collector":
        assert run("--help", name).stdout.startswith("usage: vmcoredd ")

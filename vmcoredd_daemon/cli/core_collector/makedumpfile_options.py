# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a command line of makedumpfile asks for: what is read, what is written, and whether that is one dump.

As getopt_long(3) reads it, with the options of ``main()`` in makedumpfile.c up to version 1.7.9: operands may
stand before options, and long options may be abbreviated. Our own options stand among them:
``--vmcoredd-NAME=VALUE``.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

OWN_PREFIX = "--vmcoredd-"
OWN_OPTIONS = ("config", "bus-address", "timeout")
PROGRAM = "makedumpfile"

_SHORT = "b:cDd:eEFfg:hi:lL:pRvXx:z"
_LONG = {
    "split": False,
    "reassemble": False,
    "xen-syms": True,
    "xen-vmcoreinfo": True,
    "xen_phys_start": True,
    "message-level": True,
    "vtop": True,
    "dump-dmesg": False,
    "partial-dmesg": False,
    "config": True,
    "help": False,
    "diskset": True,
    "cyclic-buffer": True,
    "eppic": True,
    "non-mmap": False,
    "mem-usage": False,
    "splitblock-size": True,
    "work-dir": True,
    "num-threads": True,
    "check-params": False,
    "dry-run": False,
    "show-stats": False,
    "extension": True,
}
"""Whether each has an argument."""

_LONG_NO_DUMP = ("split", "reassemble", "dump-dmesg", "partial-dmesg", "help", "diskset", "mem-usage")
_NO_DUMP = frozenset({*"ghRv", *_LONG_NO_DUMP, "check-params", "dry-run"})
"""Options with which no dump is written, or several, or one that is made of something else."""


@dataclass(slots=True)
class Call:
    """A command line."""

    program: str = PROGRAM
    arguments: list[str] = field(default_factory=list)
    """Those of makedumpfile, in their order."""
    own: dict[str, str] = field(default_factory=dict)
    """Ours, by name."""
    problems: list[str] = field(default_factory=list)
    """What is wrong with ours, each in one line."""
    options: set[str] = field(default_factory=set)
    operands: list[str] = field(default_factory=list)
    unknown: str = ""
    """An option that makedumpfile may know, but not we."""

    @property
    def flattened(self) -> bool:
        """Whether standard output is the dump."""
        return "F" in self.options

    @property
    def writes_a_dump(self) -> bool:
        """Whether one dump is what comes of it."""
        count = 1 if self.flattened else 2
        return not self.unknown and not self.options & _NO_DUMP and len(self.operands) == count


def parse(arguments: Sequence[str]) -> Call:
    """Read *arguments*, of which the first may be the program, by its name or path."""
    call = Call()
    rest = list(arguments)
    while rest and rest[0].startswith(OWN_PREFIX):
        _own(call, rest.pop(0))
    if rest and os.path.basename(rest[0]) == PROGRAM:
        call.program = rest.pop(0)
    while rest:
        argument = rest.pop(0)
        if argument.startswith(OWN_PREFIX):
            _own(call, argument)
            continue
        call.arguments.append(argument)
        if argument == "--":
            call.arguments += rest
            call.operands += rest
            break
        if argument.startswith("--"):
            wants_more = _long(call, argument)
        elif argument.startswith("-") and argument != "-":
            wants_more = _short(call, argument)
        else:
            call.operands.append(argument)
            wants_more = False
        if wants_more and rest:
            call.arguments.append(rest.pop(0))
    return call


def _own(call: Call, argument: str) -> None:
    name, separator, value = argument.removeprefix(OWN_PREFIX).partition("=")
    if name in OWN_OPTIONS and separator and value:
        call.own[name] = value
    else:
        call.problems.append(
            f"{argument[:80]!a} is left out: it is not --vmcoredd-{{{','.join(OWN_OPTIONS)}}}=VALUE"
        )


def _long(call: Call, argument: str) -> bool:
    """Take note of a long option; return whether the next word is its argument."""
    name, separator, _ = argument[2:].partition("=")
    found = [name] if name in _LONG else [known for known in _LONG if known.startswith(name)]
    if len(found) != 1:
        call.unknown = call.unknown or argument
        return False
    call.options.add(found[0])
    return _LONG[found[0]] and not separator


def _short(call: Call, argument: str) -> bool:
    """Take note of short options; return whether the next word is the argument of the last one."""
    for position, letter in enumerate(argument[1:], 2):
        place = -1 if letter == ":" else _SHORT.find(letter)
        if place < 0:
            call.unknown = call.unknown or argument
            return False
        call.options.add(letter)
        if _SHORT[place + 1 : place + 2] == ":":
            return position == len(argument)
    return False


CORE_COLLECTOR = "core-collector"

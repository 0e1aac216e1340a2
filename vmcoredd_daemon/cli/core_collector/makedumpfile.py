# SPDX-License-Identifier: LGPL-2.1-or-later
"""makedumpfile: what its command line asks for, and how it is started and waited for.

The command line is read as getopt_long(3) reads it, with the options of ``main()`` in makedumpfile.c up to version
1.7.9: operands may stand before options, and long options may be abbreviated. Our own options stand among them:
``--vmcoredd-NAME=VALUE``.
"""

import errno
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from ...errors import VmcoreddError
from ...terminal.stdio import complain

CORE_COLLECTOR = "core-collector"
"""The subcommand."""
OWN_PREFIX = "--vmcoredd-"
OWN_OPTIONS = ("config", "spool", "bus-address", "timeout", "handshake")
HANDSHAKE = f"{OWN_PREFIX}handshake="
"""``systemd/vmcoredd-core-collector`` gives this one; what it is told there says how far we are."""
PROGRAM = "makedumpfile"

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""What a shell reports for a program that is missing, or is not executable."""
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)

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
"""Options with which makedumpfile writes no dump, several, or one that is made of other dumps."""


@dataclass(slots=True)
class Call:
    """A command line."""

    program: str = PROGRAM
    arguments: list[str] = field(default_factory=list)
    """Those of makedumpfile, in order."""
    own: dict[str, str] = field(default_factory=dict)
    """Ours, by name."""
    problems: list[str] = field(default_factory=list)
    """What is wrong with our options, one line each."""
    options: set[str] = field(default_factory=set)
    operands: list[str] = field(default_factory=list)
    unknown: str = ""
    """The first option that is not in our table; makedumpfile may know it."""

    @property
    def flattened(self) -> bool:
        """Whether standard output is the dump."""
        return "F" in self.options

    @property
    def writes_a_dump(self) -> bool:
        """Whether it writes exactly one dump."""
        count = 1 if self.flattened else 2
        return not self.unknown and not self.options & _NO_DUMP and len(self.operands) == count

    @property
    def handshake(self) -> int:
        """Descriptor of what is told how far we are; -1 if there is none."""
        text = self.own.get("handshake", "")
        return int(text) if text.isdecimal() and len(text) < 5 and int(text) > 2 else -1

    def tell(self, line: str) -> None:
        """Write a line to the handshake's descriptor, if there is one. What reads it may have ended."""
        with suppress(OSError):
            os.write(self.handshake, f"{line}\n".encode("ascii"))

    def hang_up(self) -> None:
        """Close the handshake's descriptor."""
        with suppress(OSError):
            os.close(self.handshake)
        # Another file may get its number.
        self.own.pop("handshake", None)


def parse(arguments: Sequence[str]) -> Call:
    """Parse *arguments*; the first may be the program, by name or path."""
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
            takes_value = _long(call, argument)
        elif argument.startswith("-") and argument != "-":
            takes_value = _short(call, argument)
        else:
            call.operands.append(argument)
            takes_value = False
        if takes_value and rest:
            call.arguments.append(rest.pop(0))
    return call


def _own(call: Call, argument: str) -> None:
    name, separator, value = argument.removeprefix(OWN_PREFIX).partition("=")
    if name in OWN_OPTIONS and separator and value:
        call.own[name] = value
    else:
        call.problems.append(
            f"{argument[:80]!a} is ignored: not one of --vmcoredd-{{{','.join(OWN_OPTIONS)}}}=VALUE"
        )


def _long(call: Call, argument: str) -> bool:
    """Record a long option; return whether the next word is its argument."""
    name, separator, _ = argument[2:].partition("=")
    found = [name] if name in _LONG else [known for known in _LONG if known.startswith(name)]
    if len(found) != 1:
        call.unknown = call.unknown or argument
        return False
    call.options.add(found[0])
    return _LONG[found[0]] and not separator


def _short(call: Call, argument: str) -> bool:
    """Record short options; return whether the next word is the argument of the last one."""
    for position, letter in enumerate(argument[1:], 2):
        place = -1 if letter == ":" else _SHORT.find(letter)
        if place < 0:
            call.unknown = call.unknown or argument
            return False
        call.options.add(letter)
        if _SHORT[place + 1 : place + 2] == ":":
            return position == len(argument)
    return False


def start(call: Call, stdout: int | None = None) -> int:
    """Start makedumpfile, with *stdout* or with ours; return its process ID.

    Does not return if no process can be started: this one becomes makedumpfile then.
    """
    try:
        process = os.fork()
    except OSError as error:
        complain(f"no device dumps attached: {call.program} cannot be started beside us: {error.strerror}")
        become(call)
    if process == 0:
        if stdout is not None:
            os.dup2(stdout, 1)
        become(call)
    return process


def become(call: Call) -> NoReturn:
    """Replace this process by makedumpfile; if that fails, say why, and exit as a shell does."""
    status = NOT_EXECUTABLE
    try:
        # Told by the process itself: it could not be told between its start and the end of its parent.
        call.tell(f"started {os.getpid()}")
        for number in IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        # It may be our own wrapper.
        os.environ["VMCOREDD_CORE_COLLECTOR"] = "1"
        os.execvp(call.program, [call.program, *call.arguments])
    except OSError as error:
        complain(f"{call.program}: {error.strerror}")
        status = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
    finally:
        os._exit(status)


def wait(process: int) -> int:
    """Wait for makedumpfile; return its exit status, negative for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def be_killed_first() -> None:
    """Let the kernel kill this process, and not makedumpfile, when the memory runs out."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        # The highest one: nothing is lowered by it, which would need a privilege.
        file.write("1000")


def reason(error: Exception) -> str:
    """Return the message of *error*; that of a bug says so."""
    return str(error) if isinstance(error, VmcoreddError) else f"internal error: {type(error).__name__}: {error}"

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand report: what a vmcore and its device dumps say, as one page for a support ticket."""

import argparse
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from ...decoders.decoded import Decoded
from ...decoders.registry import Decoders
from ...errors import InvalidArgs, InvalidVmcore, NoSpace, WriteFailed
from ...manifest import ManifestMachine
from ...terminal.exit import FAILURE, SUCCESS, UsageError
from ...terminal.stdio import complain, show
from ...text import printable
from ...vmcore.formats import Vmcore, recognise
from ...vmcore.image import file_image
from ...vmcore.inspect.inspect import Inspection, find_in
from ...vmcore.inspect.summary import summarize
from ..inspect import check_with_progress
from ..operands import name_of, open_vmcore, unused_file_name
from ..output import check_output, check_replaceable, open_output
from ..panic_message import panic_and_log
from ..show import decoders_of
from ..vmcores import vmcores_of
from .content import Entry, Report
from .limits import MAX_DECODED, MAX_DUMP, cut
from .page import page
from .redaction import Redaction, private_values

MAX_LOG = 1 << 16
"""Characters of the end of the kernel's log that the page has."""

LOG_LINES = 200
"""Lines of it: the messages of a panic are some 60."""

_WRITE_SIZE = 1 << 16
_NAME = 60
"""Characters of a directory that a page has in its name, of which escaping makes four each."""
_DIRECTORY = re.compile(r"(.+)-[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9]{2}[:-][0-9]{2}[:-][0-9]{2}(?:\.[0-9]+)?")
"""Host and time, as kdump-utils and the service name the directory of a crash."""
_NO_HOSTS = frozenset({"", "(none)", "localhost", "localhost.localdomain"})
"""Names of a machine that has none."""


def run(options: argparse.Namespace) -> int:
    """Write a page for each vmcore; return the exit status."""
    decoders = decoders_of(options.config)
    if options.directory is not None:
        return _several(options, decoders)
    problems: list[str] = []
    paths = list(islice(vmcores_of(options.vmcores, problems), 2))
    for problem in problems:
        complain(problem)
    if len(paths) > 1:
        raise UsageError("several vmcores have several pages: name a directory for them, with -C DIR")
    for path in paths:
        _write(path, options.output, decoders, redact=options.redact)
    return FAILURE if problems else SUCCESS


def _several(options: argparse.Namespace, decoders: Decoders) -> int:
    """Write a page for each vmcore, even if others cannot be read."""
    directory: Path = options.directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(f"{directory}: {error.strerror}") from error
    problems: list[str] = []
    taken = set[str]()
    for index, path in enumerate(vmcores_of(options.vmcores, problems)):
        # HOST-TIME/vmcore, TIME/dump.TIME: the directory is what tells them apart. It has the host's name.
        crash = (os.path.basename(os.path.dirname(os.path.abspath(path))) or os.path.basename(path))[:_NAME]
        name = unused_file_name(f"crash-{index}" if options.redact else crash, index, taken)
        try:
            output = str(directory / f"{name}.html")
            # The directory may be /tmp.
            check_replaceable(output)
            _write(path, output, decoders, redact=options.redact)
            show(f"{printable(output)}: {printable(path)}\n")
        except (InvalidArgs, InvalidVmcore, NoSpace, UsageError, WriteFailed) as error:
            problems.append(str(error))
    for problem in problems:
        complain(problem)
    return FAILURE if problems else SUCCESS


def _write(path: str, output: str, decoders: Decoders, *, redact: bool) -> None:
    with open_vmcore(path) as fd:
        check_output(output, path)
        report = gather(recognise(file_image(fd, path)), name_of(fd, path), decoders, redact=redact)
    for problem in report.problems:
        complain(f"{path}: {problem}")
    with open_output(output) as write:
        for block in _blocks(page(report)):
            write(block)


def gather(vmcore: Vmcore, inside: str, decoders: Decoders, *, redact: bool) -> Report:
    """Return what *vmcore* and its device dumps say. Raises InvalidVmcore.

    *inside* is a name by which makedumpfile can open it.
    """
    path = vmcore.image.path
    unchecked, summary = find_in(vmcore), summarize(vmcore)
    found = check_with_progress(unchecked)
    panic, log = panic_and_log(path, flattened=vmcore.format == "flattened", inside=inside)
    kernel_log = log.decode("utf-8", "backslashreplace")
    machine = found.manifest.machine if found.manifest is not None else ManifestMachine()
    hosts = [host for host in (summary.host or "", machine.host, *_host_of(path)) if host not in _NO_HOSTS]
    private = {machine.serial, machine.machine_id, machine.boot_id}
    report = Report(
        file_name=os.path.basename(path),
        size=vmcore.image.size,
        format=vmcore.format,
        machine=vmcore.machine,
        host=next(iter(hosts), None),
        hardware=_hardware(machine, kernel_log),
        summary=summary,
        panic=panic,
        log=_end(kernel_log),
        manifest=found.manifest,
        entries=tuple(fitting(_decoded(found, decoders, private))),
        failures=found.failures,
        # Those that the check adds are about device dumps, which the page has.
        problems=unchecked.problems,
        redacted=redact,
    )
    return redacted(report, Redaction(hosts, private)) if redact else report


def redacted(report: Report, redaction: Redaction) -> Report:
    """Return *report* without what identifies the machine. What stands in its place may be longer."""
    left = redaction.record(report)
    return replace(left, host=None, entries=tuple(fitting(left.entries)))


def fitting(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield as much of *entries* as fits into a page."""
    left = MAX_DECODED
    for entry in entries:
        kept = cut(entry.decoded, min(MAX_DUMP, left))
        left -= kept.cost
        yield replace(entry, decoded=kept.decoded, left_out=entry.left_out + kept.left_out)


def _decoded(found: Inspection, decoders: Decoders, private: set[str]) -> Iterator[Entry]:
    """Yield the device dumps, and add what is private in them to *private*: before they are cut."""
    for dump in found.device_dumps:
        entry = Entry(dump=dump, decoded=Decoded())
        # The page has all that the manifest says.
        if not entry.is_manifest:
            entry = replace(entry, decoded=decoders.decode(found.image, dump))
        private.update(private_values(entry.decoded))
        yield entry


def _host_of(path: str) -> Iterator[str]:
    named = _DIRECTORY.fullmatch(Path(path).absolute().parent.name)
    # By default kdump-utils name the loopback interface.
    if named and not named[1].startswith("127."):
        yield named[1]


def _hardware(machine: ManifestMachine, log: str) -> str | None:
    """Return the machine by the manifest, else by the log: dump_stack_print_info(), Linux lib/dump_stack.c."""
    if machine.hardware:
        return machine.hardware
    named = re.search(r"Hardware name: ([^\r\n]+)", log)
    return named and named[1]


def _end(log: str) -> str:
    log = log.rstrip("\n\0")
    return "\n".join(log[-MAX_LOG:].split("\n")[-LOG_LINES:])


def _blocks(pieces: Iterable[str]) -> Iterator[bytes]:
    """Yield the bytes of *pieces* in larger blocks."""
    block: list[bytes] = []
    size = 0
    for piece in pieces:
        block.append(piece.encode())
        size += len(block[-1])
        if size >= _WRITE_SIZE:
            yield b"".join(block)
            block, size = [], 0
    yield b"".join(block)

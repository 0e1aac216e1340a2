# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommands that work on files: inspect and extract."""

import argparse
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict

from ..errors import InvalidVmcore, UnknownDump, WriteFailed
from ..vmcore.image import Image
from ..vmcore.inspect import FoundDump, Inspection, copy_data, find, inspect
from . import FAILURE, SUCCESS, UsageError
from .table import Cell, complain, show, show_json, table


def run(options: argparse.Namespace) -> int:
    """Run a subcommand; return the exit status."""
    with _opened(options.vmcore) as fd:
        if options.command == "inspect":
            return _inspect(fd, options.vmcore, as_json=options.json)
        return _extract(fd, options.vmcore, options.dump, options.output or "-")


@contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        # A pipe must not keep us waiting only to be refused.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidVmcore(f"{path}: {error.strerror}") from error
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise InvalidVmcore(f"{path}: is a directory, not a vmcore")
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise InvalidVmcore(f"{path}: is neither a regular file nor a block device")
        yield fd
    finally:
        os.close(fd)


def _inspect(fd: int, path: str, *, as_json: bool) -> int:
    inspection = inspect(fd, path)
    for problem in inspection.problems:
        complain(f"{path}: {problem}")
    if as_json:
        show_json(_json(inspection))
    else:
        show(_text(inspection))
    return SUCCESS


def _json(inspection: Inspection) -> dict[str, object]:
    return {
        "format": inspection.format,
        "class": inspection.elfclass,
        "endian": inspection.byteorder,
        "machine": inspection.machine,
        "device_dumps": [
            {
                "index": dump.index,
                "name": dump.name,
                "offset": dump.offset,
                "size": dump.size,
                "bytes": dump.true_size,
                "sha256": dump.sha256,
                "verified": dump.verified,
            }
            for dump in inspection.device_dumps
        ],
        "failures": [asdict(failure) for failure in inspection.failures],
    }


def _text(inspection: Inspection) -> str:
    verified = {True: "yes", False: "no", None: "-"}
    count = len(inspection.device_dumps)
    dumps = "1 device dump" if count == 1 else f"{count} device dumps"
    text = (
        f"{inspection.format}, {inspection.elfclass} bits, {inspection.byteorder} endian, "
        f"{inspection.machine}, {dumps}\n"
    )
    if inspection.device_dumps:
        rows: list[list[Cell]] = [
            [dump.index, f"{dump.offset:#x}", dump.size, dump.true_size, verified[dump.verified], dump.name]
            for dump in inspection.device_dumps
        ]
        text += "\n" + table(["INDEX", "OFFSET", "SIZE", "BYTES", "VERIFIED", "NAME"], rows)
    if inspection.failures:
        failed = [[failure.name, failure.collector, failure.message] for failure in inspection.failures]
        text += "\n" + table(["FAILED", "COLLECTOR", "MESSAGE"], failed)
    return text


def _extract(fd: int, path: str, wanted: str, output: str) -> int:
    found = find(fd, path)
    dump = _choose(found, path, wanted)
    image = found.image
    intact = _to_stdout(image, dump) if output == "-" else _to_file(fd, image, dump, output)
    if intact is False:
        complain(f"{path}: device dump {dump.name} is extracted, but it does not have the SHA-256 of its manifest")
        return FAILURE
    return SUCCESS


def _choose(inspection: Inspection, path: str, wanted: str) -> FoundDump:
    dumps = inspection.device_dumps
    if wanted.isascii() and wanted.isdecimal():
        found = [dump for dump in dumps if str(dump.index) == wanted]
    else:
        found = [dump for dump in dumps if dump.name == wanted]
    if not found:
        raise UnknownDump(f"{path}: has no device dump {wanted}")
    if len(found) > 1:
        indices = ", ".join(str(dump.index) for dump in found)
        raise UnknownDump(f"{path}: several device dumps are called {wanted}, choose by index: {indices}")
    return found[0]


def _to_stdout(image: Image, dump: FoundDump) -> bool | None:
    if sys.stdout is None:
        raise WriteFailed("standard output is closed")
    stdout = sys.stdout.fileno()
    if os.isatty(stdout):
        raise UsageError("a device dump is not for a terminal: redirect the output, or use -o FILE")
    return _copy(image, dump, stdout, "standard output")


def _to_file(fd: int, image: Image, dump: FoundDump, output: str) -> bool | None:
    """Write the file *output* under a temporary name; a device or a pipe has only its own."""
    # A rename must not replace a symbolic link, but what it leads to.
    target = os.path.realpath(output)
    try:
        state = os.stat(target)
    except FileNotFoundError:
        state = None
    except OSError as error:
        raise WriteFailed(f"{output}: {error.strerror}") from error
    if state is not None and os.path.samestat(state, os.fstat(fd)):
        raise UsageError(f"{output}: is the vmcore itself")
    if state is not None and not stat.S_ISREG(state.st_mode):
        with _writing(output):
            out = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
        try:
            return _copy(image, dump, out, output)
        finally:
            os.close(out)
    return _replace(image, dump, target, output)


def _replace(image: Image, dump: FoundDump, target: str, output: str) -> bool | None:
    import tempfile

    with _writing(output):
        out, temporary = tempfile.mkstemp(prefix=".vmcoredd-", dir=os.path.dirname(target))
    try:
        intact = _copy(image, dump, out, output)
        with _writing(output):
            os.fsync(out)
            os.rename(temporary, target)
        return intact
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(out)


def _copy(image: Image, dump: FoundDump, out: int, output: str) -> bool | None:
    def write(block: bytes) -> None:
        view = memoryview(block)
        with _writing(output):
            while view:
                view = view[os.write(out, view) :]

    return copy_data(image, dump, write)


@contextmanager
def _writing(output: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WriteFailed(f"{output}: {error.strerror}") from error

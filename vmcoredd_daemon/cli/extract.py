# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand extract: device dumps of a vmcore as files."""

import argparse
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import InvalidArgs, InvalidVmcore, UnknownDump, WriteFailed
from ..files import new_file, write_all
from ..terminal.exit import FAILURE, SUCCESS, UsageError
from ..terminal.progress_line import progress
from ..terminal.stdio import complain, standard_output
from ..vmcore.image import Image
from ..vmcore.inspect.inspect import FoundDump, Inspection, copy_data, find
from .operands import open_vmcore, unused_file_name


def run(options: argparse.Namespace) -> int:
    """Extract; return the exit status."""
    if (options.dump is None) == (options.all is None):
        missing = "the following arguments are required: NAME|INDEX or --all DIR (see vmcoredd extract --help)"
        raise UsageError(missing if options.dump is None else "argument --all: not allowed with NAME|INDEX")
    with open_vmcore(options.vmcore) as fd:
        found = find(fd, options.vmcore)
        if options.all is not None:
            with _directory(options.all):
                return _extract_all(fd, found, options.vmcore, options.all)
        dump, output = _choose(found, options.vmcore, options.dump), options.output
        intact = _to_stdout(found.image, dump) if output == "-" else _to_file(fd, found.image, dump, output)
        return _report(options.vmcore, dump, intact)


@contextmanager
def _directory(directory: Path) -> Iterator[None]:
    """Make *directory*; after an error, remove it again if it is new and empty. Raises WriteFailed."""
    new = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(f"{directory}: {error.strerror}") from error
    try:
        yield
    except BaseException:
        if new:
            with suppress(OSError):
                directory.rmdir()
        raise


def _extract_all(fd: int, found: Inspection, path: str, directory: Path) -> int:
    """Write a file for each device dump, even if others cannot be read."""
    statuses, taken = [SUCCESS], set[str]()
    for dump in found.device_dumps:
        output = str(directory / unused_file_name(dump.name, dump.index, taken))
        try:
            _check_replaceable(fd, output)
            statuses.append(_report(path, dump, _replace(found.image, dump, output, output)))
        except (InvalidArgs, InvalidVmcore) as error:
            complain(error)
            statuses.append(FAILURE)
    return max(statuses)


def _check_replaceable(fd: int, output: str) -> None:
    """Raise InvalidArgs if *output* is no regular file, UsageError if it is the vmcore *fd*.

    The directory may be /tmp: another user's symbolic link in it must not lead us elsewhere. If one appears later,
    the rename replaces the link itself.
    """
    try:
        state = os.lstat(output)
    except OSError:
        # It is missing, or cannot be written either.
        return
    if not stat.S_ISREG(state.st_mode):
        raise InvalidArgs(f"{output}: is not a regular file, and is not replaced")
    _check_other_file(fd, state, output)


def _check_other_file(fd: int, state: os.stat_result, output: str) -> None:
    if os.path.samestat(state, os.fstat(fd)):
        raise UsageError(f"{output}: is the vmcore itself")


def _report(path: str, dump: FoundDump, intact: bool | None) -> int:
    if intact is False:
        complain(f"{path}: device dump {dump.name} is extracted, but its SHA-256 differs from the manifest")
        return FAILURE
    return SUCCESS


def _choose(inspection: Inspection, path: str, name: str) -> FoundDump:
    dumps = inspection.device_dumps
    if name.isascii() and name.isdecimal():
        found = [dump for dump in dumps if str(dump.index) == name]
    else:
        found = [dump for dump in dumps if dump.name == name]
    if not found:
        raise UnknownDump(f"{path}: has no device dump {name[:80]}")
    if len(found) > 1:
        indices = ", ".join(str(dump.index) for dump in found)
        raise UnknownDump(f"{path}: several device dumps are named {name}, choose by index: {indices}")
    return found[0]


def _to_stdout(image: Image, dump: FoundDump) -> bool | None:
    stdout = standard_output()
    if os.isatty(stdout):
        raise UsageError("a device dump is not for a terminal: redirect the output, or use -o FILE")
    return _copy(image, dump, stdout, "standard output")


def _to_file(fd: int, image: Image, dump: FoundDump, output: str) -> bool | None:
    """Write the file *output* under a temporary name; a device or a pipe is written directly."""
    try:
        # Of this name: the kernel may refuse another user's link, see fs.protected_symlinks in proc_sys_fs(5).
        state = os.stat(output)
    except FileNotFoundError:
        state = None
    except OSError as error:
        raise WriteFailed(f"{output}: {error.strerror}") from error
    if state is not None:
        _check_other_file(fd, state, output)
    # The rename must replace the target of a symbolic link, not the link.
    target = os.path.realpath(output)
    if state is not None and not stat.S_ISREG(state.st_mode):
        with _writing(output):
            out = os.open(output, os.O_WRONLY | os.O_CLOEXEC)
        try:
            return _copy(image, dump, out, output)
        finally:
            os.close(out)
    return _replace(image, dump, target, output)


def _replace(image: Image, dump: FoundDump, target: str, output: str) -> bool | None:
    with _writing(output), new_file(target) as out:
        return _copy(image, dump, out, output)


def _copy(image: Image, dump: FoundDump, out: int, output: str) -> bool | None:
    with progress(dump.name, dump.size if dump.true_size is None else dump.true_size) as shown:

        def write(block: bytes) -> None:
            with _writing(output):
                write_all(out, block)
            shown.advance(len(block))

        return copy_data(image, dump, write)


@contextmanager
def _writing(output: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WriteFailed(f"{output}: {error.strerror}") from error

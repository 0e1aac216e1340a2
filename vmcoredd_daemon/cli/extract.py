# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand extract: device dumps of a vmcore as files."""

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidArgs, InvalidDump, InvalidVmcore, UnknownDump, WriteFailed
from ..terminal.exit import FAILURE, SUCCESS, UsageError
from ..terminal.progress_line import progress
from ..terminal.stdio import complain, standard_output
from ..text import printable
from ..vmcore.image import Image
from ..vmcore.inspect.inspect import FoundDump, copy_data, data_of, find
from .operands import chosen_dump, chosen_dumps, open_vmcore, unused_file_name
from .output import Write, check_replaceable, open_output, open_replacement, writing


@dataclass(frozen=True, slots=True)
class _Source:
    """The vmcore that device dumps come from."""

    path: str
    fd: int
    image: Image

    def is_at(self, state: os.stat_result) -> bool:
        """Return whether a file is this one, or the compressed one that it was unpacked from."""
        states = [os.fstat(self.fd)]
        with suppress(OSError):
            states.append(os.stat(self.path))
        return any(os.path.samestat(state, own) for own in states)


def run(options: argparse.Namespace) -> int:
    """Extract; return the exit status."""
    names, directory = options.dumps, options.all or options.directory
    _check_usage(options)
    with open_vmcore(options.vmcore) as fd:
        found = find(fd, options.vmcore)
        source = _Source(options.vmcore, fd, found.image)
        if directory is not None:
            dumps = chosen_dumps(found, options.vmcore, names) if names else found.device_dumps
            if not dumps:
                raise UnknownDump(f"{options.vmcore}: has no device dumps")
            with _directory(directory):
                return _Directory(source, directory, options).extract(dumps)
        several = chosen_dumps(found, options.vmcore, names)
        if len(several) > 1 and (names[1:] or not any(dump.name == names[0] for dump in several)):
            raise UsageError(f"{len(several)} device dumps are asked for: name a directory for them, with -C DIR")
        # One name that several have.
        dump = several[0] if len(several) == 1 else chosen_dump(found, options.vmcore, names[0])
        return _report(options.vmcore, dump, _to_output(source, dump, options.output))


def _check_usage(options: argparse.Namespace) -> None:
    if not options.dumps and options.all is None:
        raise UsageError(
            "the following arguments are required: NAME|INDEX or --all DIR (see vmcoredd extract --help)"
        )
    if options.dumps and options.all is not None:
        raise UsageError("argument --all: not allowed with NAME|INDEX")
    if options.all is None and options.directory is None and (options.unpack or not options.colons):
        raise UsageError(f"{'--unpack' if options.unpack else '--no-colons'} needs -C DIR or --all DIR")


@contextmanager
def _directory(directory: Path) -> Iterator[None]:
    """Make *directory*; after an error, remove it again if it is new and empty. Raises WriteFailed."""
    new = not directory.exists()
    try:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteFailed(f"{directory}: {error.strerror}") from error
        yield
    except BaseException:
        if new:
            with suppress(OSError):
                directory.rmdir()
        raise


class _Directory:
    """Makes a file of each device dump, or a directory."""

    def __init__(self, source: _Source, directory: Path, options: argparse.Namespace) -> None:
        self._source = source
        self._directory = directory
        self._unpack: bool = options.unpack
        self._rename: Callable[[str], str] = _as_it_is if options.colons else _without_colons
        self._taken = set[str]()

    def extract(self, dumps: Iterable[FoundDump]) -> int:
        """Extract all, even if others cannot be read; return the exit status."""
        statuses = [SUCCESS]
        for dump in dumps:
            name = unused_file_name(self._rename(dump.name), dump.index, self._taken)
            try:
                statuses.append(self._extract(dump, self._directory / name))
            except (InvalidArgs, InvalidVmcore) as error:
                complain(error)
                statuses.append(FAILURE)
        return max(statuses)

    def _extract(self, dump: FoundDump, output: Path) -> int:
        if self._unpack and (status := self._unpacked(dump, output)) is not None:
            return status
        if (state := check_replaceable(str(output))) is not None:
            _check_other_file(self._source, state, str(output))
        with open_replacement(str(output)) as write:
            return _report(self._source.path, dump, _copy(self._source.image, dump, write))

    def _unpacked(self, dump: FoundDump, output: Path) -> int | None:
        """Make a directory of an archive; return the exit status, None if it is to be a file."""
        # Imported late: tarfile takes memory and time.
        from ..decoders.members import is_archive
        from .unpack import unpack

        image, path = self._source.image, self._source.path
        with data_of(image, dump).stream() as archive:
            if not is_archive(archive):
                return None
            try:
                with writing(str(output)):
                    left_out = unpack(archive, output, self._name)
            except InvalidDump as error:
                complain(f"{path}: device dump {dump.name} is not unpacked: {error}")
                return None
        status = _report(path, dump, copy_data(image, dump, lambda block: None))
        if left_out:
            others = f"; and {len(left_out) - 1} more" if left_out[1:] else ""
            complain(f"{path}: not all of device dump {dump.name} is unpacked: {left_out[0]}{others}")
            return FAILURE
        return status

    def _name(self, part: str) -> str:
        return self._rename(printable(part))


def _as_it_is(name: str) -> str:
    return name


def _without_colons(name: str) -> str:
    return name.replace(":", "-")


def _check_other_file(source: _Source, state: os.stat_result, output: str) -> None:
    if source.is_at(state):
        raise UsageError(f"{output}: is the vmcore itself")


def _report(path: str, dump: FoundDump, intact: bool | None) -> int:
    if intact is False:
        complain(f"{path}: device dump {dump.name} is extracted, but its SHA-256 differs from the manifest")
        return FAILURE
    return SUCCESS


def _to_output(source: _Source, dump: FoundDump, output: str) -> bool | None:
    """Write the file *output*, or standard output if that is ``-``."""
    if output == "-" and os.isatty(standard_output()):
        raise UsageError("a device dump is not for a terminal: redirect the output, or use -o FILE")
    if output != "-":
        with writing(output), suppress(FileNotFoundError):
            # Of this name: the kernel may refuse another user's link, see fs.protected_symlinks in proc_sys_fs(5).
            _check_other_file(source, os.stat(output), output)
    with open_output(output) as write:
        return _copy(source.image, dump, write)


def _copy(image: Image, dump: FoundDump, write: Write) -> bool | None:
    with progress(dump.name, dump.data_size) as shown:

        def write_and_advance(block: bytes) -> None:
            write(block)
            shown.advance(len(block))

        return copy_data(image, dump, write_and_advance)

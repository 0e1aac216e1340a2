# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads files of sysfs in small pieces, all that can be read even if one fails."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

CHUNK = 1 << 16
"""Bytes that are read at a time; sysfs gives at most a page."""


def chunks(path: Path) -> Iterator[bytes]:
    """Yield the content of *path*. Raises OSError that names it, possibly after some pieces."""
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        # Only open() names the file.
        raise OSError(error.errno, error.strerror, str(path)) from error


def copy(path: Path, data: BinaryIO) -> None:
    """Write the content of *path* to *data*. Raises OSError."""
    for chunk in chunks(path):
        data.write(chunk)


def write_lines(paths: Iterable[Path], base: Path, data: BinaryIO) -> None:
    """Write each line of small text files after the file's name below *base*, as ``grep -r '' BASE`` does.

    Raises OSError at the end if some could not be read.
    """
    with Problems() as problems:
        for path in paths:
            with problems.kept():
                for line in b"".join(chunks(path)).splitlines():
                    data.write(f"{path.relative_to(base)}:".encode() + line + b"\n")


class Problems:
    """A context that collects errors, and raises the first at its end."""

    def __init__(self) -> None:
        self._first: OSError | None = None
        self._more = 0

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep an OSError for the end."""
        try:
            yield
        except OSError as error:
            self._more += self._first is not None
            self._first = self._first or error

    def __enter__(self) -> "Problems":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._first is not None:
            if self._more:
                raise OSError(f"{self._first}, and {self._more} more") from self._first
            raise self._first

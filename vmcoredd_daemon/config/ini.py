# SPDX-License-Identifier: LGPL-2.1-or-later
"""Configuration files in the syntax of systemd's own: sections, ``Key=value``, comments with ``#`` or ``;``.

See systemd.syntax(7). A line that ends with a backslash goes on in the next. Errors name file, line and key.
"""

import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidConfiguration
from ..text import printable

Keys = Mapping[str, tuple[str, Callable[[str], Any]]]
"""For each key its field, and the parser of its value, which raises ValueError that ends "... is not"."""

MAX_SIZE = 1 << 20
"""Bytes of a file; systemd has as many for a line."""

MAX_LINE = 16 << 10
"""Characters of a line, continuation lines included. The time of shlex grows with their square."""


def shown(file: Path) -> str:
    """Return the name of a file on one line, fit for the journal and a terminal."""
    return printable(str(file))


def read(file: Path, section: str, keys: Keys) -> Iterator[tuple[str, Any]]:
    """Yield field and value of each assignment in *file*; the value None restores the default.

    *section* is the only one allowed. Raises InvalidConfiguration or FileNotFoundError.
    """
    where = shown(file)
    try:
        text = _read(file).decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InvalidConfiguration(f"{where}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"{where}: cannot be read: {error}") from error
    for line, key, value in _assignments(where, section, text):
        if key not in keys:
            raise InvalidConfiguration(f"{where}:{line}: unknown key {key[:80]!a}")
        name, parse = keys[key]
        try:
            yield name, parse(value) if value else None
        except ValueError as error:
            raise InvalidConfiguration(f"{where}:{line}: {key}={value[:80]!a} is not {error}") from None


def _read(file: Path) -> bytes:
    # O_NONBLOCK: to open a FIFO would wait for a writer.
    with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as opened:
        state = os.fstat(opened.fileno())
        if not stat.S_ISREG(state.st_mode) and not os.path.samestat(state, os.stat(os.devnull)):
            raise InvalidConfiguration(f"{shown(file)}: cannot be read: not a regular file")
        data = opened.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise InvalidConfiguration(f"{shown(file)}: has more than {MAX_SIZE} bytes")
    return data


def _assignments(where: str, known: str, text: str) -> Iterator[tuple[int, str, str]]:
    section = ""
    for number, line in _lines(where, text):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            if section != known:
                raise InvalidConfiguration(f"{where}:{number}: unknown section {line[:80]!a}")
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise InvalidConfiguration(f"{where}:{number}: {line[:80]!a} is not an assignment")
        if not section:
            raise InvalidConfiguration(f"{where}:{number}: {key.strip()[:80]!a} is not in a section")
        yield number, key.strip(), value.strip()


def _lines(where: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield each line that is no comment, joined with its continuation lines, and the number of the first."""
    begun, first = "", 0
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        stripped = line.strip()
        if stripped.startswith(("#", ";")):
            continue
        first, joined = (first, f"{begun} {stripped}") if begun else (number, stripped)
        if len(joined) > MAX_LINE:
            raise InvalidConfiguration(f"{where}:{first}: has more than {MAX_LINE} characters")
        begun = joined[:-1] if line.rstrip("\n").endswith("\\") else ""
        if joined and not begun:
            yield first, joined
    if begun:
        yield first, begun.strip()

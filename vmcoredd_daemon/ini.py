# SPDX-License-Identifier: LGPL-2.1-or-later
"""Configuration files in the syntax of systemd's own: sections, ``Key=value``, comments with ``#`` or ``;``.

See systemd.syntax(7). Whatever is wrong is named with its file, line and key.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import InvalidConfiguration

Keys = Mapping[str, tuple[str, Callable[[str], Any]]]
"""For each key, the field that it is for, and what parses its value: raises ValueError that ends "... is not"."""


def read(file: Path, section: str, keys: Keys) -> Iterator[tuple[str, Any]]:
    """Yield each assignment in *file*: the field, and its value, which is None where the default is restored.

    *section* is the only one that there may be. Raises InvalidConfiguration or FileNotFoundError.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"{file}: cannot be read: {error}") from error
    for line, key, value in _assignments(file, section, text):
        if key not in keys:
            raise InvalidConfiguration(f"{file}:{line}: unknown key {key!a}")
        name, parse = keys[key]
        try:
            yield name, parse(value) if value else None
        except ValueError as error:
            raise InvalidConfiguration(f"{file}:{line}: {key}={value[:80]!a} is not {error}") from None


def _assignments(file: Path, known: str, text: str) -> Iterator[tuple[int, str, str]]:
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        if stripped.startswith("[") and stripped.endswith("]"):
            section = stripped[1:-1]
            if section != known:
                raise InvalidConfiguration(f"{file}:{number}: unknown section {stripped!a}")
            continue
        key, equals, value = stripped.partition("=")
        if not equals:
            raise InvalidConfiguration(f"{file}:{number}: {stripped[:80]!a} is not an assignment")
        if not section:
            raise InvalidConfiguration(f"{file}:{number}: {key.strip()!a} stands before any section")
        yield number, key.strip(), value.strip()

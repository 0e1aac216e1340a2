# SPDX-License-Identifier: LGPL-2.1-or-later
"""Configuration: ``vmcoredd.conf`` and its drop-ins, in the syntax of systemd's own files.

See systemd.syntax(7): sections, ``Key=value``, comments with ``#`` or ``;``. The main file is read first, then the
drop-ins of ``vmcoredd.conf.d`` by name; the last assignment wins, an empty one restores the default.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .device_dump import Limits
from .errors import InvalidConfiguration
from .vmcore.layout import MAX_NOTES_END

DEFAULT_FILE = Path("/etc/vmcoredd/vmcoredd.conf")
SECTION = "Vmcoredd"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TIME_UNITS = {"ms": 0.001, "min": 60.0, "s": 1.0, "": 1.0}
_BOOLEANS = {
    "yes": True,
    "true": True,
    "on": True,
    "1": True,
    "no": False,
    "false": False,
    "off": False,
    "0": False,
}


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that can be configured."""

    enabled: bool = True
    """Whether device dumps are taken; a vmcore is written all the same."""
    source: Path = Path("/proc/vmcore")
    target: Path = Path("/var/crash")
    """Directory that gets a directory for this crash."""
    spool: Path | None = None
    """By default ``.vmcoredd-spool`` in the target."""
    manifest: bool = True
    keep_free: int = 0
    """Bytes that the spool leaves free on its file system."""
    collector_timeout: float = 30.0
    """Seconds for one collector, where the caller names no other time."""
    drain_timeout: float = 30.0
    """Seconds that unfinished collectors have when the service stops."""
    bus_timeout: float = 10.0
    """Seconds until the service goes on without a bus."""
    limits: Limits = field(default_factory=Limits)

    @property
    def spool_directory(self) -> Path:
        """Where device dumps wait for the vmcore."""
        return self.spool or self.target / ".vmcoredd-spool"


def load(path: Path | None) -> Configuration:
    """Read the configuration from *path*, or from the default file if it is there, and from its drop-ins.

    Raises InvalidConfiguration, which names file, line and key.
    """
    main = path or DEFAULT_FILE
    configuration = Configuration()
    for file in [main, *sorted(main.with_name(f"{main.name}.d").glob("*.conf"))]:
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            if path is None:
                continue
            raise InvalidConfiguration(f"{file}: there is no such file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidConfiguration(f"{file}: cannot be read: {error}") from error
        for line, key, value in _assignments(file, text):
            configuration = _assign(configuration, f"{file}:{line}", key, value)
    return configuration


def _assignments(file: Path, text: str) -> Iterator[tuple[int, str, str]]:
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        if stripped.startswith("[") and stripped.endswith("]"):
            section = stripped[1:-1]
            if section != SECTION:
                raise InvalidConfiguration(f"{file}:{number}: unknown section {stripped!a}")
            continue
        key, equals, value = stripped.partition("=")
        if not equals:
            raise InvalidConfiguration(f"{file}:{number}: {stripped[:80]!a} is not an assignment")
        if not section:
            raise InvalidConfiguration(f"{file}:{number}: {key.strip()!a} stands before any section")
        yield number, key.strip(), value.strip()


def _assign(configuration: Configuration, where: str, key: str, value: str) -> Configuration:
    if key not in _KEYS:
        raise InvalidConfiguration(f"{where}: unknown key {key!a}")
    name, parse = _KEYS[key]
    try:
        parsed = parse(value) if value else None
    except ValueError as error:
        raise InvalidConfiguration(f"{where}: {key}={value[:80]!a} is not {error}") from None
    if name in {known.name for known in fields(Limits)}:
        new = getattr(Limits(), name) if parsed is None else parsed
        return replace(configuration, limits=replace(configuration.limits, **{name: new}))
    new = getattr(Configuration(), name) if parsed is None else parsed
    return replace(configuration, **{name: new})


def _boolean(value: str) -> bool:
    try:
        return _BOOLEANS[value.lower()]
    except KeyError:
        raise ValueError("a boolean (yes, no)") from None


def _path(value: str) -> Path:
    if not value.startswith("/") or "\0" in value:
        raise ValueError("an absolute path")
    return Path(value)


def _size(value: str) -> int:
    number = value.rstrip("KMG")
    if not _is_number(number) or value[len(number) :] not in _UNITS:
        raise ValueError("a size in bytes (with K, M or G)")
    return int(number) * _UNITS[value[len(number) :]]


def _total_size(value: str) -> int:
    size = _size(value)
    if size >= MAX_NOTES_END:
        raise ValueError(f"below {MAX_NOTES_END} bytes, all that crash reads of notes")
    return size


def _count(value: str) -> int:
    if not _is_number(value) or not 0 < int(value) <= 65535:
        raise ValueError("a number from 1 to 65535")
    return int(value)


def _seconds(value: str) -> float:
    unit = next(unit for unit in _TIME_UNITS if value.endswith(unit))
    number = value.removesuffix(unit).strip()
    if not _is_number(number.replace(".", "", 1)) or not float(number):
        raise ValueError("a time above 0 (in s, or with ms or min)")
    return float(number) * _TIME_UNITS[unit]


def _is_number(text: str) -> bool:
    # int() raises an error of its own at more than 4300 digits.
    return text.isascii() and text.isdecimal() and len(text) <= 20


_KEYS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "Enabled": ("enabled", _boolean),
    "Source": ("source", _path),
    "Target": ("target", _path),
    "Spool": ("spool", _path),
    "Manifest": ("manifest", _boolean),
    "KeepFree": ("keep_free", _size),
    "CollectorTimeoutSec": ("collector_timeout", _seconds),
    "DrainTimeoutSec": ("drain_timeout", _seconds),
    "BusTimeoutSec": ("bus_timeout", _seconds),
    "MaxDumps": ("max_dumps", _count),
    "MaxDumpSize": ("max_dump_size", _size),
    "MaxTotalSize": ("max_total_size", _total_size),
    "MaxCollecting": ("max_collecting", _count),
}

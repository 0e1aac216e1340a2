# SPDX-License-Identifier: LGPL-2.1-or-later
"""Configuration: ``vmcoredd.conf`` and its drop-ins, in the syntax of systemd's own files.

The main file is read first, then the drop-ins of ``vmcoredd.conf.d`` by name; the last assignment wins, an empty
one restores the default.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import InvalidConfiguration
from ..lookup import matching
from ..note import MAX_NOTES_END, MOST_DEVICE_DUMPS
from . import ini, values
from .limits import CallLimits, Limits
from .vmcore_format import Compression, Format, Output

DEFAULT_FILE = Path("/etc/vmcoredd/vmcoredd.conf")
SECTION = "Vmcoredd"
PROC_VMCORE = Path("/proc/vmcore")
"""Exists only in a capture kernel."""
CONSOLE = Path("/dev/console")


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that can be configured."""

    enabled: bool = True
    """Whether device dumps are taken; a vmcore is written anyway."""
    source: Path = PROC_VMCORE
    target: Path = Path("/var/crash")
    """Directory in which the directory of this crash is made."""
    spool: Path | None = None
    """Directory in which the spool is made, by default the target."""
    console: Path | None = None
    """A terminal that shows the progress of the vmcore; by default, in a capture kernel, its console."""
    keep_crashes: int = 0
    """How many crashes of ours the target keeps, the newest included; 0: all."""
    keep_free: int | None = None
    """Bytes that the spool leaves free on its file system; by default :meth:`kept_free` says how many."""
    collector_timeout: float = 30.0
    """Seconds for one collector, unless the caller names another time."""
    drain_timeout: float = 30.0
    """Seconds that unfinished collectors have when the service stops."""
    bus_timeout: float = 10.0
    """Seconds until the service goes on without a bus."""
    run_collectors: bool = True
    """Whether the service runs the registered collectors by itself when it starts."""
    limits: Limits = field(default_factory=Limits)
    calls: CallLimits = field(default_factory=CallLimits)
    output: Output = field(default_factory=Output)

    @property
    def spool_directory(self) -> Path:
        """Directory that holds device dumps until the vmcore has them, for nothing else: only we may use it."""
        return (self.spool or self.target) / ".vmcoredd-spool"

    def kept_free(self, free: int | None) -> int:
        """Return the bytes that the spool leaves free on its file system, which has *free*, None if unknown.

        By default, if another program writes the vmcore, 7/8 of them: its vmcore may go there, too, and has the
        device dumps a second time.
        """
        if self.keep_free is not None:
            return self.keep_free
        return free - free // 8 if free and self.output.format is Format.NONE else 0

    @property
    def console_path(self) -> Path | None:
        """The terminal that shows the progress of the vmcore, if there is one."""
        return self.console or (CONSOLE if self.source == PROC_VMCORE else None)


def load(path: Path | None) -> Configuration:
    """Read the configuration from *path*, or from the default file unless that is missing, and from its drop-ins.

    Raises InvalidConfiguration, which names file, line and key.
    """
    configuration = Configuration()
    for name, value in assignments(path):
        configuration = _assign(configuration, name, value)
    return configuration


def assignments(path: Path | None) -> Iterator[tuple[str, Any]]:
    """Yield what is assigned there, in order: the field, and its value, None for the default. Raises as load()."""
    main = path or DEFAULT_FILE
    for file in [main, *_drop_ins(main)]:
        try:
            yield from ini.read(file, SECTION, KEYS)
        except FileNotFoundError:
            if path is not None:
                raise InvalidConfiguration(f"{ini.shown(file)}: does not exist") from None


def _drop_ins(main: Path) -> list[Path]:
    try:
        return matching(main.with_name(f"{main.name}.d"), "*.conf")
    except ValueError:
        raise InvalidConfiguration(f"{ini.shown(main)}: is not the name of a file") from None
    except OSError as error:
        raise InvalidConfiguration(f"{ini.shown(main)}: cannot look for drop-ins: {error.strerror}") from error


def _assign(configuration: Configuration, name: str, value: Any) -> Configuration:
    for group in ("limits", "calls", "output"):
        part = getattr(configuration, group)
        if name in {known.name for known in fields(part)}:
            new = getattr(type(part)(), name) if value is None else value
            return replace(configuration, **{group: replace(part, **{name: new})})
    new = getattr(Configuration(), name) if value is None else value
    return replace(configuration, **{name: new})


def _total_size(value: str) -> int:
    size = values.size(value)
    if size >= MAX_NOTES_END:
        raise ValueError(f"below {MAX_NOTES_END} bytes, the limit of crash for all notes")
    return size


def _dump_level(value: str) -> int:
    if value not in {str(level) for level in range(32)}:
        raise ValueError("a number from 0 to 31")
    return int(value)


KEYS: ini.Keys = {
    "Enabled": ("enabled", values.boolean),
    "Source": ("source", values.path),
    "Target": ("target", values.path),
    "Spool": ("spool", values.path),
    "Console": ("console", values.path),
    "Format": ("format", values.choice(Format)),
    "DumpLevel": ("dump_level", _dump_level),
    "Compression": ("compression", values.choice(Compression)),
    "Manifest": ("manifest", values.boolean),
    "KeepCrashes": ("keep_crashes", values.count(least=0)),
    "KeepFree": ("keep_free", values.size),
    "RunCollectors": ("run_collectors", values.boolean),
    "CollectorTimeoutSec": ("collector_timeout", values.seconds),
    "DrainTimeoutSec": ("drain_timeout", values.seconds),
    "BusTimeoutSec": ("bus_timeout", values.seconds),
    "MaxDumps": ("max_dumps", values.count(MOST_DEVICE_DUMPS)),
    "MaxDumpSize": ("max_dump_size", values.size),
    "MaxTotalSize": ("max_total_size", _total_size),
    "MaxCollecting": ("max_collecting", values.count()),
    "MaxCollectingPerCaller": ("max_collecting_per_caller", values.count()),
    "MaxCalls": ("max_calls", values.count()),
    "MaxCallsPerCaller": ("max_calls_per_caller", values.count()),
}

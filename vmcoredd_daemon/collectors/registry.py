# SPDX-License-Identifier: LGPL-2.1-or-later
"""The registered collectors of this machine: files in ``collectors.d``, entry points of Python packages, our own.

An entry point replaces one of our own that has its name. A file without ``Exec=`` is for the collector in Python
of its name: ``Enabled=``, ``KeepSize=``, ``TimeoutSec=`` and ``ConditionPathExists=`` hold for that, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..config import ini
from ..dumps.collector import Collector
from ..errors import InvalidConfiguration, VmcoreddError
from ..manifest import kind_of
from ..threads.loop import AbandonedThreads
from . import builtin, python, settings
from .command import CommandCollector
from .process import Starter
from .settings import Settings


@dataclass(frozen=True, slots=True)
class Planned:
    """One device dump that a collector would make."""

    dump_name: str
    size: int
    """Bytes that it may hold at most."""
    timeout: float
    """Seconds."""
    collector: Collector
    keep_size: bool
    """Whether its note has that size in the vmcore, too, whatever it collects."""
    kind: str
    """Name and version of the format of its data."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A registered collector, or what is wrong with it."""

    name: str
    settings: Settings = field(default_factory=Settings)
    load: python.Load | None = None
    """For a collector in Python."""
    starter: Starter | None = None
    """For a command: what starts its processes, and those of other collectors."""
    error: VmcoreddError | None = None
    masked: bool = False
    """Whether an empty file switches it off, even for those who name it."""
    abandoned: AbandonedThreads | None = None
    """Counts its threads that hang."""

    @property
    def enabled(self) -> bool:
        """Whether it runs without being named; one with an error does, so that the error is seen."""
        return self.settings.enabled and not self.masked

    def plan(self, timeout: float | None, default_timeout: float) -> list[Planned]:
        """Return the device dumps it would make now, enabled or not. Blocks, perhaps for ever.

        Each has *timeout* seconds if given, else those of its file, else *default_timeout*. Raises
        InvalidConfiguration or CollectorFailed.
        """
        if self.error is not None:
            raise self.error
        if self.masked or self.settings.unmet():
            return []
        settings = self.settings
        seconds = timeout or settings.timeout or default_timeout
        collecting: list[tuple[str, int, Collector]]
        if self.load is not None:
            loaded, dumps = python.plan(self.name, self.load)
            collecting = [
                (name, size, python.PythonCollector(self.name, loaded, seconds, self.abandoned))
                for name, size in dumps
            ]
        else:
            collecting = [
                (name, settings.size, CommandCollector(self.name, command, seconds, self.starter))
                for name, command in settings.commands(self.name)
            ]
        kind = kind_of(self.name, settings.version)
        return [Planned(name, size, seconds, each, settings.keep_size, kind) for name, size, each in collecting]


def find(directories: Sequence[Path], abandoned: AbandonedThreads | None = None) -> dict[str, Registered]:
    """Return the collectors of *directories*, of all installed packages, and our own, by name. Blocks.

    *abandoned* counts their threads that hang.
    """
    starter = Starter(abandoned)
    classes = builtin.registered() | python.registered()
    found = {name: Registered(name, load=classes[name], abandoned=abandoned) for name in classes}
    for name, loaded in settings.load(directories).items():
        if loaded is None:
            found[name] = Registered(name, masked=True)
        elif isinstance(loaded, VmcoreddError):
            found[name] = Registered(name, error=loaded)
        elif loaded.command:
            found[name] = Registered(name, loaded, starter=starter, abandoned=abandoned)
        elif name in classes:
            found[name] = Registered(name, loaded, classes[name], abandoned=abandoned)
        else:
            error = InvalidConfiguration(f"{ini.shown(Path(f'{name}.conf'))}: Exec= is missing")
            found[name] = Registered(name, loaded, error=error)
    return dict(sorted(found.items()))

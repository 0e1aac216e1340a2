# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files of registered collectors: ``collectors.d/NAME.conf``, one for each, and drop-ins in ``NAME.conf.d``.

As with units, a file in ``/etc`` masks the one of the same name in ``/usr/lib``, and an empty one, or a link to
``/dev/null``, switches the collector off.
"""

import glob
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ..config import ini, values
from ..config.config import DEFAULT_FILE
from ..errors import InvalidArgs, InvalidConfiguration, VmcoreddError
from ..lookup import matching
from ..note import check_dump_name

SECTION = "Collector"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are, if the service has no PATH."""
VENDOR_DIRECTORY = Path("/usr/lib/vmcoredd/collectors.d")


def is_program(name: str) -> bool:
    """Return whether *name* can be executed, in :data:`PATH` if it has no directory. Blocks."""
    places = [name] if "/" in name else [f"{directory}/{name}" for directory in PATH.split(os.pathsep)]
    return any(os.access(place, os.X_OK) and not os.path.isdir(place) for place in places)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a file says of one collector."""

    dump_name: str = ""
    command: tuple[str, ...] = ()
    """Program and arguments; none for a collector in Python."""
    decoder: tuple[str, ...] = ()
    """Program and arguments that show a device dump of it, which is their standard input."""
    size: int = 1 << 20
    """Bytes that a device dump of it may hold at most."""
    keep_size: bool = False
    """Whether its notes have that size in the vmcore, too, whatever it collects."""
    version: int = 1
    """Of the format of its data: with the collector's name, the kind that the manifest states."""
    timeout: float | None = None
    """Seconds, None for the default of the configuration."""
    enabled: bool = True
    """Whether it runs without being named."""
    instances: str = ""
    """A glob of paths, with one device dump for each path."""
    conditions: tuple[str, ...] = ()
    """Paths that must exist, or with ``!`` must not."""

    def unmet(self) -> str:
        """Return which condition is not met, empty if all are. Blocks."""
        for condition in self.conditions:
            if os.path.exists(condition.lstrip("!")) == condition.startswith("!"):
                return f"ConditionPathExists={condition} is not met"
        return ""

    def commands(self, name: str) -> Iterator[tuple[str, list[str]]]:
        """Yield dump name and command line of each instance; *name* is the collector's. Blocks."""
        instances = [""]
        if self.instances:
            instances = [os.path.basename(path) for path in sorted(glob.glob(self.instances))]
        template = self.dump_name or ("%n_%i" if self.instances else "%n")
        for instance in instances:
            yield _expand(template, name, instance), [_expand(word, name, instance) for word in self.command]

    def missing_program(self, name: str, is_program: Callable[[str], bool] = is_program) -> str:
        """Return a program of the collector *name* that *is_program* does not find, or an empty text. Blocks."""
        programs = {command[0] for _, command in self.commands(name) if command}
        # Without an instance here, too: there may be one in the capture kernel. Its decoder runs elsewhere.
        programs |= {word for word in self.command[:1] if "%" not in word}
        return next((program for program in sorted(programs) if not is_program(program)), "")


def directories(config: Path | None) -> tuple[Path, ...]:
    """Return the directories of collectors for the configuration file *config*; what is in the first wins."""
    return (config or DEFAULT_FILE).with_name("collectors.d"), VENDOR_DIRECTORY


def load(paths: Sequence[Path]) -> dict[str, Settings | VmcoreddError | None]:
    """Read the files in the directories *paths*: for each collector its settings, its error, or None if masked.

    Blocks. A mistake in one file costs only that collector. A directory that cannot be read has its own error.
    """
    found: dict[str, Path] = {}
    loaded: dict[str, Settings | VmcoreddError | None] = {}
    for directory in reversed(paths):
        try:
            found |= {file.name.removesuffix(".conf"): file for file in matching(directory, "[!.]*.conf")}
        except OSError as error:
            message = f"{ini.shown(directory)}: cannot be read: {error.strerror}"
            loaded[str(directory)] = InvalidConfiguration(message)
    for name, file in sorted(found.items()):
        try:
            loaded[name] = _read(name, file, _drop_ins(file, paths))
        except VmcoreddError as error:
            loaded[name] = error
    return loaded


def _drop_ins(main: Path, paths: Sequence[Path]) -> list[Path]:
    found: dict[str, Path] = {}
    for directory in reversed(paths):
        drop_ins = directory / f"{main.name}.d"
        try:
            found |= {file.name: file for file in matching(drop_ins, "*.conf")}
        except OSError as error:
            message = f"{ini.shown(main)}: cannot look for drop-ins: {error.strerror}"
            raise InvalidConfiguration(message) from error
    return [found[name] for name in sorted(found)]


def _read(name: str, main: Path, drop_ins: Sequence[Path]) -> Settings | None:
    settings = Settings()
    for file in [main, *drop_ins]:
        state = _stat(file)
        if state.st_size == 0 and (stat.S_ISREG(state.st_mode) or os.path.samestat(state, os.stat(os.devnull))):
            if file is main:
                return None
            continue
        if not stat.S_ISREG(state.st_mode):
            # To open a FIFO would wait for a writer.
            raise InvalidConfiguration(f"{ini.shown(file)}: is not a regular file")
        try:
            for field, value in ini.read(file, SECTION, KEYS):
                settings = _assign(settings, field, value)
        except FileNotFoundError:
            raise InvalidConfiguration(f"{ini.shown(file)}: no longer exists") from None
    _check(settings, name, main)
    return settings


def _stat(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError as error:
        raise InvalidConfiguration(f"{ini.shown(file)}: cannot be read: {error.strerror}") from error


def _assign(settings: Settings, name: str, value: object) -> Settings:
    if value is None:
        value = next(field.default for field in fields(Settings) if field.name == name)
    elif name == "conditions":
        value = (*settings.conditions, value)
    return replace(settings, **{name: value})  # type: ignore[arg-type]


def _check(settings: Settings, name: str, file: Path) -> None:
    """Raise InvalidConfiguration when the keys contradict each other."""
    words = [settings.dump_name, *settings.command]
    if not settings.instances and any("%i" in word.replace("%%", "") for word in words):
        raise InvalidConfiguration(f"{ini.shown(file)}: %i needs Instances=, which is missing")
    if settings.instances and settings.dump_name and "%i" not in settings.dump_name.replace("%%", ""):
        raise InvalidConfiguration(f"{ini.shown(file)}: Instances= needs %i in Name=")
    try:
        check_dump_name(_expand(settings.dump_name or "%n", name, "i"))
    except InvalidArgs as error:
        raise InvalidConfiguration(f"{ini.shown(file)}: Name=: {error}") from None


def _expand(template: str, name: str, instance: str) -> str:
    specifiers = {"i": instance, "n": name, "%": "%"}
    parts = iter(template.split("%"))
    text = next(parts)
    for part in parts:
        # %% gives an empty part, and the next one is literal.
        text += specifiers[part[0]] + part[1:] if part else "%" + next(parts, "")
    return text


def _template(value: str) -> str:
    literal = value.replace("%%", "").replace("%i", "").replace("%n", "")
    if "%" in literal or "\0" in literal:
        raise ValueError("a text in which each % begins %i, %n or %%")
    return value


def _command(value: str) -> tuple[str, ...]:
    _template(value)
    try:
        words = tuple(shlex.split(value))
    except ValueError as error:
        raise ValueError(f"a command line: {error}") from None
    if not words or not words[0]:
        raise ValueError("a command line: the program is missing")
    return words


def _decoder(value: str) -> tuple[str, ...]:
    words = _command(value)
    if any("%" in word.replace("%%", "") for word in words):
        raise ValueError("a command line without %i and %n: one decoder reads all device dumps of the collector")
    return tuple(word.replace("%%", "%") for word in words)


def _version(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise ValueError("a number of at most nine digits")
    return int(value)


def _glob(value: str) -> str:
    return str(values.path(value))


def _condition(value: str) -> str:
    values.path(value.removeprefix("!"))
    return value


KEYS: ini.Keys = {
    "Name": ("dump_name", _template),
    "Exec": ("command", _command),
    "Decode": ("decoder", _decoder),
    "Size": ("size", values.size_above_0),
    "KeepSize": ("keep_size", values.boolean),
    "FormatVersion": ("version", _version),
    "TimeoutSec": ("timeout", values.seconds),
    "Enabled": ("enabled", values.boolean),
    "Instances": ("instances", _glob),
    "ConditionPathExists": ("conditions", _condition),
}

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The D-Bus object ``org.vmcoredd1.Manager``; :mod:`.dump_interface` has that of each device dump.

Methods are thin: they check arguments and call the dump list, the runner or the writer. Annotations are D-Bus
signatures, as dbus-next wants them; ``dbus/org.vmcoredd1.xml`` documents the same interfaces.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from .. import __version__
from ..bus import (
    SENDER,
    Connection,
    PropertyAccess,
    ServiceInterface,
    Variant,
    dbus_property,
    method,
    signal,
)
from ..bus.dbus_names import MANAGER, MANAGER_PATH
from ..collectors.callback import CallbackCollector
from ..collectors.descriptor import DescriptorCollector
from ..collectors.runner import CollectorRunner
from ..config.config import Configuration
from ..dumps.collector import Collector
from ..dumps.device_dump import Change, DeviceDump
from ..dumps.dump_list import DumpList
from ..errors import InvalidArgs, UnknownDump
from ..note import check_dump_name
from ..writer.result import WriteResult
from ..writer.writer import VmcoreWriter
from .callers import Callers, IntroducedCollector
from .dump_interface import DeviceDumpInterface, dump_path

ANNOUNCE_INTERVAL = 1.0
"""Seconds between two signals for changed properties. For as long a new device dump may have no object: most are
complete before that, and are announced once.
"""

_CHANGING = ("State", "VmcorePath", "DeviceDumps", "DeviceDumpBytes", "BytesTotal", "BytesDone")
_COLLECTING = {"timeout": "t", "wait": "b"}
_ADDING = _COLLECTING | {"keep_size": "b", "kind": "s"}


@dataclass(frozen=True, slots=True)
class Options:
    """The ``a{sv}`` of the methods that collect."""

    timeout: float
    """Seconds."""
    wait: bool = True
    keep_size: bool = False
    kind: str = ""

    @classmethod
    def of(
        cls, options: Mapping[str, Variant], signatures: Mapping[str, str], default_timeout: float
    ) -> "Options":
        """Parse the *options* of a method call, which may have those of *signatures*.

        Raises InvalidArgs for one that is unknown or of another type.
        """
        for name, value in options.items():
            if name not in signatures:
                raise InvalidArgs(f"unknown option {name[:64]!a}")
            if value.signature != signatures[name]:
                raise InvalidArgs(f"option {name} has signature {value.signature!a}, not {signatures[name]!a}")
        values = {name: value.value for name, value in options.items()}
        timeout = values.pop("timeout") / 1e6 if "timeout" in values else default_timeout
        return cls(timeout, **values)


class ManagerInterface(ServiceInterface):
    """The service; exports an object for each device dump, and announces changes."""

    def __init__(
        self,
        bus: Connection,
        dumps: DumpList,
        runner: CollectorRunner,
        writer: VmcoreWriter,
        configuration: Configuration,
    ) -> None:
        super().__init__(MANAGER)
        self._runner = runner
        self._bus = bus
        self._dumps = dumps
        self._writer = writer
        self._configuration = configuration
        self._callers = Callers(bus)
        self._objects: dict[int, DeviceDumpInterface] = {}
        self._without_object: dict[int, tuple[DeviceDump, asyncio.TimerHandle]] = {}
        self._announced: dict[str, object] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Export everything, and follow the dump list and the writer."""
        self._bus.export(MANAGER_PATH, self)
        self._bus.before_listing = self._export_all
        for dump in self._dumps:
            self._export(dump)
        self._dumps.listeners.append(self._dump_changed)
        self._writer.listeners.append(self.VmcoreWritten)
        self._announce_changes()

    def stop(self) -> None:
        """Stop following them, and announce the last changes."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._export_all()
        self._dumps.listeners.remove(self._dump_changed)
        self._writer.listeners.remove(self.VmcoreWritten)
        self._announce()

    @method("dump")
    async def AddDeviceDump(self, dump_name: "s", size: "u", collector: "o", options: "a{sv}") -> "o":
        chosen = self._options(options, _ADDING)
        return await self._add(dump_name, size, CallbackCollector(self._bus, SENDER.get(), collector), chosen)

    @method("dump")
    async def AddDeviceDumpFd(self, dump_name: "s", size: "u", data: "h", options: "a{sv}") -> "o":
        chosen = self._options(options, _ADDING)
        if data is None:
            raise InvalidArgs("argument data is not a file descriptor of this message")
        check_dump_name(dump_name)
        self._dumps.abandoned.check()
        self._bus.fd_closer.check()
        description = f"descriptor from {SENDER.get()}"
        reads = DescriptorCollector.duplicating(
            dump_name, data, description, self._bus.fd_closer, self._dumps.abandoned
        )
        return await self._add(dump_name, size, reads, chosen)

    @method("dumps")
    async def RunCollectors(self, names: "as", options: "a{sv}") -> "ao":
        chosen = self._options(options, _COLLECTING)
        timeout = chosen.timeout if "timeout" in options else None
        numbers = await self._runner.run(names, timeout=timeout, wait=chosen.wait)
        self._export_all()
        return [dump_path(number) for number in numbers]

    @method("dumps")
    async def ListDeviceDumps(self) -> "a(osus)":
        self._export_all()
        return [[dump_path(dump.number), dump.name, dump.size, dump.state.value] for dump in self._dumps]

    @method()
    async def RemoveDeviceDump(self, dump: "o") -> "":
        for known in self._dumps:
            if dump_path(known.number) == dump:
                return await self._dumps.remove(known.number)
        raise UnknownDump(f"there is no device dump {dump[:80]}")

    @method("path")
    async def WriteVmcore(self, options: "a{sv}") -> "s":
        if options:
            raise InvalidArgs(f"unknown option {next(iter(options))!a}")
        return str((await self._writer.write()).path)

    @signal("dump", "dump_name", "size")
    def DeviceDumpAdded(self, dump: DeviceDump) -> "osu":
        return [dump_path(dump.number), dump.name, dump.size]

    @signal("dump_name", "error", "message")
    def DeviceDumpFailed(self, dump: DeviceDump) -> "sss":
        error = dump.error
        return [dump.name, error.dbus_name if error else "", str(error)]

    @signal("dump")
    def DeviceDumpRemoved(self, dump: DeviceDump) -> "o":
        return dump_path(dump.number)

    @signal("path", "size", "device_dumps")
    def VmcoreWritten(self, written: WriteResult) -> "stu":
        return [str(written.path), written.size, written.device_dumps]

    @dbus_property(PropertyAccess.READ)
    def Version(self) -> "s":
        return __version__

    @dbus_property(PropertyAccess.READ)
    def State(self) -> "s":
        if self._writer.writing:
            return "writing"
        if self._dumps.disabled:
            return "disabled"
        return "ready" if self._dumps.accepting else "stopping"

    @dbus_property(PropertyAccess.READ)
    def Source(self) -> "s":
        return str(self._writer.source)

    @dbus_property(PropertyAccess.READ)
    def VmcorePath(self) -> "s":
        return str(self._writer.written.path) if self._writer.written else ""

    @dbus_property(PropertyAccess.READ)
    def DeviceDumps(self) -> "u":
        return len(self._dumps.complete)

    @dbus_property(PropertyAccess.READ)
    def DeviceDumpBytes(self) -> "t":
        return sum(dump.note_size for dump in self._dumps.complete)

    @dbus_property(PropertyAccess.READ)
    def BytesTotal(self) -> "t":
        return self._writer.progress.total

    @dbus_property(PropertyAccess.READ)
    def BytesDone(self) -> "t":
        return self._writer.progress.done

    @dbus_property(PropertyAccess.READ)
    def IdleCollectors(self) -> "a(ss)":
        return [[idle.name, idle.reason] for idle in self._dumps.idle_collectors]

    async def _add(self, name: str, size: int, collector: Collector, options: Options) -> str:
        dump = await self._dumps.add_device_dump(
            name,
            size,
            IntroducedCollector(collector, self._callers, SENDER.get()),
            timeout=options.timeout,
            wait=options.wait,
            keep_size=options.keep_size,
            kind=options.kind,
            caller=SENDER.get(),
        )
        if dump.number in self._without_object:
            self._export_all()
        return dump_path(dump.number)

    def _options(self, options: dict[str, Variant], signatures: Mapping[str, str]) -> Options:
        return Options.of(options, signatures, self._configuration.collector_timeout)

    def _export(self, dump: DeviceDump) -> None:
        self._objects[dump.number] = DeviceDumpInterface(dump)
        self._bus.export(dump_path(dump.number), self._objects[dump.number])

    def _export_all(self) -> None:
        """Export the device dumps that have no object yet, before a caller is told of them."""
        for number in list(self._without_object):
            self._export_late(number)

    def _export_late(self, number: int) -> None:
        dump, timer = self._without_object.pop(number)
        timer.cancel()
        self._export(dump)

    def _dump_changed(self, change: Change, dump: DeviceDump) -> None:
        if change is Change.RESERVED:
            timer = asyncio.get_running_loop().call_later(ANNOUNCE_INTERVAL, self._export_late, dump.number)
            self._without_object[dump.number] = dump, timer
        elif change is Change.REMOVED:
            self._objects.pop(dump.number).forget()
            self._bus.unexport(dump_path(dump.number))
            self.DeviceDumpRemoved(dump)
        else:
            if dump.number in self._without_object:
                self._without_object.pop(dump.number)[1].cancel()
                self._export(dump)
            else:
                self._objects[dump.number].update(dump)
            announce = self.DeviceDumpAdded if change is Change.ADDED else self.DeviceDumpFailed
            announce(dump)

    def _announce_changes(self) -> None:
        """Announce changed properties now, and again after ANNOUNCE_INTERVAL."""
        self._timer = asyncio.get_running_loop().call_later(ANNOUNCE_INTERVAL, self._announce_changes)
        self._announce()

    def _announce(self) -> None:
        values = {name: getattr(self, name) for name in _CHANGING}
        changed = {name: value for name, value in values.items() if self._announced.get(name) != value}
        self._announced = values
        if changed and self._bus.connected:
            self.emit_properties_changed(changed)

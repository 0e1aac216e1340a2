# SPDX-License-Identifier: LGPL-2.1-or-later
"""The D-Bus object of one device dump: ``org.vmcoredd1.DeviceDump``.

Annotations are D-Bus signatures, as dbus-next wants them; ``dbus/org.vmcoredd1.xml`` documents the same interface.
"""

import os
from dataclasses import replace

from ..bus import PropertyAccess, ServiceInterface, dbus_property, method
from ..bus.dbus_names import DEVICE_DUMP, MANAGER_PATH
from ..dumps.device_dump import DeviceDump
from ..errors import UnknownDump

_CHANGING = ("Size", "NoteSize", "State", "Error", "SHA256", "FinishedUSec")


def dump_path(number: int) -> str:
    """Return the object path of a device dump."""
    return f"{MANAGER_PATH}/dump/{number}"


class DeviceDumpInterface(ServiceInterface):
    """One device dump; its properties follow :class:`DeviceDump`."""

    def __init__(self, dump: DeviceDump) -> None:
        super().__init__(DEVICE_DUMP)
        self._dump = dump

    def update(self, dump: DeviceDump) -> None:
        """Show *dump* from now on, and announce the changed properties."""
        self._dump = dump
        self.emit_properties_changed({name: getattr(self, name) for name in _CHANGING})

    def forget(self) -> None:
        """The dump is removed and its descriptor closed; method calls for it may still arrive."""
        self._dump = replace(self._dump, note=None)

    @method("note")
    async def Open(self) -> "h":
        """Return a read-only file descriptor of the data, header included, at offset 0 of the note."""
        if self._dump.note is None:
            raise UnknownDump(f"device dump {self._dump.name}: no data, it is {self._dump.state} or removed")
        # Not in a thread, where the descriptor could be closed meanwhile and its number reused. It does not block:
        # the file is open already, so its inode is in memory.
        return os.open(f"/proc/self/fd/{self._dump.note.fd}", os.O_RDONLY | os.O_CLOEXEC)

    @dbus_property(PropertyAccess.READ)
    def Name(self) -> "s":
        return self._dump.name

    @dbus_property(PropertyAccess.READ)
    def Size(self) -> "u":
        return self._dump.size

    @dbus_property(PropertyAccess.READ)
    def Limit(self) -> "u":
        return self._dump.limit

    @dbus_property(PropertyAccess.READ)
    def NoteSize(self) -> "u":
        return self._dump.note_size

    @dbus_property(PropertyAccess.READ)
    def State(self) -> "s":
        return self._dump.state.value

    @dbus_property(PropertyAccess.READ)
    def Error(self) -> "s":
        return "" if self._dump.error is None else str(self._dump.error)

    @dbus_property(PropertyAccess.READ)
    def Collector(self) -> "s":
        return self._dump.collector

    @dbus_property(PropertyAccess.READ)
    def Kind(self) -> "s":
        return self._dump.kind

    @dbus_property(PropertyAccess.READ)
    def SHA256(self) -> "s":
        return self._dump.sha256

    @dbus_property(PropertyAccess.READ)
    def StartedUSec(self) -> "t":
        return self._dump.started_usec

    @dbus_property(PropertyAccess.READ)
    def FinishedUSec(self) -> "t":
        return self._dump.finished_usec

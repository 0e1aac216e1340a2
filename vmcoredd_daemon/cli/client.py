# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client of the service ``org.vmcoredd1``."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..bus import Connection, Variant, take_fds
from ..bus.dbus_names import BUS_NAME, DEVICE_DUMP, MANAGER, MANAGER_PATH
from ..errors import (
    BusUnavailable,
    CallFailed,
    InvalidArgs,
    TimedOut,
    TooLarge,
    UnknownDump,
    VmcoreddError,
    from_dbus,
)
from ..manifest import IdleCollector, State
from ..note import check_dump_name
from ..threads.fd_closer import close_fds

ANSWER_TIMEOUT = 25.0
"""Seconds for an answer, as in sd-bus: enough for a service that is started by the call."""

DURABLE_TIMEOUT = 30.0
"""Seconds that a call may take beyond the collector's timeout, to wait for its turn and for the disk."""

_UINT_MAX = 0xFFFFFFFF
_PROPERTIES = "org.freedesktop.DBus.Properties"
_ERROR = "org.freedesktop.DBus.Error."

_T = TypeVar("_T", str, int, list[Any])


@dataclass(frozen=True, slots=True)
class DumpInfo:
    """One device dump of the service; sizes are in bytes, times in microseconds since the epoch."""

    name: str
    size: int
    """True size, 0 until it is complete."""
    state: str
    path: str
    """Object path."""
    sha256: str
    limit: int
    """The most bytes it may hold."""
    note_size: int
    """Its bytes in the vmcore; until it is complete, those that are reserved."""
    error: str
    """Why it failed, empty unless it did."""
    collector: str
    kind: str
    """Name and version of the format of its data; empty if no one has said."""
    started_usec: int
    finished_usec: int
    """0 until it is finished."""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the service; sizes are in bytes."""

    version: str
    state: str
    source: str
    vmcore_path: str
    """The vmcore that was written last, empty if none was."""
    device_dumps: int
    device_dump_bytes: int
    """Their bytes in the vmcore."""
    bytes_total: int
    """Bytes to read for the vmcore, 0 before the first is written."""
    bytes_done: int


class Client:
    """A connection to the service.

    Every method raises BusUnavailable if the service is not running or the connection is lost, TimedOut if it does
    not answer, and otherwise the error that it answers with.
    """

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout

    @classmethod
    async def open(cls, address: str | None = None, timeout: float = ANSWER_TIMEOUT) -> "Client":
        """Connect to the bus at *address*, by default the system bus. Raises BusUnavailable.

        *timeout*, in seconds, is for this and for each answer.
        """
        return cls(await Connection.open(address, timeout), timeout)

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()

    async def add_fd(
        self,
        name: str,
        size: int,
        fd: int,
        timeout: float | None = None,
        *,
        keep_size: bool = False,
        kind: str = "",
    ) -> str:
        """Add a device dump of at most *size* bytes, read from *fd*; return its object path once it is durable.

        With *keep_size* its note has that size in the vmcore, as the kernel's own, else that of the data. *kind*
        is NAME/VERSION of the format of the data.
        *timeout*, in seconds, is for reading; None leaves that to the service's configuration. *fd* stays the
        caller's. Raises InvalidArgs, NameInUse, TooLarge, QuotaExceeded, NoSpace, CollectorFailed,
        TimedOut, Busy or Disabled.
        """
        check_dump_name(name)
        if size > _UINT_MAX:
            raise TooLarge(f"device dump {name}: {size} bytes do not fit the 32-bit size of a note")
        if size < 1:
            raise InvalidArgs(f"device dump {name}: size is {size}")
        options = {} if timeout is None else {"timeout": Variant("t", round(timeout * 1e6))}
        if keep_size:
            options["keep_size"] = Variant("b", True)
        if kind:
            options["kind"] = Variant("s", kind)
        deadline = None if timeout is None else timeout + DURABLE_TIMEOUT
        reply = await self._call_long("AddDeviceDumpFd", "suha{sv}", (name, size, 0, options), [fd], deadline)
        return str(reply[0])

    async def run_collectors(self, names: Sequence[str] = (), timeout: float | None = None) -> list[str]:
        """Run registered collectors, by default all that are enabled, and wait for them; return object paths.

        *timeout*, in seconds, is for each of them; None leaves that to the service. Those that failed are among
        the device dumps. Raises InvalidArgs, Busy, Disabled or TimedOut.
        """
        for name in names:
            try:
                name.encode()
            except UnicodeEncodeError:
                raise InvalidArgs(f"collector {name[:80]!a}: the name is not UTF-8") from None
        options = {} if timeout is None else {"timeout": Variant("t", round(timeout * 1e6))}
        reply = await self._call_long("RunCollectors", "asa{sv}", (list(names), options))
        return list(reply[0])

    async def list_dumps(self) -> list[DumpInfo]:
        """Return all device dumps in the order in which they began, including failed and unfinished ones."""
        manager = "org.freedesktop.DBus.ObjectManager"
        (objects,) = await self._call(MANAGER_PATH, manager, "GetManagedObjects")
        dumps = [
            _dump(path, interfaces[DEVICE_DUMP])
            for path, interfaces in objects.items()
            if DEVICE_DUMP in interfaces
        ]
        # Paths end in a number: /10 sorts after /9.
        return sorted(dumps, key=lambda dump: (len(dump.path), dump.path))

    async def open_dump(self, path: str) -> int:
        """Return a read-only descriptor of the note at object path *path*, to be closed by the caller.

        Raises UnknownDump if it has no data.
        """
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self._connection.method_call(BUS_NAME, path, DEVICE_DUMP, "Open")
        except CallFailed as error:
            raise _error(error) from error
        except TimeoutError:
            raise TimedOut(f"the service did not answer within {self._timeout:g} s") from None
        fd, *others = take_fds(reply) or [-1]
        close_fds(others)
        if fd < 0:
            raise VmcoreddError("the service is of another version: Open returned no file descriptor")
        return fd

    async def status(self) -> Status:
        """Return the service's properties."""
        (properties,) = await self._call(MANAGER_PATH, _PROPERTIES, "GetAll", "s", (MANAGER,))
        return Status(
            version=_value(properties, "Version", str),
            state=_value(properties, "State", str),
            source=_value(properties, "Source", str),
            vmcore_path=_value(properties, "VmcorePath", str),
            device_dumps=_value(properties, "DeviceDumps", int),
            device_dump_bytes=_value(properties, "DeviceDumpBytes", int),
            bytes_total=_value(properties, "BytesTotal", int),
            bytes_done=_value(properties, "BytesDone", int),
        )

    async def idle_collectors(self) -> list[IdleCollector]:
        """Return the collectors that made no device dump, and did not fail."""
        (properties,) = await self._call(MANAGER_PATH, _PROPERTIES, "GetAll", "s", (MANAGER,))
        return [IdleCollector(*each) for each in _value(properties, "IdleCollectors", list)]

    async def write(self) -> str:
        """Write the vmcore now, however long that takes, and return its path.

        Raises Busy, NoSpace or WriteFailed.
        """
        reply = await self._call_long("WriteVmcore", "a{sv}", ({},))
        return str(reply[0])

    async def remove(self, name: str) -> None:
        """Remove the device dump *name*; if all of that name failed, remove all of them.

        Raises UnknownDump, Busy or WriteFailed.
        """
        named = [dump for dump in await self.list_dumps() if dump.name == name]
        kept = [dump for dump in named if dump.state != State.FAILED]
        if not named:
            raise UnknownDump(f"there is no device dump {name[:80]!a}")
        for dump in kept or named:
            await self.remove_dump(dump.path)

    async def remove_dump(self, path: str) -> None:
        """Remove the device dump with the object path *path*. Raises UnknownDump, Busy or WriteFailed."""
        await self._call(MANAGER_PATH, MANAGER, "RemoveDeviceDump", "o", (path,))

    async def _call(
        self, path: str, interface: str, member: str, signature: str = "", body: Sequence[object] = ()
    ) -> list[Any]:
        """Call a method that is answered immediately; return its answer."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._request(path, interface, member, signature, body)
        except TimeoutError:
            raise TimedOut(f"the service did not answer within {self._timeout:g} s") from None

    async def _call_long(
        self,
        member: str,
        signature: str,
        body: Sequence[object],
        fds: Sequence[int] = (),
        deadline: float | None = None,
    ) -> list[Any]:
        """Call a method that may take long: *deadline* seconds, or as long as the service answers pings."""
        call = asyncio.create_task(self._request(MANAGER_PATH, MANAGER, member, signature, body, fds))
        try:
            async with asyncio.timeout(deadline):
                while not (await asyncio.wait([call], timeout=self._timeout))[0]:
                    await self._call(MANAGER_PATH, "org.freedesktop.DBus.Peer", "Ping")
                return call.result()
        except TimeoutError:
            raise TimedOut(f"the service did not answer within {deadline} s") from None
        finally:
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

    async def _request(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str,
        body: Sequence[object],
        fds: Sequence[int] = (),
    ) -> list[Any]:
        try:
            reply = await self._connection.method_call(BUS_NAME, path, interface, member, signature, body, fds)
        except CallFailed as error:
            raise _error(error) from error
        close_fds(take_fds(reply))
        return list(reply.body)


def _error(error: CallFailed) -> VmcoreddError:
    """Translate the error of a call for the user."""
    match error.name.removeprefix(_ERROR):
        case "ServiceUnknown" | "NameHasNoOwner":
            return BusUnavailable("the service is not running on this bus")
        case "NoReply":
            return BusUnavailable("the service ended before it answered")
        case "AccessDenied":
            return VmcoreddError("access denied: only root may call the service")
        case _:
            return from_dbus(error.name, error.text)


def _dump(path: str, properties: Mapping[str, Variant]) -> DumpInfo:
    return DumpInfo(
        name=_value(properties, "Name", str),
        size=_value(properties, "Size", int),
        state=_value(properties, "State", str),
        path=path,
        sha256=_value(properties, "SHA256", str),
        limit=_value(properties, "Limit", int),
        note_size=_value(properties, "NoteSize", int),
        error=_value(properties, "Error", str),
        collector=_value(properties, "Collector", str),
        kind=_value(properties, "Kind", str),
        started_usec=_value(properties, "StartedUSec", int),
        finished_usec=_value(properties, "FinishedUSec", int),
    )


def _value(properties: Mapping[str, Variant], name: str, kind: type[_T]) -> _T:
    value = properties[name].value if name in properties else None
    if not isinstance(value, kind):
        raise VmcoreddError(
            f"the service is of another version: property {name} is missing or not of type {kind.__name__}"
        )
    return value

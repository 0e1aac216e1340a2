# SPDX-License-Identifier: LGPL-2.1-or-later
"""The exported objects, their signals, and their introspection."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar

from dbus_next import Message, service
from dbus_next.aio import MessageBus
from dbus_next.introspection import Node

_F = TypeVar("_F", bound=Callable[..., Any])


class ServiceInterface(service.ServiceInterface):
    """An interface of one object."""

    def __init__(self, name: str) -> None:
        # dbus-next inspects the class for each object: that costs as much as a signal.
        kind: type = type(self)
        # The buses, a private attribute of dbus-next, are each object's own.
        vars(self).update(_members(kind, name), _ServiceInterface__buses=set())


@cache
def _members(kind: type, name: str) -> dict[str, Any]:
    found: service.ServiceInterface = object.__new__(kind)
    service.ServiceInterface.__init__(found, name)
    return vars(found)


def method(*results: str) -> Callable[[_F], _F]:
    """Return the decorator of a method of D-Bus; *results* are the names of what it returns."""
    return lambda function: _name_results(service.method()(function), "__DBUS_METHOD", "out_args", results)


def signal(*arguments: str) -> Callable[[_F], _F]:
    """Return the decorator of a signal; *arguments* are the names of what it carries."""
    return lambda function: _name_results(service.signal()(function), "__DBUS_SIGNAL", "args", arguments)


def _name_results(decorated: _F, mark: str, kind: str, names: tuple[str, ...]) -> _F:
    # dbus-next leaves them without names in the introspection.
    for argument, name in zip(getattr(vars(decorated)[mark].introspection, kind), names, strict=True):
        argument.name = name
    return decorated


class _Value(NamedTuple):
    """A Variant whose value is not checked: marshalling refuses a wrong one anyway."""

    signature: str
    value: Any


class ExportingBus(MessageBus):
    """Exports each interface at one path, and finds that path without a search."""

    _object_manager: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._paths: dict[service.ServiceInterface, str] = {}
        self.before_listing: Callable[[], None] = lambda: None
        """Called before the objects are listed, to export those that have none yet."""
        self.announces = True
        """Whether signals are sent. The bus keeps them from other users only while we own the policy's name."""

    def export(self, path: str, interface: service.ServiceInterface) -> None:
        """Export *interface* at *path*, and announce it."""
        self._paths[interface] = path
        super().export(path, interface)

    def unexport(self, path: str, interface: Any = None) -> None:
        """Stop exporting everything at *path*, or *interface* there, and announce that."""
        for exported in self._path_exports.get(path, ()):
            if interface in {None, exported, exported.name}:
                self._paths.pop(exported, None)
        super().unexport(path, interface)

    def _has_interface(self, interface: service.ServiceInterface) -> bool:
        return interface in self._paths

    def _interface_signal_notify(
        self,
        interface: service.ServiceInterface,
        interface_name: str,
        member: str,
        signature: str,
        body: list[Any],
        unix_fds: list[int] | None = None,
    ) -> None:
        # dbus-next searches all objects for the path.
        if self.announces:
            self.send(
                Message.new_signal(self._paths[interface], interface_name, member, signature, body, unix_fds)
            )

    def _emit_interface_added(self, path: str, interface: service.ServiceInterface) -> None:
        # dbus-next sends it from the object's own path; the specification wants the ObjectManager's.
        if self.connected:
            known = service.ServiceInterface._get_properties(interface)
            properties = {each.name: _Value(each.signature, getattr(interface, each.name)) for each in known}
            self._emit("InterfacesAdded", "oa{sa{sv}}", [path, {interface.name: properties}])

    def _emit_interface_removed(self, path: str, removed_interfaces: list[str]) -> None:
        if self.connected:
            self._emit("InterfacesRemoved", "oas", [path, removed_interfaces])

    def _emit(self, member: str, signature: str, body: list[Any]) -> None:
        interface = "org.freedesktop.DBus.ObjectManager"
        if self.announces:
            self.send(Message.new_signal(self._object_manager, interface, member, signature, body))

    def _default_get_managed_objects_handler(self, msg: Message, send_reply: Any) -> None:
        self.before_listing()
        super()._default_get_managed_objects_handler(msg, send_reply)

    def _introspect_export_path(self, path: str) -> Any:
        # dbus-next splits every path at this text: dump/10 becomes a child "0" of dump/1.
        node = super()._introspect_export_path(path)
        above = path.rstrip("/") + "/"
        below = (other.removeprefix(above) for other in self._path_exports if other.startswith(above))
        # For the root, which is above itself, the rest is empty.
        node.nodes = [Node(name) for name in sorted({rest.partition("/")[0] for rest in below if rest})]
        return node

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What introspection says of the objects below another."""

from typing import Any

from dbus_next.aio import MessageBus
from dbus_next.introspection import Node


class IntrospectedBus(MessageBus):
    """Lists the names right below a path that lead to exported objects, and no others."""

    def _introspect_export_path(self, path: str) -> Any:
        # dbus-next splits every path at this text: of dump/10 it makes a child "0" of dump/1.
        node = super()._introspect_export_path(path)
        above = path.rstrip("/") + "/"
        below = (other.removeprefix(above) for other in self._path_exports if other.startswith(above))
        # Of the root, which is above itself, nothing is left.
        node.nodes = [Node(name) for name in sorted({rest.partition("/")[0] for rest in below if rest})]
        return node

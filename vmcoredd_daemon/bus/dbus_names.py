# SPDX-License-Identifier: LGPL-2.1-or-later
"""The names on the bus: of the service, its objects and its interfaces."""

DBUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
"""Name, path and interface of the bus itself."""

BUS_NAME = "org.vmcoredd1"
MANAGER_PATH = "/org/vmcoredd1"
MANAGER = "org.vmcoredd1.Manager"
DEVICE_DUMP = "org.vmcoredd1.DeviceDump"
COLLECTOR = "org.vmcoredd1.Collector"

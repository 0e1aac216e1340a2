# SPDX-License-Identifier: LGPL-2.1-or-later
"""Collectors that come with vmcoredd: they find what this machine has, and need no configuration.

Each is a class as a vendor's package would have it, see vmcoredd-collectors(7), in a file of its own that may be
copied. They are in a table, not in the metadata of the package: an initramfs has only modules. They are imported
when they are asked what they would collect.
"""

import functools
import importlib
from collections.abc import Mapping
from types import MappingProxyType

from ..python import DeviceCollector, Load

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "devcoredump": "devcoredump:Devcoredump",
        "devlink": "devlink:Devlink",
        "edac": "edac:Edac",
        "ethtool": "ethtool:Ethtool",
        "fdt": "fdt:Fdt",
        "firmware_tables": "firmware_tables:FirmwareTables",
        "ipmi": "ipmi:Ipmi",
        "nvme": "nvme:Nvme",
        "pci": "pci:Pci",
        "pmt": "pmt:Pmt",
        "pstore": "pstore:Pstore",
    }
)
"""The module in this package, and the class, of each collector."""


def registered() -> dict[str, Load]:
    """Return functions that load them, by name."""
    return {name: functools.partial(_load, *value.split(":")) for name, value in BUILT_IN.items()}


def _load(module: str, name: str) -> type[DeviceCollector]:
    kind: type[DeviceCollector] = getattr(importlib.import_module(f".{module}", __name__), name)
    return kind

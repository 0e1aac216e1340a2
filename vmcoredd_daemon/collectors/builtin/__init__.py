# SPDX-License-Identifier: LGPL-2.1-or-later
"""Collectors that come with vmcoredd: they find what this machine has, and need no configuration.

Each is a class as a vendor's package would have it (docs/collectors.md), in a file of its own that may be copied.
They are in a table, not in the metadata of the package: an initramfs has the modules only. Nothing here imports
them.
"""

from collections.abc import Mapping
from types import MappingProxyType

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "devcoredump": "devcoredump:Devcoredump",
        "edac": "edac:Edac",
        "ethtool": "ethtool:Ethtool",
        "firmware_tables": "firmware_tables:FirmwareTables",
        "nvme": "nvme:Nvme",
        "pci": "pci:Pci",
        "pmt": "pmt:Pmt",
        "pstore": "pstore:Pstore",
    }
)
"""For each collector its module in this package, and its class."""

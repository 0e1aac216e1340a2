# SPDX-License-Identifier: LGPL-2.1-or-later
"""Error bits of PCI Express Advanced Error Reporting: the same in status, mask and severity registers.

PCI Express Base Specification 6.0, 7.8.4.2 to 7.8.4.6; Linux ``include/uapi/linux/pci_regs.h``. The names are the
specification's, without the last word, which is Status, Mask or Severity.
"""

from collections.abc import Mapping
from types import MappingProxyType

UNCORRECTABLE: Mapping[int, str] = MappingProxyType(
    {
        4: "Data Link Protocol Error",
        5: "Surprise Down Error",
        12: "Poisoned TLP Received",
        13: "Flow Control Protocol Error",
        14: "Completion Timeout",
        15: "Completer Abort",
        16: "Unexpected Completion",
        17: "Receiver Overflow",
        18: "Malformed TLP",
        19: "ECRC Error",
        20: "Unsupported Request Error",
        21: "ACS Violation",
        22: "Uncorrectable Internal Error",
        23: "MC Blocked TLP",
        24: "AtomicOp Egress Blocked",
        25: "TLP Prefix Blocked Error",
        26: "Poisoned TLP Egress Blocked",
        27: "DMWr Request Egress Blocked",
        28: "IDE Check Failed",
        29: "Misrouted IDE TLP",
        30: "PCRC Check Failed",
        31: "TLP Translation Egress Blocked",
    }
)
"""Uncorrectable Error Status, Mask and Severity Registers, 7.8.4.2 to 7.8.4.4: bit, name."""

CORRECTABLE: Mapping[int, str] = MappingProxyType(
    {
        0: "Receiver Error",
        6: "Bad TLP",
        7: "Bad DLLP",
        8: "REPLAY_NUM Rollover",
        12: "Replay Timer Timeout",
        13: "Advisory Non-Fatal Error",
        14: "Corrected Internal Error",
        15: "Header Log Overflow",
    }
)
"""Correctable Error Status and Mask Registers, 7.8.4.5 and 7.8.4.6: bit, name."""

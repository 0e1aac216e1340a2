# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stock tools that read a device dump from a file, and say more than our own decoders: names of vendors and slots.

nvme-cli, ipmitool and ethtool read only devices, not files.
"""

import shutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import BinaryIO

from ..errors import InvalidDump
from .apart import decode_by_program
from .decoded import Decoded, Section

STOCK_TOOLS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dmi": ("dmidecode", "--from-dump", "/dev/stdin"),
        "pci": ("lspci", "-F", "/dev/stdin", "-nnvvv"),
    }
)
"""Command lines, by the name of the device dump."""


def decode_by_stock_tool(dump_name: str, data: BinaryIO) -> Decoded | None:
    """Return the text of the tool for this device dump; None if there is none, or it fails. Blocks."""
    command = STOCK_TOOLS.get(dump_name)
    if command is None or shutil.which(command[0]) is None:
        return None
    try:
        decoded = decode_by_program(command, data)
    except InvalidDump:
        # Our own decoder then says what it can.
        return None
    name = " ".join(word for word in command if word not in ("-F", "--from-dump", "/dev/stdin"))
    return Decoded(sections=tuple(Section(name, section.parts) for section in decoded.sections))

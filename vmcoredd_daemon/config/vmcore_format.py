# SPDX-License-Identifier: LGPL-2.1-or-later
"""Format, compression and contents of the vmcore, as configured."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Format(StrEnum):
    """Format of the vmcore."""

    AUTO = "auto"
    """The best that is available: as KDUMP, or else as ELF."""
    ELF = "elf"
    KDUMP = "kdump"
    """As makedumpfile filters and compresses it."""
    NONE = "none"
    """Written by kdump, which asks for the device dumps: ``vmcoredd core-collector``."""


class Compression(StrEnum):
    """How makedumpfile compresses pages."""

    NONE = "none"
    ZLIB = "zlib"
    LZO = "lzo"
    SNAPPY = "snappy"
    ZSTD = "zstd"

    @property
    def option(self) -> tuple[str, ...]:
        """The option of makedumpfile."""
        return {"zlib": ("-c",), "lzo": ("-l",), "snappy": ("-p",), "zstd": ("-z",)}.get(self.value, ())


COMMAND_LINE = Path("/proc/cmdline")
"""Of this kernel."""
KDUMP_TOOLS = "systemd.unit=kdump-tools-dump.service"
"""Debian's kdump-tools boots the capture kernel with it."""


def default_format() -> Format:
    """Return the format unless one is configured: none if kdump-tools writes the vmcore in this boot."""
    try:
        words = COMMAND_LINE.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        words = []
    return Format.NONE if KDUMP_TOOLS in words else Format.AUTO


@dataclass(frozen=True, slots=True)
class Output:
    """What the vmcore is to be."""

    format: Format = field(default_factory=default_format)
    dump_level: int = 31
    """Which pages makedumpfile leaves out, 0 to 31; see makedumpfile(8)."""
    compression: Compression = Compression.LZO
    manifest: bool = True

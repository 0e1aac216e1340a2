# SPDX-License-Identifier: LGPL-2.1-or-later
"""Format, compression and contents of the vmcore, as configured."""

from dataclasses import dataclass
from enum import StrEnum


class Format(StrEnum):
    """Format of the vmcore."""

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


@dataclass(frozen=True, slots=True)
class Output:
    """What the vmcore is to be."""

    format: Format = Format.ELF
    dump_level: int = 31
    """Which pages makedumpfile leaves out, 0 to 31; see makedumpfile(8)."""
    compression: Compression = Compression.LZO
    manifest: bool = True

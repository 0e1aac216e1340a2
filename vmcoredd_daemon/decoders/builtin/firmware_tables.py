# SPDX-License-Identifier: LGPL-2.1-or-later
"""The two device dumps of the collector firmware_tables: ACPI's error tables, and SMBIOS."""

from typing import BinaryIO

from ..decoded import Decoded
from .acpi_apei import decode as decode_acpi_apei
from .dmi import decode as decode_dmi


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Decode ``acpi_apei`` or ``dmi``. Raises InvalidDump."""
    return (decode_dmi if dump_name == "dmi" else decode_acpi_apei)(dump_name, data)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Firmware tables: errors (ACPI APEI), and the inventory of the machine (SMBIOS)."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .archive import Archive, archive_size
from .files import Problems, chunks, copy

TABLES = ("BERT", "EINJ", "ERST", "HEST", "data/*")

ENTRY_POINT_SIZE = 32
"""Bytes before the table in a file of dmidecode."""

MAX_ENTRY_POINT_SIZE = 31


class FirmwareTables:
    """Two device dumps: ``acpi_apei`` and ``dmi``. kexec resets nothing of this.

    ``acpi_apei`` is a tar archive of ACPI's error tables and their data, from ``/sys/firmware/acpi/tables``
    (Linux ``Documentation/ABI/testing/sysfs-firmware-acpi``): ``iasl -d`` decodes tables. ``data/BERT`` has what
    the firmware recorded about the reset before the crashed kernel booted. Some kB.

    ``dmi`` is ``/sys/firmware/dmi/tables`` in the format of ``dmidecode --dump-bin``, which
    ``dmidecode --from-dump FILE`` decodes. Some kB.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._acpi = root / "sys/firmware/acpi/tables"
        self._entry_point = root / "sys/firmware/dmi/tables/smbios_entry_point"
        self._dmi = root / "sys/firmware/dmi/tables/DMI"

    def device_dumps(self) -> Iterator[tuple[str, int]]:
        """Return the two, if there is something to collect."""
        if tables := self._tables():
            yield "acpi_apei", archive_size(table.stat().st_size for table in tables)
        if self._entry_point.exists() and self._dmi.exists():
            yield "dmi", ENTRY_POINT_SIZE + self._dmi.stat().st_size

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        """Write one of them; raise OSError at the end if a part of it could not be read."""
        if dump_name == "dmi":
            entry_point = b"".join(chunks(self._entry_point))
            data.write(relocated(entry_point).ljust(ENTRY_POINT_SIZE, b"\0"))
            copy(self._dmi, data)
            return
        archive = Archive(data)
        with Problems() as problems:
            for table in self._tables():
                with problems.kept():
                    archive.add_file(str(table.relative_to(self._acpi)), table)
            archive.finish()

    def _tables(self) -> list[Path]:
        return sorted(file for name in TABLES for file in self._acpi.glob(name) if file.is_file())


def relocated(entry_point: bytes) -> bytes:
    """Return an SMBIOS entry point with the table at ENTRY_POINT_SIZE, where dmidecode expects it.

    Offsets and checksums are from DSP0134, 5.2. Raises OSError for another kind.
    """
    changed = bytearray(entry_point)
    if changed.startswith(b"_SM3_") and 24 <= len(changed) <= MAX_ENTRY_POINT_SIZE:
        changed[0x10:0x18] = ENTRY_POINT_SIZE.to_bytes(8, "little")
        _set_checksum(changed, 0x05, slice(0, changed[0x06]))
    elif changed.startswith(b"_SM_") and len(changed) == MAX_ENTRY_POINT_SIZE:
        changed[0x18:0x1C] = ENTRY_POINT_SIZE.to_bytes(4, "little")
        _set_checksum(changed, 0x15, slice(0x10, 0x1F))
        _set_checksum(changed, 0x04, slice(0, changed[0x05]))
    elif changed.startswith(b"_DMI_") and len(changed) == 15:
        changed[0x08:0x0C] = ENTRY_POINT_SIZE.to_bytes(4, "little")
        _set_checksum(changed, 0x05, slice(0, 15))
    else:
        raise OSError(f"smbios_entry_point: unknown kind {entry_point[:5]!r} of {len(entry_point)} bytes")
    return bytes(changed)


def _set_checksum(entry_point: bytearray, at: int, part: slice) -> None:
    """Make the bytes of *part* add up to zero."""
    entry_point[at] = 0
    entry_point[at] = -sum(entry_point[part]) & 0xFF

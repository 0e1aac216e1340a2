# SPDX-License-Identifier: LGPL-2.1-or-later
import subprocess
from pathlib import Path

import pytest

from tests.collectors.builtin.collecting import collect, members, tree
from tests.lib.tools import require
from vmcoredd_daemon.collectors.builtin.firmware_tables import FirmwareTables

ACPI = "sys/firmware/acpi/tables"
DMI = "sys/firmware/dmi/tables"

# System information (type 1), then the end (type 127).
TABLE = (
    bytes([1, 27, 0, 1, 1, 2, 3, 4, *range(16), 6, 0, 0])
    + b"Vendor Ltd.\0Server 9000\0v1\0SERIAL1\0\0"
    + bytes([127, 4, 2, 1, 0, 0])
)


def with_checksum(entry_point: bytes, at: int) -> bytes:
    return entry_point[:at] + bytes([-sum(entry_point) & 0xFF]) + entry_point[at + 1 :]


def entry_points() -> dict[str, bytes]:
    # The address is of memory that the file does not have, the size of version 3 a maximum.
    address, size = 0x7F00_0000, len(TABLE).to_bytes(2, "little")
    three = (
        b"_SM3_" + bytes([0, 24, 3, 2, 0, 1, 0]) + (0x1000).to_bytes(4, "little") + address.to_bytes(8, "little")
    )
    dmi = b"_DMI_\0" + size + address.to_bytes(4, "little") + bytes([2, 0, 0x28])
    two = b"_SM_" + bytes([0, 31, 2, 8, 64, 0, 0, 0, 0, 0, 0, 0]) + with_checksum(dmi, 5)
    return {"3": with_checksum(three, 5), "2": with_checksum(two, 4), "legacy": with_checksum(dmi, 5)}


@pytest.mark.parametrize("version", ["3", "2", "legacy"])
def test_dmidecode_reads_it_back(version: str, tmp_path: Path) -> None:
    require("dmidecode")
    tree(tmp_path, {f"{DMI}/smbios_entry_point": entry_points()[version], f"{DMI}/DMI": TABLE})
    dump, error = collect(FirmwareTables(tmp_path))["dmi"]
    assert error == ""
    (tmp_path / "dump").write_bytes(dump)
    decode = ["dmidecode", "--from-dump", tmp_path / "dump"]
    result = subprocess.run(decode, capture_output=True, text=True, check=True)
    assert "Product Name: Server 9000" in result.stdout
    assert "End Of Table" in result.stdout
    assert result.stderr == ""
    assert "broken" not in result.stdout.lower()


def test_entry_point_of_another_kind(tmp_path: Path) -> None:
    tree(tmp_path, {f"{DMI}/smbios_entry_point": b"_SM9_", f"{DMI}/DMI": TABLE})
    dump, error = collect(FirmwareTables(tmp_path))["dmi"]
    assert dump == b""
    assert "smbios_entry_point: unknown kind b'_SM9_' of 5 bytes" in error


def test_error_tables_come_out_of_the_archive(tmp_path: Path) -> None:
    tables = {"BERT": b"BERT0000", "data/BERT": b"\1" * 700, "HEST": b"HEST1"}
    tree(tmp_path, {f"{ACPI}/{name}": content for name, content in [*tables.items(), ("DSDT", b"not this")]})
    made = collect(FirmwareTables(tmp_path))
    dump, error = made.pop("acpi_apei")
    assert (members(dump), error, made) == (tables, "", {})


def test_machine_without_tables(tmp_path: Path) -> None:
    assert list(FirmwareTables(tmp_path).device_dumps()) == []

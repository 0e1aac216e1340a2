# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import io
import struct

import pytest

from tests.decoders.damage import endures
from vmcoredd_daemon.decoders.builtin.devcoredump import decode
from vmcoredd_daemon.decoders.decoded import Decoded, Field, Text
from vmcoredd_daemon.errors import InvalidDump

AMDGPU = b"""\
**** AMDGPU Device Coredump ****
version: 1
kernel: 6.7.0
module: amdgpu
time: 45.084775181
process_name: firefox PID: 1780

Ring timed out details
IP Type: 0 Ring Name: gfx_0.0.0
"""
ATH11K = struct.pack("<16sII16s", b"ATH11K-FW-DUMP", 4096, 2, bytes(16)) + bytes(4060)
IWLWIFI = struct.pack("<II", 0x14789633, 8192) + b"\x01\x02" * 2000
ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 4, 183, 1) + bytes(44) + b"\xaa" * 100
BLUETOOTH = (
    b"Bluetooth devcoredump\nState: 2\0Controller Name: btusb\nFirmware Version: 1\n--- Start dump ---\n\x00\x9c"
)


def decoded(data: bytes) -> Decoded:
    return decode("devcd1_0000:01:00.0", io.BytesIO(data))


def fields(found: Decoded) -> dict[str, object]:
    return {part.name: part.text or part.value for part in found.sections[0].parts if isinstance(part, Field)}


def text(found: Decoded) -> Text:
    [text] = [part for part in found.sections[0].parts if isinstance(part, Text)]
    return text


def test_text_of_a_driver() -> None:
    found = decoded(AMDGPU)
    assert found.summary == "device core dump of amdgpu, a device failed, 180 bytes"
    assert fields(found)["kernel"] == "6.7.0"
    assert text(found).text == AMDGPU.decode()
    private = [part.name for part in found.sections[0].parts if isinstance(part, Field) and part.private]
    assert private == ["process_name"]


def test_headers_of_drivers() -> None:
    found = decoded(ATH11K)
    assert found.title == "device core dump of ath11k"
    assert {"len": "4096 bytes", "version": "2", "Size": f"{len(ATH11K)} bytes"}.items() <= fields(found).items()
    assert text(found).name == f"first 4096 of {len(ATH11K)} bytes"
    assert fields(decoded(IWLWIFI))["file_len"] == "8192 bytes"
    assert fields(decoded(BLUETOOTH)) | {"Size": ""} == {
        "Format": "Bluetooth",
        "Size": "",
        "State": "2\\x00Controller Name: btusb",
        "Firmware Version": "1",
    }


def test_elf() -> None:
    found = decoded(ELF)
    assert found.summary == f"device core dump, a device failed, ELF, {len(ELF)} bytes"
    assert fields(found)["ELF class and data"] == "64-bit, little-endian"
    assert (fields(found)["ELF type"], fields(found)["ELF machine"]) == ("core", "0xb7")


def test_unknown_formats_and_nothing() -> None:
    found = decoded(b"\x01\x02\x03" + bytes(5000))
    assert (found.title, fields(found)["Format"]) == ("device core dump", "unknown")
    assert text(found).text.startswith("00000000: 0102 0300")
    for data, why in ((b"", "nothing"), (bytes(64), "zero")):
        with pytest.raises(InvalidDump, match=why):
            decoded(data)


def test_damaged_and_hostile_dumps() -> None:
    found = decoded(b"kernel: \x1b[31m\nstate: <b>\n")
    assert fields(found)["kernel"] == "\\x1b[31m"
    endures(decode, samples(), cuts=100, flips=80)


def samples() -> list[tuple[str, bytes]]:
    """Return device dumps as machines have them."""
    return [("devcd1_0000:01:00.0", data) for data in (AMDGPU, ATH11K, IWLWIFI, ELF, BLUETOOTH)]

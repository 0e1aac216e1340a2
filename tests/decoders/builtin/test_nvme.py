# SPDX-License-Identifier: LGPL-2.1-or-later
"""NVMe log pages, as nvme-cli reads the same bytes, and by the specification; tests/kdump has a controller."""

from __future__ import annotations

import io
import json
import os
import random
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.lib.tools import require
from vmcoredd_daemon.collectors.builtin.archive import Archive
from vmcoredd_daemon.decoders.builtin.nvme import decode
from vmcoredd_daemon.decoders.builtin.nvme_status import CODES, Status
from vmcoredd_daemon.decoders.decoded import Decoded, Field, Table, pack, to_json, unpack
from vmcoredd_daemon.errors import InvalidDump

NAME = "nvme_0000:03:00.0"
SERIAL = "S5GXNF0R123456"
SUBSYSTEM = "nqn.1994-11.com.samsung:nvme:980PRO:M.2:S5GXNF0R123456"


def page(size: int, values: Mapping[int, bytes | tuple[int, int]]) -> bytes:
    """Return *size* bytes with values at offsets: bytes, or an integer and its size."""
    data = bytearray(size)
    for offset, value in values.items():
        part = value if isinstance(value, bytes) else value[0].to_bytes(value[1], "little")
        data[offset : offset + len(part)] = part
    return bytes(data)


def identify(**changes: Any) -> bytes:
    values: dict[int, bytes | tuple[int, int]] = {
        0: (0x144D, 2),
        2: (0x144D, 2),
        4: SERIAL.encode().ljust(20),
        24: b"Samsung SSD 980 PRO 1TB".ljust(40),
        64: b"5B2QGXA7",
        72: (2, 1),
        73: b"\x38\x25\x00",
        76: (0b1010, 1),
        77: (7, 1),
        78: (6, 2),
        80: (0x10300, 4),
        84: (200000, 4),
        88: (8000000, 4),
        92: (0x200, 4),
        96: (0x2010, 4),
        111: (1, 1),
        112: bytes(range(1, 17)),
        128: (5, 2),
        256: (0x17, 2),
        258: (7, 1),
        259: (3, 1),
        260: (0x16, 1),
        261: (0xE, 1),
        262: (63, 1),
        263: (4, 1),
        265: (1, 1),
        266: (355, 2),
        268: (358, 2),
        272: (16384, 4),
        280: (1000204886016, 16),
        296: (1 << 100, 16),
        316: (35, 2),
        322: (1, 2),
        324: (318, 2),
        326: (356, 2),
        328: (0xA0000006, 4),
        512: (0x66, 1),
        513: (0x44, 1),
        514: (256, 2),
        516: (1, 4),
        520: (0x57, 2),
        524: (5, 1),
        525: (7, 1),
        526: (1023, 2),
        768: SUBSYSTEM.encode(),
        2048: (849, 2),
        2048 + 16: (45, 2),
        2048 + 18: (0x80, 1),
        2048 + 20: (620, 2),
        2048 + 22: (0x82, 1),
        2048 + 3 * 32: (500, 2),
        2048 + 3 * 32 + 3: (3, 1),
        2048 + 3 * 32 + 4: (2000, 4),
        2048 + 3 * 32 + 8: (1200, 4),
    }
    values.update(changes.get("values", {}))
    return page(4096, values)


def smart(values: Mapping[int, bytes | tuple[int, int]] | None = None) -> bytes:
    healthy: dict[int, bytes | tuple[int, int]] = {
        1: (311, 2),
        3: (100, 1),
        4: (10, 1),
        5: (3, 1),
        32: (1699027, 16),
        48: (17586666, 16),
        64: (16394111, 16),
        80: (136342875, 16),
        96: (402, 16),
        112: (381, 16),
        128: (145, 16),
        176: (499, 16),
        200: (311, 2),
        202: (320, 2),
        224: (7, 4),
    }
    return page(512, {**healthy, **(values or {})})


FAILING = smart(
    {
        0: (0b000111, 1),
        1: (356, 2),
        3: (4, 1),
        5: (103, 1),
        48: ((1 << 128) - 1, 16),
        144: (14, 16),
        160: (1 << 65, 16),
        192: (12, 4),
        196: (3, 4),
        214: (300, 2),
        216: (5, 4),
        220: (6, 4),
        228: (8, 4),
    }
)

FIRMWARE = page(512, {0: (0x21, 1), 8: b"5B2QGXA7", 16: b"6B2QGXA7", 32: b"4B2QGXA7"})


def error(
    count: int, status: int, *, queue: int = 3, command: int = 0x12, location: int = 0xFFFF, lba: int = 0x123456789
) -> bytes:
    """Return an entry; *status* is type and code, as in ``0x281``."""
    return page(
        64,
        {
            0: (count, 8),
            8: (queue, 2),
            10: (command, 2),
            12: (status << 1 | 0x8001, 2),
            14: (location, 2),
            16: (lba, 8),
            24: (1, 4),
            28: (0x80, 1),
            32: (0xFEDCBA9876543210, 8),
            40: (9, 2),
        },
    )


ERRORS = error(7, 0x281) + error(6, 0x281) + error(5, 0x002, location=0x128) + bytes(61 * 64)

TELEMETRY = page(
    512 * 4,
    {0: (8, 1), 5: b"\x38\x25\x00", 8: (1, 2), 10: (2, 2), 12: (3, 2), 382: (1, 1), 383: (5, 1), 384: b"PANIC 7"},
)


def archive(members: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    written = Archive(data)
    for name, content in members.items():
        written.add(name, len(content), [content])
    written.finish()
    return data.getvalue()


HEALTHY_MEMBERS = {
    "identify_controller": identify(),
    "smart_log": smart(),
    "firmware_slot_log": page(512, {0: (1, 1), 8: b"5B2QGXA7"}),
    "error_log": bytes(64 * 64),
}
FAILING_MEMBERS = {
    "identify_controller": identify(),
    "smart_log": FAILING,
    "firmware_slot_log": FIRMWARE,
    "error_log": ERRORS,
    "telemetry_host": page(512, {0: (7, 1)}),
    "telemetry_controller": TELEMETRY,
}


def samples() -> list[tuple[str, bytes]]:
    """Return dump names and device dumps for tests.fuzz."""
    return [(NAME, archive(HEALTHY_MEMBERS)), (NAME, archive(FAILING_MEMBERS))]


def decoded(members: Mapping[str, bytes]) -> Decoded:
    return decode(NAME, io.BytesIO(archive(members)))


def fields(found: Decoded, member: str) -> dict[str, Field]:
    (section,) = (section for section in found.sections if section.name == member)
    return {part.name: part for part in section.parts if isinstance(part, Field)}


def table(found: Decoded, member: str) -> list[dict[str, Any]]:
    (section,) = (section for section in found.sections if section.name == member)
    (only,) = (part for part in section.parts if isinstance(part, Table))
    return [dict(zip(only.columns, row, strict=True)) for row in only.rows]


# nvme-cli, whose commands to a device are answered with the same bytes.

ANSWER = r"""
#include <asm/ioctl.h>
#include <fcntl.h>
#include <linux/nvme_ioctl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    struct nvme_passthru_cmd *command = va_arg(arguments, struct nvme_passthru_cmd *);
    va_end(arguments);
    if (request != NVME_IOCTL_ADMIN_CMD)
        return -1;
    char path[4096];
    snprintf(path, sizeof(path), "%s/%02x-%02x", getenv("ANSWERS"), command->opcode, command->cdw10 & 0xff);
    int file = open(path, O_RDONLY);
    if (file < 0)
        return 0x4002;
    char *buffer = (char *)(uintptr_t)command->addr;
    memset(buffer, 0, command->data_len);
    ssize_t size = pread(file, buffer, command->data_len, command->opcode == 2 ? command->cdw12 : 0);
    close(file);
    return size < 0 ? -1 : 0;
}
"""

COMMANDS = {
    "identify_controller": "06-01",
    "error_log": "02-01",
    "smart_log": "02-02",
    "firmware_slot_log": "02-03",
}


class NvmeCli:
    def __init__(self, directory: Path) -> None:
        require("gcc", "nvme")
        self._answers = directory
        self._library = directory / "answer.so"
        source = directory / "answer.c"
        source.write_text(ANSWER)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", self._library, source], check=True)

    def says(self, members: Mapping[str, bytes], *command: str) -> str:
        for name, content in members.items():
            if name in COMMANDS:
                (self._answers / COMMANDS[name]).write_bytes(content)
        environment = {**os.environ, "ANSWERS": str(self._answers), "LD_PRELOAD": str(self._library)}
        # Any character device is an NVMe controller if its commands are answered.
        run = subprocess.run(
            ["nvme", command[0], "/dev/null", *command[1:]],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return run.stdout

    def json(self, members: Mapping[str, bytes], command: str) -> dict[str, Any]:
        answer = json.loads(self.says(members, command, "-o", "json"))
        assert isinstance(answer, dict)
        return answer


@pytest.fixture(scope="module")
def nvme_cli(tmp_path_factory: pytest.TempPathFactory) -> NvmeCli:
    return NvmeCli(tmp_path_factory.mktemp("nvme"))


SMART_NAMES = {
    "critical_warning": "Critical Warning",
    "temperature": "Composite Temperature",
    "avail_spare": "Available Spare",
    "spare_thresh": "Available Spare Threshold",
    "percent_used": "Percentage Used",
    "endurance_grp_critical_warning_summary": "Endurance Group Critical Warning Summary",
    "data_units_read": "Data Units Read",
    "data_units_written": "Data Units Written",
    "host_read_commands": "Host Read Commands",
    "host_write_commands": "Host Write Commands",
    "controller_busy_time": "Controller Busy Time",
    "power_cycles": "Power Cycles",
    "power_on_hours": "Power On Hours",
    "unsafe_shutdowns": "Unsafe Shutdowns",
    "media_errors": "Media and Data Integrity Errors",
    "num_err_log_entries": "Number of Error Information Log Entries",
    "warning_temp_time": "Warning Composite Temperature Time",
    "critical_comp_time": "Critical Composite Temperature Time",
    **{f"temperature_sensor_{number}": f"Temperature Sensor {number}" for number in range(1, 9)},
    "thm_temp1_trans_count": "Thermal Management Temperature 1 Transition Count",
    "thm_temp2_trans_count": "Thermal Management Temperature 2 Transition Count",
    "thm_temp1_total_time": "Total Time For Thermal Management Temperature 1",
    "thm_temp2_total_time": "Total Time For Thermal Management Temperature 2",
}


@pytest.mark.parametrize("health", [smart(), FAILING], ids=["healthy", "failing"])
def test_smart_is_as_nvme_cli_says(nvme_cli: NvmeCli, health: bytes) -> None:
    members = {"identify_controller": identify(), "smart_log": health}
    found = fields(decoded(members), "smart_log")
    says = nvme_cli.json(members, "smart-log")
    assert len(says) >= 24
    assert {name: found[SMART_NAMES[name]].value for name in says} == {
        name: int(value) for name, value in says.items()
    }
    # It leaves out sensors that are missing.
    missing = set(SMART_NAMES) - set(says)
    assert all(name.startswith("temperature_sensor_") and found[SMART_NAMES[name]].value == 0 for name in missing)


IDENTIFY_NAMES = {
    "vid": "PCI Vendor ID",
    "ssvid": "PCI Subsystem Vendor ID",
    "sn": "Serial Number",
    "mn": "Model Number",
    "fr": "Firmware Revision",
    "rab": "Recommended Arbitration Burst",
    "ieee": "IEEE OUI Identifier",
    "cmic": "Controller Multi-Path I/O and Namespace Sharing Capabilities",
    "mdts": "Maximum Data Transfer Size",
    "cntlid": "Controller ID",
    "ver": "Version",
    "rtd3r": "RTD3 Resume Latency",
    "rtd3e": "RTD3 Entry Latency",
    "oaes": "Optional Asynchronous Events Supported",
    "ctratt": "Controller Attributes",
    "rrls": "Read Recovery Levels Supported",
    "cntrltype": "Controller Type",
    "fguid": "FRU Globally Unique Identifier",
    "crdt1": "Command Retry Delay Time 1",
    "crdt2": "Command Retry Delay Time 2",
    "crdt3": "Command Retry Delay Time 3",
    "nvmsr": "NVM Subsystem Report",
    "vwci": "VPD Write Cycle Information",
    "mec": "Management Endpoint Capabilities",
    "oacs": "Optional Admin Command Support",
    "acl": "Abort Command Limit",
    "aerl": "Asynchronous Event Request Limit",
    "frmw": "Firmware Updates",
    "lpa": "Log Page Attributes",
    "elpe": "Error Log Page Entries",
    "npss": "Number of Power States Support",
    "avscc": "Admin Vendor Specific Command Configuration",
    "apsta": "Autonomous Power State Transition Attributes",
    "wctemp": "Warning Composite Temperature Threshold",
    "cctemp": "Critical Composite Temperature Threshold",
    "mtfa": "Maximum Time for Firmware Activation",
    "hmpre": "Host Memory Buffer Preferred Size",
    "hmmin": "Host Memory Buffer Minimum Size",
    "tnvmcap": "Total NVM Capacity",
    "unvmcap": "Unallocated NVM Capacity",
    "rpmbs": "Replay Protected Memory Block Support",
    "edstt": "Extended Device Self-test Time",
    "dsto": "Device Self-test Options",
    "fwug": "Firmware Update Granularity",
    "kas": "Keep Alive Support",
    "hctma": "Host Controlled Thermal Management Attributes",
    "mntmt": "Minimum Thermal Management Temperature",
    "mxtmt": "Maximum Thermal Management Temperature",
    "sanicap": "Sanitize Capabilities",
    "hmminds": "Host Memory Buffer Minimum Descriptor Entry Size",
    "hmmaxd": "Host Memory Maximum Descriptors Entries",
    "nsetidmax": "NVM Set Identifier Maximum",
    "endgidmax": "Endurance Group Identifier Maximum",
    "anatt": "ANA Transition Time",
    "anacap": "Asymmetric Namespace Access Capabilities",
    "anagrpmax": "ANA Group Identifier Maximum",
    "nanagrpid": "Number of ANA Group Identifiers",
    "pels": "Persistent Event Log Size",
    "domainid": "Domain Identifier",
    "megcap": "Max Endurance Group Capacity",
    "sqes": "Submission Queue Entry Size",
    "cqes": "Completion Queue Entry Size",
    "maxcmd": "Maximum Outstanding Commands",
    "nn": "Number of Namespaces",
    "oncs": "Optional NVM Command Support",
    "fuses": "Fused Operation Support",
    "fna": "Format NVM Attributes",
    "vwc": "Volatile Write Cache",
    "awun": "Atomic Write Unit Normal",
    "awupf": "Atomic Write Unit Power Fail",
    "icsvscc": "I/O Command Set Vendor Specific Command Configuration",
    "nwpc": "Namespace Write Protection Capabilities",
    "acwu": "Atomic Compare & Write Unit",
    "ocfs": "Copy Descriptor Formats Supported",
    "sgls": "SGL Support",
    "mnan": "Maximum Number of Allowed Namespaces",
    "maxdna": "Maximum Domain Namespace Attachments",
    "maxcna": "Maximum I/O Controller Namespace Attachments",
    "subnqn": "NVM Subsystem NVMe Qualified Name",
}
TEXTS = {"sn", "mn", "fr", "subnqn"}
NUMBERS_AS_TEXT = {"tnvmcap", "unvmcap", "megcap", "maxdna"}
# Of fabrics.
LEFT_OUT = {"oaqd", "ioccsz", "iorcsz", "icdoff", "fcatt", "msdbd", "ofcs"}
# Of later revisions of the specification, which nvme-cli 2.16 knows.
LEFT_OUT |= {"bpcap", "cmmrtd", "cqt", "crcap", "hirt", "kpioc", "maxmrtg", "mcdqpc", "mcmr", "mcudmq", "minmrtg"}
LEFT_OUT |= {"mnsudmq", "mptfawr", "nmcmr", "nmmrtd", "nssl", "plsi", "rhiri", "tmpthha", "trattr"}


def every_byte_differs() -> bytes:
    """Return a controller whose integers show where each is read."""
    numbers = bytes(index * 7 % 251 + 1 for index in range(4096))
    return numbers[:4] + identify()[4:72] + numbers[72:768] + identify()[768:1024] + numbers[1024:]


@pytest.mark.parametrize("identity", [identify(), every_byte_differs()], ids=["typical", "every byte differs"])
def test_identify_controller_is_as_nvme_cli_says(nvme_cli: NvmeCli, identity: bytes) -> None:
    members = {"identify_controller": identity}
    found = decoded(members)
    values = fields(found, "identify_controller")
    says = nvme_cli.json(members, "id-ctrl")
    states = says.pop("psds")
    assert says.keys() - IDENTIFY_NAMES.keys() <= LEFT_OUT
    assert says.keys() >= IDENTIFY_NAMES.keys() - {"ocfs", "mnan", "maxdna", "maxcna"}
    for name in says.keys() - LEFT_OUT:
        value: Any = values[IDENTIFY_NAMES[name]].value
        expected: Any = says[name]
        if name == "fguid":
            expected = expected.replace("-", "")
        elif name in TEXTS:
            expected = expected.strip()
        elif name in NUMBERS_AS_TEXT:
            expected = int(expected)
        else:
            # It shows integers of 32 bits with a sign.
            expected %= 1 << 32
        assert value == expected, name
    for state, said in zip(table(found, "identify_controller"), states, strict=False):
        assert state["Entry Latency (us)"] == said["entry_lat"] % (1 << 32)
        assert state["Exit Latency (us)"] == said["exit_lat"] % (1 << 32)
        # nvme-cli 2.16 takes them apart.
        flags = said.get("flags", said.get("non-operational_state", 0) << 1 | said.get("max_power_scale", 0))
        assert state["Non-Operational State"] == bool(flags & 2)
        assert (state["Maximum Power (W)"] or 0) == said["max_power"] / (10_000 if flags & 1 else 100)
        for column, name in (("Idle Power (W)", "idle"), ("Active Power (W)", "active")):
            scale = {1: 10_000, 2: 100}.get(said[f"{name}_scale"] & 3)
            assert state[column] == (said[f"{name}_power"] / scale if scale else None)


def test_error_log_is_as_nvme_cli_says(nvme_cli: NvmeCli) -> None:
    entries = [
        error(7, 0x281),
        error(6, 0x002, location=0x128, lba=0),
        page(64, {0: (1 << 63, 8), 8: (0, 2), 12: (0x4281 << 1, 2), 29: (3, 1)}),
    ]
    members = {"identify_controller": identify(), "error_log": b"".join(entries).ljust(64 * 64, b"\0")}
    says = [entry for entry in nvme_cli.json(members, "error-log")["errors"] if entry["error_count"]]
    found = table(decoded(members), "error_log")
    assert [row["Error Count"] for row in found] == [entry["error_count"] for entry in says] == [7, 6, 1 << 63]
    for row, entry in zip(found, says, strict=True):
        assert row["Submission Queue ID"] == entry["sqid"]
        assert row["Command ID"] == entry["cmdid"]
        assert row["Status Field"] == entry["status_field"]
        assert row["LBA"] == entry["lba"]
        assert row["Namespace"] == entry["nsid"]
        assert row["Vendor Specific Information Available"] == (entry["vs"] or None)
        assert row["Command Specific Information"] == entry["cs"]
        assert row["Transport Type Specific Information"] == entry["trtype_spec_info"]
    assert [row["Parameter Error Location"] for row in found] == [None, "byte 40 bit 1", "byte 0 bit 0"]
    assert [row["Do Not Retry"] for row in found] == [True, True, True]
    assert [row["Transport Type"] for row in found] == [None, None, "TCP"]


# Debian 12 has libnvme 1.3, which has sentences for the codes of other command sets and of discovery controllers.
SENTENCES = {(1, code) for code in (0x29, 0x2A, 0x2B, 0x2C, 0x2F, 0x30, 0x31, 0x32, 0x33, 0x34)}
SENTENCES |= {(0, code) for code in (0x25, 0x26, 0x28, *range(0x85, 0x8A))}


def test_status_names_are_those_of_nvme_cli(nvme_cli: NvmeCli) -> None:
    codes = [(kind, code) for kind, names in CODES.items() for code in names]
    compared = 0
    for start in range(0, len(codes), 64):
        some = codes[start : start + 64]
        log = b"".join(error(1 + index, kind << 8 | code) for index, (kind, code) in enumerate(some))
        members = {"identify_controller": identify(), "error_log": log.ljust(64 * 64, b"\0")}
        found = [row["Status"] for row in table(decoded(members), "error_log")]
        text = nvme_cli.says(members, "error-log")
        said = re.findall(r"^status_field\s*: 0x[0-9a-f]+ ?\((.*)\)$", text, re.MULTILINE)[: len(some)]
        for code, name, sentence in zip(some, found, said, strict=True):
            if sentence != "unrecognized" and code not in SENTENCES:
                assert name.lower() == sentence.partition(":")[0].lower()
                compared += 1
    assert compared > 100


def test_firmware_slots_are_as_nvme_cli_says(nvme_cli: NvmeCli) -> None:
    (says,) = nvme_cli.json({"firmware_slot_log": FIRMWARE}, "fw-log").values()
    found = decoded({"firmware_slot_log": FIRMWARE})
    values = fields(found, "firmware_slot_log")
    assert values["Next Active Firmware Slot"].value == says.pop("Active Firmware Slot (afi)") >> 4 == 2
    assert values["Active Firmware Slot"].value == 1
    rows = table(found, "firmware_slot_log")
    # "Firmware Rev Slot 1": "3981560608900399669 (5B2QGXA7)"
    assert [f"({row['Firmware Revision']}" for row in rows] == [
        text.split()[1].rstrip(")") for text in says.values()
    ]
    assert [(row["Slot"], row["Active"], row["Next"]) for row in rows] == [
        (1, True, False),
        (2, False, True),
        (4, False, False),
    ]


# What one line says.


def test_healthy_device() -> None:
    found = decoded(HEALTHY_MEMBERS)
    assert found.title == "Samsung SSD 980 PRO 1TB, firmware 5B2QGXA7"
    assert found.findings == ()
    assert found.facts == ("38 C", "3 % used", "100 % spare")
    assert found.problems == ()
    assert [section.name for section in found.sections] == list(HEALTHY_MEMBERS)
    assert not any(field.wrong for field in fields(found, "smart_log").values())
    assert table(found, "error_log") == []


def test_failing_device() -> None:
    found = decoded(FAILING_MEMBERS)
    assert found.findings == (
        "NVM subsystem degraded reliability",
        "83 C (warning from 82 C)",
        "36893488147419103232 media errors",
        "4 % spare (threshold 10 %)",
        "103 % used",
        "2 entries in the error log: Unrecovered Read Error",
    )
    assert found.facts == (
        "14 unsafe shutdowns",
        "firmware of slot 2 from the next reset",
        "1 other entry in the error log",
        "telemetry saved by the controller",
    )
    assert found.problems == ()
    wrong = {field.name for field in fields(found, "smart_log").values() if field.wrong}
    assert wrong == {
        "Critical Warning",
        "Composite Temperature",
        "Available Spare",
        "Percentage Used",
        "Media and Data Integrity Errors",
    }


@pytest.mark.parametrize(
    ("values", "findings"),
    [
        ({0: (1, 1)}, ["available spare below threshold"]),
        ({0: (2, 1)}, ["temperature threshold condition"]),
        ({0: (4, 1)}, ["NVM subsystem degraded reliability"]),
        ({0: (8, 1)}, ["all media read-only"]),
        ({0: (16, 1)}, ["volatile memory backup failed"]),
        ({0: (32, 1)}, ["Persistent Memory Region read-only or unreliable"]),
        ({0: (0x48, 1)}, ["all media read-only", "unknown critical warning 0x40"]),
        ({1: (354, 2)}, []),
        ({1: (355, 2)}, ["82 C (warning from 82 C)"]),
        ({1: (357, 2)}, ["84 C (warning from 82 C)"]),
        ({1: (358, 2)}, ["85 C (critical from 85 C)"]),
        ({0: (2, 1), 1: (360, 2)}, ["87 C (critical from 85 C)"]),
        ({1: (0, 2)}, []),
        ({3: (10, 1)}, []),
        ({3: (9, 1)}, ["9 % spare (threshold 10 %)"]),
        ({0: (1, 1), 3: (9, 1)}, ["9 % spare (threshold 10 %)"]),
        ({4: (101, 1)}, []),
        ({5: (79, 1)}, []),
        ({5: (80, 1)}, ["80 % used"]),
        ({5: (255, 1)}, ["255 % used"]),
        (
            {6: (0b1101, 1)},
            [
                f"endurance group: {name}"
                for name in ("available spare below threshold", "degraded reliability", "read-only")
            ],
        ),
        ({144: (1, 16)}, []),
        ({160: (1, 16)}, ["1 media error"]),
        ({196: (5, 4)}, []),
    ],
)
def test_findings_of_health(values: dict[int, tuple[int, int]], findings: list[str]) -> None:
    found = decoded({"identify_controller": identify(), "smart_log": smart(dict(values))})
    assert list(found.findings) == findings
    marked = any(field.wrong for field in fields(found, "smart_log").values())
    assert marked == bool(findings)


@pytest.mark.parametrize("temperature", [355, 400])
def test_temperature_without_thresholds_is_a_fact(temperature: int) -> None:
    unknown = identify(values={266: (0, 2), 268: (0, 2)})
    for members in ({"identify_controller": unknown}, {}):
        found = decoded({**members, "smart_log": smart({1: (temperature, 2)})})
        assert found.findings == ()
        assert found.facts[0] == f"{temperature - 273} C"


@pytest.mark.parametrize(
    ("status", "finding"),
    [
        (0x280, "Write Fault"),
        (0x281, "Unrecovered Read Error"),
        (0x282, "End-to-end Guard Check Error"),
        (0x004, "Data Transfer Error"),
        (0x006, "Internal Error"),
        (0x360, "Controller Pathing Error"),
        # A program asked for what is not supported, or what was never written.
        (0x002, None),
        (0x109, None),
        (0x285, None),
        (0x287, None),
        (0x7C1, None),
    ],
)
def test_what_the_error_log_says_of_the_device(status: int, finding: str | None) -> None:
    found = decoded({"error_log": error(1, status)})
    assert found.title == "NVMe controller"
    if finding is None:
        assert (found.findings, found.facts) == ((), ("1 entry in the error log",))
    else:
        assert (found.findings, found.facts) == ((f"1 entry in the error log: {finding}",), ())


# What the members say.


def test_identify_controller_for_people() -> None:
    found = fields(decoded(HEALTHY_MEMBERS), "identify_controller")
    expected = {
        "PCI Vendor ID": "0x144d",
        "IEEE OUI Identifier": "00-25-38",
        "Controller Multi-Path I/O and Namespace Sharing Capabilities": "0xa: multiple controllers, ANA Reporting",
        "Maximum Data Transfer Size": "2^7 times the minimum memory page size",
        "Version": "1.3",
        "RTD3 Entry Latency": "8,000,000 us",
        "Controller Attributes": "0x2010: Endurance Groups, Delete Endurance Group",
        "Controller Type": "I/O controller",
        "Optional Admin Command Support": "0x17: Security Send and Security Receive, Format NVM, "
        "Firmware Commit and Firmware Image Download, Device Self-test",
        "Firmware Updates": "0x16: 3 slots, activation without a reset",
        "Error Log Page Entries": "64",
        "Warning Composite Temperature Threshold": "355 K (82 C)",
        "Maximum Time for Firmware Activation": "not reported",
        "Host Memory Buffer Preferred Size": "65,536 KiB",
        "Total NVM Capacity": "1,000,204,886,016 bytes, 1.00 TB",
        "Unallocated NVM Capacity": "1,267,650,600,228,229,401,496,703,205,376 bytes, 1,267,650,600,228.23 EB",
        "Sanitize Capabilities": "0xa0000006: media is additionally modified after sanitize, "
        "Block Erase, Overwrite, No-Deallocate Inhibited",
        "Submission Queue Entry Size": "64 bytes",
        "Number of Namespaces": "1",
        "Optional NVM Command Support": "0x57: Compare, Write Uncorrectable, Dataset Management, "
        "Save and Select of features, Timestamp",
        "Volatile Write Cache": "0x7: flush of all namespaces, present",
        "Atomic Write Unit Normal": "1,024",
    }
    shown = {name: found[name].text for name in expected}
    assert shown == expected
    states = table(decoded(HEALTHY_MEMBERS), "identify_controller")
    assert [list(states[number].values()) for number in (0, 3, 4)] == [
        [0, 8.49, False, 0, 0, 0.45, 6.2],
        [3, 0.05, True, 2000, 1200, None, None],
        [4, None, False, 0, 0, None, None],
    ]


def test_health_for_people() -> None:
    found = fields(decoded(HEALTHY_MEMBERS), "smart_log")
    assert found["Composite Temperature"].text == "311 K (38 C)"
    assert found["Temperature Sensor 3"].text == "not reported"
    # As smartctl shows them: [869 GB] and [9.00 TB].
    assert found["Data Units Read"].text == "1,699,027 (869,901,824,000 bytes, 869.90 GB)"
    assert found["Data Units Written"].text == "17,586,666 (9,004,372,992,000 bytes, 9.00 TB)"
    assert found["Controller Busy Time"].text == "402 min"
    assert found["Critical Warning"].text == "0x0"
    assert fields(decoded(FAILING_MEMBERS), "smart_log")["Critical Warning"].text == (
        "0x7: available spare below threshold, temperature threshold condition, NVM subsystem degraded reliability"
    )


def test_what_identifies_a_device_is_private() -> None:
    found = decoded(FAILING_MEMBERS)
    private = {field.name: field.value for field in fields(found, "identify_controller").values() if field.private}
    assert private == {
        "Serial Number": SERIAL,
        "FRU Globally Unique Identifier": "0102030405060708090a0b0c0d0e0f10",
        "NVM Subsystem NVMe Qualified Name": SUBSYSTEM,
    }
    rest = [found.summary, *found.problems]
    rest += [
        f"{part.value} {part.text}" if isinstance(part, Field) else repr(part)
        for section in found.sections
        for part in section.parts
        if not (isinstance(part, Field) and part.private)
    ]
    assert SERIAL not in "\n".join(rest)


def test_telemetry() -> None:
    found = decoded(FAILING_MEMBERS)
    values = {field.name: field.value for field in fields(found, "telemetry_controller").values()}
    assert values == {
        "Log Identifier": 8,
        "IEEE OUI Identifier": 0x002538,
        "Telemetry Controller-Initiated Data Area 1 Last Block": 1,
        "Telemetry Controller-Initiated Data Area 2 Last Block": 2,
        "Telemetry Controller-Initiated Data Area 3 Last Block": 3,
        "Telemetry Controller-Initiated Data Area 4 Last Block": 0,
        "Telemetry Controller-Initiated Scope": 0,
        "Telemetry Controller-Initiated Data Available": 1,
        "Telemetry Controller-Initiated Data Generation Number": 5,
        "Reason Identifier": "PANIC 7",
        "Vendor Data Size": 1536,
    }
    assert fields(found, "telemetry_controller")["Vendor Data Size"].text == "1,536 bytes, 1.54 kB"
    host = fields(found, "telemetry_host")
    assert host["Log Identifier"].text == "Telemetry Host-Initiated"
    assert host["Vendor Data Size"].value == 0
    assert host["Reason Identifier"].value == ""


def test_telemetry_of_which_the_start_was_kept() -> None:
    header = page(1024, {0: (7, 1), 12: (0xFFFF, 2), 384: b"\x01\xff"})
    found = fields(decoded({"telemetry_host": header}), "telemetry_host")
    assert found["Vendor Data Size"].text == "512 bytes, of 33,553,920"
    assert found["Reason Identifier"].value == "01ff"


def test_newer_error_entry_has_the_opcode() -> None:
    entry = bytearray(error(1, 0x281))
    entry[30:32] = b"\x00\x02"
    (row,) = table(decoded({"error_log": bytes(entry)}), "error_log")
    assert (row["Command Set Indicator"], row["Opcode"]) == (None, None)
    entry[63] = 1
    (row,) = table(decoded({"error_log": bytes(entry)}), "error_log")
    assert (row["Command Set Indicator"], row["Opcode"]) == (0, 2)


def test_error_that_is_of_no_command() -> None:
    entry = error(1, 0x006, queue=0xFFFF, command=0xFFFF, lba=(1 << 64) - 1)
    (row,) = table(decoded({"error_log": entry}), "error_log")
    names = ("Submission Queue ID", "Command ID", "Parameter Error Location", "LBA")
    assert [row[name] for name in names] == [None] * 4


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0x0C5, "Generic Command Status: Vendor Specific 0xc5"),
        (0x2C5, "Media and Data Integrity Errors: Vendor Specific 0xc5"),
        (0x2A0, "Media and Data Integrity Errors: 0xa0"),
        (0x7C5, "Vendor Specific: 0xc5"),
        (0x57F, "unknown type 0x5: 0x7f"),
    ],
)
def test_status_without_a_name(value: int, name: str) -> None:
    assert str(Status(value)) == name


# Bad input.


@pytest.mark.parametrize("byte", [0x00, 0xFF])
def test_what_was_not_read_is_a_problem(byte: int) -> None:
    members = {name: bytes([byte]) * len(content) for name, content in FAILING_MEMBERS.items()}
    found = decoded({**members, "identify_controller": identify()})
    without = ["smart_log", "firmware_slot_log", "telemetry_host", "telemetry_controller"]
    if byte:
        without.insert(2, "error_log")
    assert list(found.problems) == [f"{name}: was not read: all bytes are {byte:#04x}" for name in without]
    assert found.summary == "Samsung SSD 980 PRO 1TB, firmware 5B2QGXA7"


def test_members_of_other_sizes() -> None:
    found = decoded(
        {
            "identify_controller": identify()[:300],
            "smart_log": smart()[:6],
            "firmware_slot_log": b"",
            "error_log": error(1, 0x281) * 300,
            "notes": b"of no controller",
        }
    )
    assert found.problems == (
        "firmware_slot_log: is empty",
        "identify_controller: 300 of 4096 bytes",
        "smart_log: 6 of 512 bytes",
        "error_log: only the first 16384 of 19200 bytes are decoded",
    )
    assert found.title == "Samsung SSD 980 PRO 1TB, firmware 5B2QGXA7"
    assert found.findings == ("256 entries in the error log: Unrecovered Read Error",)
    assert found.facts == ("38 C", "3 % used", "100 % spare")
    assert list(fields(found, "identify_controller"))[-1] == "Total NVM Capacity"


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "no archive"), (b"S" * 512, "no archive"), (archive({"notes": b"."}), "no log page of NVMe")],
)
def test_what_is_no_dump_of_a_controller(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidDump, match=reason):
        decode(NAME, io.BytesIO(data))


def test_hostile_texts_are_escaped() -> None:
    hostile = identify(values={24: b"\x1b]0;<b>\n\xff\x9b\x7f".ljust(40), 64: b"\x1b[2J\r\n<>"})
    found = decoded(
        {
            "identify_controller": hostile,
            "firmware_slot_log": page(512, {0: (1, 1), 8: b"\x1b[31m\x07"}),
            "telemetry_controller": page(512, {0: (8, 1), 384: b"\x1b[2J"}),
        }
    )
    assert found.title == r"\x1b]0;<b>\x0a\xff\x9b\x7f, firmware \x1b[2J\x0d\x0a<>"
    assert found.title.isprintable()
    assert table(found, "firmware_slot_log")[0]["Firmware Revision"] == r"\x1b[31m\x07"
    assert fields(found, "telemetry_controller")["Reason Identifier"].value == "1b5b324a"


def attempt(data: bytes) -> Decoded | None:
    """Return what is decoded, None if that is nothing; any other outcome fails the test."""
    try:
        found = decode(NAME, io.BytesIO(data))
    except InvalidDump:
        return None
    assert found.sections
    assert all(line.isprintable() for line in (found.title, *found.findings, *found.facts, *found.problems))
    return found


def test_truncated_anywhere() -> None:
    data = archive({"smart_log": FAILING, "error_log": ERRORS[:192]})
    sections = [len(found.sections) if (found := attempt(data[:size])) else 0 for size in range(len(data) - 1024)]
    # A header is 512 bytes, and what a log page says begins with its first byte.
    assert sections[:513] == [0] * 513
    assert sections == sorted(sections)
    assert set(sections) == {0, 1, 2}


def test_truncated_members() -> None:
    for size in (*range(1, 768, 17), *range(2040, 2200, 3), 4095):
        found = attempt(archive({"identify_controller": identify()[:size], "smart_log": FAILING}))
        assert found is not None
        assert f"identify_controller: {size} of 4096 bytes" in found.problems
    for size in range(1, 512, 5):
        found = attempt(archive({"telemetry_controller": TELEMETRY[:size], "smart_log": FAILING[:size]}))
        assert found is not None
        assert f"smart_log: {size} of 512 bytes" in found.problems


def test_flipped_bits() -> None:
    rng = random.Random(23)
    data = [sample for _, sample in samples()]
    outcomes = set()
    for _ in range(300):
        flipped = bytearray(rng.choice(data))
        for _ in range(rng.choice((1, 3, 30, 300))):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        found = attempt(bytes(flipped))
        outcomes.add(found is not None)
        if found is not None:
            assert unpack(pack(found)) == found
            assert len(json.dumps(to_json(found))) < 100_000
    assert outcomes == {True, False}

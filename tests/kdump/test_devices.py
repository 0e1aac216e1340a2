# SPDX-License-Identifier: LGPL-2.1-or-later
"""The full stock kernel, with its drivers of devices that QEMU has: what the built-in collectors save of them."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.collectors.builtin.collecting import members
from tests.kdump import capture, rig, units
from tests.lib import external_tools as judges
from tests.lib.tools import require, skip_or_fail
from tests.lib.vmcoredd import VMCOREDD, run
from vmcoredd_daemon.journal import Event
from vmcoredd_daemon.manifest import MANIFEST_NAME

# The machine counts as part of the first test.
pytestmark = [pytest.mark.qemu, pytest.mark.kdump_matrix, pytest.mark.timeout(400)]

DRIVERS = f"{capture.DRIVERS} nvme e1000 e1000e ipmi_si ipmi_devintf"
SERIAL = b"vmcoredd-4711"
E1000, E1000E = "52:54:00:76:6d:01", "52:54:00:76:6d:02"

DEVICES = (
    ("pcie-root-port", "id=port1,chassis=1,addr=1c.0,multifunction=on"),
    ("pcie-root-port", "id=port2,chassis=2,addr=1c.1"),
    ("nvme", f"serial={SERIAL.decode()},bus=port1,smart_critical_warning=4"),
    ("e1000e", f"id=nic,mac={E1000E},bus=port2"),
    ("e1000", f"mac={E1000},addr=10"),
    ("acpi-erst", "memdev=erst,addr=11"),
    ("ipmi-bmc-sim", "id=bmc,mfg_id=674,product_id=256"),
    ("isa-ipmi-kcs", "bmc=bmc"),
)

# Add SEL Entry: a critical stop of the operating system, and a memory error. IDs and times are the BMC's.
STOP = "00 00 02 00 00 00 00 20 00 04 20 08 6f a1 ff ff"
MEMORY = "00 00 02 00 00 00 00 20 00 04 0c 71 6f a0 ff ff"

# They read the devices themselves, in the machine that panics.
TOOLS = ("ethtool", "ipmitool", "lspci", "nvme", "setpci")

# Neither kernel may clear the status that the monitor sets: the firmware would have it then.
NO_AER = "pci=noaer"

BEFORE = """\
tries=0
until [ -c /dev/ipmi0 ]; do
    [ $((tries += 1)) -le 300 ] || fail "there is no /dev/ipmi0"
    sleep 0.1
done
for entry in "{entries}"; do
    ipmitool raw 0x0a 0x44 $entry || fail "Add SEL Entry: status $?"
done
ipmitool sel writeraw /sel || fail "ipmitool sel writeraw: status $?"
say "SEL $(hexdump -v -e '1/1 "%02x"' /sel)"
# What the tools read of the devices themselves, in lines that the kernel's log takes.
tell() {
    "$@" > /told 2>&1 || fail "$*: status $?"
    sed "s/^/TOLD $1 $2: /" /told | fold -w 800 | while IFS= read -r line; do say "$line"; done
}
tell ipmitool sel elist
ipmitool sdr dump /sdr || fail "ipmitool sdr dump: status $?"
say "SDR $(hexdump -v -e '1/1 "%02x"' /sdr)"
tell nvme smart-log /dev/nvme0
tell nvme id-ctrl /dev/nvme0
for card in /sys/class/net/e*; do
    say "EEPROM $(cat $card/address) $(ethtool -e ${card##*/} raw on | hexdump -v -e '1/1 "%02x"')"
    tell ethtool -d ${card##*/}
done
say "waits for an error of the network card"
until [ "$(setpci -s 02:00.0 ECAP_AER+4.l)" != 00000000 ]; do
    [ $((tries += 1)) -le 600 ] || fail "no error came"
    sleep 0.1
done
tell lspci -vvv -s 02:00.0
"""


@pytest.fixture(scope="module")
def initramfs(tmp_path_factory: pytest.TempPathFactory) -> capture.Initramfs:
    """The initramfs of a capture kernel with drivers of all these devices."""
    missing = [*capture.missing_tools(), *(name for name in TOOLS if rig.which(name) is None)]
    try:
        kernel = rig.find_kernel(rig.FULL_KERNEL_IMAGES)
    except rig.RigError as error:
        skip_or_fail([*missing, str(error)])
        raise
    skip_or_fail(missing)
    return capture.build(tmp_path_factory.mktemp("full"), kernel=kernel, drivers=DRIVERS)


def programs(name: str) -> Iterable[tuple[str, Path | bytes]]:
    return rig.program_files(name).items()


class Injection:
    """Injects one uncorrectable error into the network card, by QEMU's monitor, when the machine waits for it."""

    def __init__(self, monitor: Path) -> None:
        self._monitor = monitor
        self._done = False

    def __call__(self, console: str) -> None:
        if self._done or "vmcoredd rig: waits for an error of the network card" not in console:
            return
        self._done = True
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self._monitor))
            connection.sendall(b"pcie_aer_inject_error nic COMP_TIME\n")
            # It is executed when the prompt comes again.
            answer = b""
            while answer.count(b"(qemu)") < 2:
                answer += connection.recv(4096)
        assert b"OK id: nic" in answer


@pytest.fixture(scope="module")
def captured(initramfs: capture.Initramfs, tmp_path_factory: pytest.TempPathFactory) -> capture.Captured:
    """What a panic of this machine has left."""
    workdir = tmp_path_factory.mktemp("devices")
    erst = rig.sparse_file(workdir / "erst", 1)
    options = ["-machine", "q35"]
    options += ["-object", f"memory-backend-file,id=erst,size=1M,share=on,mem-path={erst}"]
    monitor = workdir / "monitor"
    options += ["-monitor", f"unix:{monitor},server=on,wait=off"]
    for name, properties in DEVICES:
        options += ["-device", f"{name},{properties}"]
    entries = '" "'.join(" ".join(f"0x{byte}" for byte in entry.split()) for entry in (STOP, MEMORY))
    scenario = capture.Scenario(
        files={**units.watched(), **units.devices_first("ipmi_devintf"), **units.finally_do("poweroff")},
        devices=tuple(options),
        first_files={
            **rig.module_files(initramfs.kernel, ["ipmi_si", "ipmi_devintf", "nvme", "e1000", "e1000e"]),
            **{path: file for name in TOOLS for path, file in programs(name)},
        },
        before=BEFORE.replace("{entries}", entries),
        # pstore has the panic in it then.
        first_command_line=f"crash_kexec_post_notifiers {NO_AER}",
        command_line=NO_AER,
        watch=Injection(monitor),
        timeout=250,
    )
    made = capture.capture(workdir / "run", initramfs, scenario)
    capture.report(initramfs, made)
    return made


@pytest.fixture(scope="module")
def dumps(captured: capture.Captured) -> dict[str, bytes]:
    """The device dumps in its vmcore."""
    return capture.device_dumps(captured.vmcore())


def test_each_has_its_device_dump(
    captured: capture.Captured, dumps: dict[str, bytes], initramfs: capture.Initramfs
) -> None:
    require("crash")
    assert captured.events(Event.DUMP_FAILED) == []
    assert set(dumps) == {
        "acpi_apei",
        "dmi",
        "e1000_0000:00:10.0",
        "e1000e_0000:02:00.0",
        "ipmi0",
        "nvme_0000:01:00.0",
        "pci",
        "pci_aer",
        "pstore",
        MANIFEST_NAME,
    }
    assert {dump.name for dump in judges.crash(captured.vmcore())} == set(dumps)
    assert judges.osrelease(captured.vmcore()) == initramfs.kernel.release


def test_serial_number_of_the_nvme_controller(dumps: dict[str, bytes]) -> None:
    # NVM Express Base Specification 2.0, figure 275.
    identity = members(dumps["nvme_0000:01:00.0"])["identify_controller"]
    assert identity[4:24] == SERIAL.ljust(20)


@pytest.mark.parametrize(
    ("dump_name", "device", "mac"),
    [("e1000_0000:00:10.0", 0x100E, E1000), ("e1000e_0000:02:00.0", 0x10D3, E1000E)],
)
def test_network_device(dumps: dict[str, bytes], dump_name: str, device: int, mac: str) -> None:
    found = members(dumps[dump_name])
    # These drivers have no RAL and RAH in their register dump; the address comes from the EEPROM, words 0 to 2.
    assert found["eeprom"][:6] == bytes.fromhex(mac.replace(":", " "))
    # Words 0 to 3Fh sum up to BABAh: all of it is there, as the device has it.
    assert sum(struct.unpack("<64H", found["eeprom"])) & 0xFFFF == 0xBABA
    # STATUS: full duplex, 1000 Mb/s. The link may not be up yet.
    assert struct.unpack_from("<I", found["registers"], 4)[0] & 0xC1 == 0x81
    (version,) = re.findall(rb"registers-version: (0x[0-9a-f]+)\n", found["driver"])
    assert int(version, 16) & 0xFFFF == device


def test_root_ports(dumps: dict[str, bytes], tmp_path: Path) -> None:
    file = tmp_path / "pci"
    file.write_bytes(dumps["pci"])
    listed = subprocess.run(["lspci", "-F", file, "-n"], check=True, capture_output=True, text=True).stdout
    ids = {line.split()[0]: line.split()[2] for line in listed.splitlines()}
    # Red Hat's, and Intel's behind the second.
    assert (ids["00:1c.0"], ids["00:1c.1"], ids["02:00.0"]) == ("1b36:000c", "1b36:000c", "8086:10d3")
    assert b"0000:00:1c.0/aer_rootport_total_err_fatal:0\n" in dumps["pci_aer"]


def test_panic_in_the_error_record_serialization_table(dumps: dict[str, bytes]) -> None:
    records = members(dumps["pstore"])
    assert all(name.startswith("dmesg-erst-") for name in records)
    newest = next(text.decode() for text in records.values() if text.startswith(b"Panic#1 Part1\n"))
    assert rig.MARKER in newest
    assert "Kernel panic - not syncing: sysrq triggered crash" in newest


def test_system_event_log(captured: capture.Captured, dumps: dict[str, bytes]) -> None:
    found = members(dumps["ipmi0"])
    # What ipmitool has read before the panic, times and all.
    (before,) = re.findall(r"vmcoredd rig: SEL ([0-9a-f]+)\n", captured.console)
    assert found["sel"].hex() == before
    # Type, then behind the time: generator, version, sensor, event.
    entries = [found["sel"][start : start + 16] for start in range(0, len(found["sel"]), 16)]
    added = [bytes.fromhex(entry) for entry in (STOP, MEMORY)]
    assert [entry[2:3] + entry[7:] for entry in entries] == [entry[2:3] + entry[7:] for entry in added]
    # Manufacturer and product (IPMI 2.0, 20.1).
    assert struct.unpack_from("<3sH", found["device_id"], 6) == ((674).to_bytes(3, "little"), 256)


# What `vmcoredd show` says of it on this machine, which has none of these devices.


@pytest.fixture(scope="module")
def shown(captured: capture.Captured) -> dict[str, Any]:
    """What a program sees."""
    result = run("show", "--json", captured.vmcore())
    assert (result.returncode, result.stderr) == (0, "")
    return {dump["name"]: dump for dump in json.loads(result.stdout)}


def told(captured: capture.Captured, tool: str) -> list[str]:
    """The lines that a tool printed in the machine before the panic."""
    return re.findall(rf"vmcoredd rig: TOLD {tool}: (.*)", captured.console)


def fields(dump: dict[str, Any], section: str) -> dict[str, Any]:
    (found,) = [each for each in dump["sections"] if each["name"] == section]
    values: dict[str, Any] = found["fields"]
    return values


def test_nothing_is_left_to_decode(shown: dict[str, Any], dumps: dict[str, bytes]) -> None:
    assert {name: dump["problems"] for name, dump in shown.items() if dump["problems"]} == {}
    assert set(shown) == set(dumps) - {MANIFEST_NAME}


def test_shown_drive(captured: capture.Captured, shown: dict[str, Any]) -> None:
    drive = shown["nvme_0000:01:00.0"]
    assert drive["kind"] == "nvme"
    assert "QEMU NVMe Ctrl" in drive["title"]
    # smart_critical_warning=4: the reliability of the device is degraded.
    assert any("reliab" in finding.lower() for finding in drive["findings"])
    smart = fields(drive, "smart_log")
    assert smart["critical_warning"] == 4
    (temperature,) = [line for line in told(captured, "nvme smart-log") if line.startswith("temperature\t")]
    assert smart["composite_temperature"] == int(re.search(r"\((\d+) Kelvin\)", temperature)[1])  # type: ignore[index]
    identify = fields(drive, "identify_controller")
    for name, key in (("sn", "serial_number"), ("mn", "model_number"), ("fr", "firmware_revision")):
        (line,) = [line for line in told(captured, "nvme id-ctrl") if re.match(rf"{name}\s", line)]
        assert identify[key] == line.partition(":")[2].strip()


def test_shown_event_log(captured: capture.Captured, shown: dict[str, Any], dumps: dict[str, bytes]) -> None:
    (before,) = re.findall(r"vmcoredd rig: SDR ([0-9a-f]+)\n", captured.console)
    assert members(dumps["ipmi0"])["sdr"].hex() == before
    bmc = shown["ipmi0"]
    assert "Dell" in bmc["title"]
    # The memory error was corrected.
    (finding,) = bmc["findings"]
    assert "run-time critical stop" in finding
    (sel,) = [each for each in bmc["sections"] if each["name"] == "sel"]
    (rows,) = sel["tables"].values()
    lines = [line for line in told(captured, "ipmitool sel") if "|" in line]
    elist = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert len(rows) == len(elist) == 2
    for row, expected in zip(rows, elist, strict=True):
        # ipmitool: "1 | 11/30/26 | 10:20:30 UTC | OS Critical Stop #0x08 | Run-time critical stop () | Asserted"
        assert expected[4].partition(" (")[0].lower() in str(row).lower()
        assert expected[3].rpartition(" ")[2] in str(row)


def test_shown_error_of_the_network_card(captured: capture.Captured, shown: dict[str, Any]) -> None:
    (status,) = [line for line in told(captured, "lspci -vvv") if "UESta:" in line]
    assert "CmpltTO+" in status
    assert any("uncorrectable AER error" in finding for finding in shown["pci"]["findings"])
    (card,) = [each for each in shown["pci"]["sections"] if each["name"].startswith("0000:02:00.0")]
    # Completion Timeout, PCI Express Base Specification 6.0, 7.8.4.2.
    assert card["fields"]["uncorrectable_error_status"] == 1 << 14


def test_shown_network_cards(captured: capture.Captured, shown: dict[str, Any], dumps: dict[str, bytes]) -> None:
    before = dict(re.findall(r"vmcoredd rig: EEPROM (\S+) ([0-9a-f]+)\n", captured.console))
    registers = "\n".join(told(captured, "ethtool -d"))
    # Of both cards: the driver of the capture kernel has reset them, and they are as before.
    assert len(re.findall(r"Duplex: +full\n", registers)) == 2
    assert len(re.findall(r"Link speed: +1000Mb/s\n", registers)) == 2
    for name, mac in (("e1000_0000:00:10.0", E1000), ("e1000e_0000:02:00.0", E1000E)):
        assert members(dumps[name])["eeprom"].hex() == before[mac]
        assert mac in json.dumps(shown[name]).lower()
        assert "1000 Mb/s, full duplex" in ", ".join(shown[name]["facts"])


def test_shown_panic_of_pstore(shown: dict[str, Any]) -> None:
    assert any("Kernel panic - not syncing" in finding for finding in shown["pstore"]["findings"])


def test_shown_without_any_other_program(captured: capture.Captured, shown: dict[str, Any]) -> None:
    command = ["env", "PATH=/nonexistent", *VMCOREDD, "show", str(captured.vmcore())]
    alone = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert alone == run("show", captured.vmcore()).stdout
    for name, dump in shown.items():
        (line,) = [line for line in alone.splitlines() if line.startswith(f"{name} ")]
        assert all(finding in line for finding in dump["findings"])
    everything = subprocess.run([*command, "*"], capture_output=True, text=True, check=True).stdout
    assert "Completion Timeout" in everything
    assert "Percentage Used" in everything

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stock kernel panics; its capture kernel, with systemd, leaves a vmcore with device dumps on a disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.collectors.builtin.collecting import members
from tests.kdump import capture, rig, units
from tests.lib import external_tools as judges
from tests.lib.tools import require
from vmcoredd_daemon.collectors.builtin import BUILT_IN
from vmcoredd_daemon.dumps.spool_directory import VMCORE_WRITTEN
from vmcoredd_daemon.journal import Event
from vmcoredd_daemon.manifest import MANIFEST_NAME
from vmcoredd_daemon.vmcore.inspect.inspect import find

pytestmark = pytest.mark.qemu

SIZE = 300_000
MEMORY_GOAL_KIB = 40 << 10
INITRAMFS_GOAL = 10_000_000
REGISTERS = bytes(range(256)) * 20

CALLBACK = units.callback_helper("callback", "callback", SIZE)
PIPE = units.pipe_helper("pipe", "registers", REGISTERS)
BOTH = {"callback": bytes((i * 7 + 3) & 0xFF for i in range(SIZE)), "registers": REGISTERS}

ELF = units.configuration("Format=elf")

MATRIX = pytest.mark.kdump_matrix

Run = Callable[..., capture.Captured]


@pytest.fixture
def run(capture_initramfs: capture.Initramfs, tmp_path: Path) -> Run:
    """Run a scenario: helpers, and what differs from the usual machine, with our own collectors or without."""

    def run(
        *helpers: units.Files,
        verb: str = "poweroff",
        built_in: bool = False,
        initramfs: capture.Initramfs = capture_initramfs,
        **machine: object,
    ) -> capture.Captured:
        masks = {} if built_in else {f"etc/vmcoredd/collectors.d/{name}.conf": b"" for name in BUILT_IN}
        files = {name: file for unit in [units.watched(), masks, *helpers] for name, file in unit.items()}
        end = units.finally_do(verb) if verb else {}
        scenario = capture.Scenario(files={**files, **end}, **machine)  # type: ignore[arg-type]
        captured = capture.capture(tmp_path, initramfs, scenario)
        capture.report(initramfs, captured)
        return captured

    return run


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param({}, id="256M"),
        pytest.param({"crashkernel": "192M"}, id="192M", marks=MATRIX),
        pytest.param({"memory_mib": 1536, "cpus": 2, "disk_mib": 2048}, id="two-cpus-1.5G", marks=MATRIX),
    ],
)
def test_helpers_dumps_are_in_the_vmcore_on_the_disk(run: Run, machine: dict[str, int]) -> None:
    captured = run(CALLBACK, PIPE, **machine)
    assert_dumps(captured, BOTH)
    assert_filtered(captured)
    assert not captured.events(Event.FORMAT_CHANGED)
    (written,) = captured.events(Event.VMCORE_WRITTEN)
    assert written["VMCOREDD_SIZE"] == str(captured.vmcore().stat().st_size)
    assert rig.MARKER in captured.vmcore("vmcore-dmesg.txt").read_text()
    assert captured.points["vmcoredd"].seconds - captured.points["dbus"].seconds < 3
    # Nothing is left in the spool, but where the vmcore is.
    assert [path.name for path in captured.target.glob(".vmcoredd-spool/*/*")] == [VMCORE_WRITTEN]
    assert_explained(captured)
    # Who watches the serial line sees it.
    last = rf"vmcoredd: {capture.TARGET}/\S+/vmcore written with 2 device dumps, {written['VMCOREDD_SIZE']} bytes"
    assert re.search(rf"^vmcoredd: Writing the vmcore.*(?s:.*)^{last}\r?$", captured.console, re.MULTILINE)


@MATRIX
def test_our_own_end_of_the_capture_stops_the_service_first(run: Run) -> None:
    captured = run(PIPE, units.instance("vmcoredd-finish@poweroff"), verb="")
    assert_dumps(captured, {"registers": REGISTERS})


@MATRIX
def test_registered_collectors_need_no_message_bus(run: Run, busless_initramfs: capture.Initramfs) -> None:
    captured = run(PIPE, registered("firmware"), initramfs=busless_initramfs)
    assert_dumps(captured, {"firmware": REGISTERS})
    assert captured.events(Event.BUS_UNAVAILABLE)


@MATRIX
def test_devices_are_dumped_without_a_line_of_configuration(run: Run, tmp_path: Path) -> None:
    erst = tmp_path / "erst"
    erst.write_bytes(bytes(64 << 10))
    memory = f"memory-backend-file,id=erst,size=64K,share=on,mem-path={erst}"
    devices = ("-device", "nvme,serial=vmcoredd,addr=10", "-device", "vmxnet3,addr=11")
    captured = run(PIPE, built_in=True, devices=(*devices, "-object", memory, "-device", "acpi-erst,memdev=erst"))
    dumps = capture.device_dumps(captured.vmcore())
    assert {"pci", "dmi", "acpi_apei", "nvme_0000:00:10.0", "vmxnet3_0000:00:11.0", "registers"} <= set(dumps)
    controller = members(dumps["nvme_0000:00:10.0"])
    assert controller["identify_controller"][4:24] == b"vmcoredd".ljust(20)
    assert len(controller["smart_log"]) == len(controller["firmware_slot_log"]) == 512
    network = members(dumps["vmxnet3_0000:00:11.0"])
    assert b"bus-info: 0000:00:11.0\n" in network["driver"]
    assert len(network["registers"]) > 100
    assert members(dumps["acpi_apei"])["ERST"].startswith(b"ERST")
    assert not captured.events(Event.DUMP_FAILED)


@MATRIX
def test_unit_that_runs_one_registered_collector(run: Run) -> None:
    captured = run(registered("firmware", "Enabled=no"), units.instance("vmcoredd-collect@firmware"))
    assert_dumps(captured, {"firmware": REGISTERS})


@MATRIX
def test_plain_vmcore(run: Run) -> None:
    captured = run(CALLBACK, PIPE, ELF)
    assert_dumps(captured, BOTH)
    assert captured.vmcore().read_bytes()[:4] == b"\x7fELF"
    assert judges.osrelease(captured.vmcore()) == rig.find_kernel().release
    assert not captured.events(Event.FORMAT_CHANGED)


@MATRIX
def test_collectors_that_hang_or_are_killed_cost_only_their_own_dumps(run: Run) -> None:
    stuck = [units.callback_helper(name, name, SIZE, "tests/lib/stuck_helper.py") for name in ("hangs", "killed")]
    captured = run(*stuck, CALLBACK, PIPE)
    assert_dumps(captured, BOTH)
    assert "No device dump hangs" in captured.explained("--priority=warning")
    failures = {
        entry["VMCOREDD_DUMP_NAME"]: entry["VMCOREDD_ERROR"] for entry in captured.events(Event.DUMP_FAILED)
    }
    assert failures == {
        "hangs": "org.vmcoredd1.Error.TimedOut",
        "killed": "org.vmcoredd1.Error.CollectorFailed",
    }


@MATRIX
def test_killed_service_is_restarted_and_loses_nothing(run: Run) -> None:
    kill = units.pipe_helper(
        "after", "after", b"after", "systemctl kill --signal=KILL --kill-whom=main vmcoredd.service; sleep 1;"
    )
    order = {f"{units.SYSTEM}/after.service.d/order.conf": b"[Unit]\nAfter=callback.service pipe.service\n"}
    captured = run(CALLBACK, PIPE, kill, order)
    assert_dumps(captured, {**BOTH, "after": b"after"})
    recovered = [entry["VMCOREDD_DUMP_NAME"] for entry in captured.events(Event.DUMP_RECOVERED)]
    assert sorted(recovered) == sorted(BOTH)


@MATRIX
def test_helper_that_comes_after_the_vmcore_is_refused(run: Run) -> None:
    """D-Bus starts the service again, and there must be no second vmcore."""
    late = units.pipe_helper("late", "late", b"late", "systemctl stop vmcoredd.service;")
    order = {f"{units.SYSTEM}/late.service.d/order.conf": b"[Unit]\nAfter=callback.service pipe.service\n"}
    captured = run(CALLBACK, PIPE, late, order)
    assert_dumps(captured, BOTH)
    # What the service logs after its vmcore is not in the entries beside that.
    logged = captured.explained()
    reason = rf"the vmcore of this crash is written: {capture.TARGET}/\S+/vmcore"
    assert len(re.findall(rf"Refusing device dumps: {reason}$", logged, re.MULTILINE)) == 1
    assert len(re.findall(r"vmcore written with \d+ device dumps", logged)) == 1


@MATRIX
def test_configuration_that_makes_no_sense_leaves_a_plain_vmcore(run: Run) -> None:
    wrong = {"etc/vmcoredd/vmcoredd.conf.d/wrong.conf": b"[Vmcoredd]\nNoSuchKey=1\n"}
    captured = run(PIPE, wrong)
    assert captured.vmcore().parent.name.startswith("plain-")
    assert judges.osrelease(captured.vmcore()) == rig.find_kernel().release


@MATRIX
def test_core_collector_puts_device_dumps_into_the_vmcore_that_kdump_writes(run: Run, tmp_path: Path) -> None:
    collect = units.core_collector("callback.service pipe.service", "-l --message-level 7 -d 31")
    captured = run(CALLBACK, PIPE, collect, units.configuration("Format=none"))
    # There is one vmcore only.
    vmcore = captured.vmcore()
    assert (vmcore.parent / "status").read_text() == "status 0\n"
    assert "2 device dumps attached to /var/crash/kdump/vmcore-incomplete" in captured.console
    assert {dump.name for dump in judges.crash(vmcore)} == {*BOTH, MANIFEST_NAME}
    assert judges.osrelease(vmcore) == rig.find_kernel().release
    assert rig.MARKER in judges.kernel_log(vmcore, tmp_path / "dmesg")
    with vmcore.open("rb") as file:
        found = {dump.name: dump for dump in find(file.fileno(), str(vmcore)).device_dumps}
        for name, data in BOTH.items():
            assert found[name].sha256 == hashlib.sha256(data).hexdigest()
            assert os.pread(file.fileno(), len(data), found[name].offset) == data


@MATRIX
def test_disk_too_small_for_the_memory(run: Run) -> None:
    captured = run(CALLBACK, PIPE, ELF, disk_mib=100)
    assert_dumps(captured, BOTH)
    assert_filtered(captured)
    (changed,) = captured.events(Event.FORMAT_CHANGED)
    assert "bytes are free, the source has" in changed["MESSAGE"]


@MATRIX
def test_disk_too_small_even_for_what_makedumpfile_leaves(run: Run) -> None:
    captured = run(CALLBACK, PIPE, disk_mib=20)
    vmcore = captured.vmcore("vmcore-incomplete")
    assert {dump.name for dump in judges.crash(vmcore)} == {*BOTH, MANIFEST_NAME}
    assert judges.osrelease(vmcore) == rig.find_kernel().release
    (written,) = captured.events(Event.VMCORE_WRITTEN)
    assert "No space left on device" in written["MESSAGE"]
    # What was acknowledged is still in the spool, because the vmcore is not whole.
    assert len(list(captured.target.glob(".vmcoredd-spool/*/*.note"))) == len(BOTH)


@MATRIX
def test_machine_ends_where_there_is_no_target(run: Run) -> None:
    # The rig has a deadline.
    run(disk_mib=0)


@MATRIX
def test_memory_and_initramfs_that_we_take(run: Run, capture_initramfs: capture.Initramfs, tmp_path: Path) -> None:
    ours = run().points["vmcoredd"].available_kib
    bare = replace(capture_initramfs, file=capture_initramfs.without)
    idle = units.helper("idle", "true", after="dbus.service")
    files = {**units.bare_target("dbus.service"), **idle, **units.finally_do("poweroff")}
    without = capture.capture(tmp_path / "without", bare, capture.Scenario(files)).points["idle"].available_kib
    size = capture_initramfs.file.stat().st_size - bare.file.stat().st_size
    print(f"ours: {(without - ours) / 1024:.1f} MiB of memory, {size / 1e6:.1f} MB of initramfs")
    assert without - ours < MEMORY_GOAL_KIB
    assert size < INITRAMFS_GOAL


def registered(name: str, *settings: str) -> units.Files:
    """A collector that the service knows by a file."""
    data = f"{units.VENDOR}/{name}.bin"
    lines = ["[Collector]", f"Exec=cat /{data}", "Size=64K", *settings, ""]
    return {f"etc/vmcoredd/collectors.d/{name}.conf": "\n".join(lines).encode(), data: REGISTERS}


def assert_dumps(captured: capture.Captured, dumps: dict[str, bytes]) -> None:
    """The vmcore has these device dumps, as crash, its manifest and the journal see it."""
    require("crash")
    vmcore = captured.vmcore()
    assert {dump.name for dump in judges.crash(vmcore)} == {*dumps, MANIFEST_NAME}
    logged = {entry["VMCOREDD_DUMP_NAME"]: entry for entry in captured.events(Event.DUMP_ADDED)}
    assert {name: (entry["VMCOREDD_SIZE"], entry["VMCOREDD_SHA256"]) for name, entry in logged.items()} == {
        name: (str(len(data)), hashlib.sha256(data).hexdigest()) for name, data in dumps.items()
    }
    with vmcore.open("rb") as file:
        inspection = find(file.fileno(), str(vmcore))
        for dump in inspection.device_dumps:
            if dump.name != MANIFEST_NAME:
                assert inspection.image.pread(len(dumps[dump.name]), dump.offset) == dumps[dump.name]


def assert_explained(captured: capture.Captured) -> None:
    """journalctl has the texts of the catalog, with nothing left open in them, and the fields."""
    text = re.sub(r"^░░ ?", "", captured.explained(), flags=re.MULTILINE)
    path = "/var/crash/" + str(captured.vmcore().relative_to(captured.target))
    for subject in ("Taking device dumps", "Device dump registers added", f"{path} written", "Stopped"):
        assert f"Subject: {subject}\nDefined-By: vmcoredd\n" in text
    assert f"has delivered {len(REGISTERS)} bytes" in text
    assert '"vmcoredd inspect" lists and verifies the device dumps' in text
    assert "@" not in text
    # Nothing went wrong.
    assert "VMCOREDD" not in captured.explained("--priority=warning", "--output=json")
    entries = [json.loads(line) for line in captured.explained("--output=json").splitlines()]
    fields = {entry["MESSAGE_ID"]: entry for entry in entries if "MESSAGE_ID" in entry}
    written = fields[Event.VMCORE_WRITTEN.value]
    assert (written["PRIORITY"], written["SYSLOG_IDENTIFIER"]) == ("6", "vmcoredd-daemon")
    assert (written["VMCOREDD_PATH"], written["VMCOREDD_DUMPS"]) == (path, str(len(BOTH)))
    assert fields[Event.STARTED.value]["VMCOREDD_SOURCE"] == "/proc/vmcore"


def assert_filtered(captured: capture.Captured) -> None:
    """The vmcore is kdump-compressed, and what makedumpfile reads in it is the log of the kernel that died."""
    vmcore = captured.vmcore()
    assert vmcore.read_bytes()[:8] == b"KDUMP   "
    assert judges.osrelease(vmcore) == rig.find_kernel().release
    log = judges.makedumpfile(vmcore, vmcore.with_name("dmesg"), "--dump-dmesg").read_text()
    assert log == captured.vmcore("vmcore-dmesg.txt").read_text()
    assert rig.MARKER in log

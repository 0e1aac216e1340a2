# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine fails while the capture kernel writes: after each fault the disk holds every acknowledged dump."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kdump import capture, faulty, rig, units, write_log
from tests.lib.tools import installed_program
from tests.torture import disk as judge
from vmcoredd_daemon.journal import Event

pytestmark = [pytest.mark.qemu, pytest.mark.kdump_matrix, pytest.mark.timeout(600)]

NAMES = ["small-c4032", "registers-c65000", "odd-c300001", "large-c1000000", "firmware-c2500000"]
DISK_MIB = 800


@pytest.mark.parametrize("percent", [1, 50, 90])
def test_second_panic(capture_initramfs: capture.Initramfs, tmp_path: Path, percent: int) -> None:
    files = (faulty.adding(*NAMES), faulty.writing("panic", percent))
    machine = capture.prepare(tmp_path, capture_initramfs, faulty.scenario(*files, disk_mib=DISK_MIB))
    console = rig.boot(machine, tmp_path / "console.log", timeout=110)
    assert f": {percent} percent" in console
    assert console.count("sysrq: Trigger a crash") == 2
    assert faulty.answers(console).acknowledged.keys() == set(NAMES)
    target = faulty.mounted_again(tmp_path / "disk", tmp_path / "target")
    assert faulty.held(target) == set(NAMES)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("acknowledged odd-c300001", id="adding"),
        pytest.param(": 1 percent", id="begun"),
        pytest.param(": 60 percent", id="writing"),
        pytest.param(": 100 percent", id="copied"),
        pytest.param("the service is gone", id="done"),
    ],
)
def test_power_cut(capture_initramfs: capture.Initramfs, tmp_path: Path, moment: str) -> None:
    """QEMU is killed, and what its disk was told is played back as a disk without power may have kept it.

    A killed QEMU alone is no power cut, whatever its cache mode: writethrough and none make its host flush more
    often, unsafe never, but what QEMU gave to the host's kernel stays in all of them, flushed by the guest or not.
    So each write and flush is logged, and the states are made of that log: behind each answer, at flushes all over
    the log, and at its end, once without all that was not flushed, once with one in two of those writes, whole, in
    their order. What this leaves out is a write that is torn, and a disk that lies about its flushes. A flush
    counts for writes that were on their way when it began.
    """
    pristine, log = faulty.make_disk(tmp_path / "pristine", DISK_MIB), tmp_path / "log"
    log.touch()
    disk = tmp_path / "disk"
    shutil.copy(pristine, disk)
    files = (faulty.adding(*NAMES), faulty.writing("say", 1, 60, 100))
    scenario = faulty.scenario(*files, disk_mib=0, devices=write_log.options(disk, log))
    machine = capture.prepare(tmp_path, capture_initramfs, scenario)
    since: dict[str, int] = {}

    def cut(console: str) -> bool:
        # First the answers, then the log: what was answered is in no shorter part of it.
        for name in faulty.answers(console).acknowledged.keys() - since.keys():
            since[name] = write_log.length(log)
        return moment in console

    _, console = rig.run(machine, tmp_path / "console.log", timeout=110, cut=cut)
    assert moment in console
    cut(console)
    assert faulty.held(faulty.mounted_again(disk, tmp_path / "target")) >= since.keys()
    entries = write_log.read(log)
    flushes = [number + 1 for number, entry in enumerate(entries) if entry.flags & write_log.FLUSH]
    ends = sorted({*since.values(), *flushes[:: len(flushes) // 8 + 1], len(entries)})
    print(f"{moment!r}: {len(entries)} writes, {len(flushes)} flushes, states at {ends}, answers at {since}")
    for end in ends:
        for lost in (None, random.Random(end)):
            image = tmp_path / "state"
            shutil.copy(pristine, image)
            write_log.replay(log, write_log.kept(entries, end, lost), image)
            held = faulty.held(faulty.mounted_again(image, tmp_path / "target"))
            promised = {name for name, number in since.items() if number <= end}
            assert held >= promised, f"{promised - held} lost with {end} of {len(entries)} writes"


def test_next_boot_after_a_power_cut(capture_initramfs: capture.Initramfs, tmp_path: Path) -> None:
    files = (faulty.adding(*NAMES), faulty.writing("say", 30))
    scenario = faulty.scenario(*files, disk_mib=DISK_MIB)
    machine = capture.prepare(tmp_path, capture_initramfs, scenario)
    rig.run(machine, tmp_path / "console.log", timeout=110, cut=lambda console: ": 30 percent" in console)
    options = write_log.options(tmp_path / "disk", tmp_path / "log")
    (tmp_path / "log").touch()
    again = faulty.scenario(faulty.adding("next-c5000"), units.finally_do("poweroff"), disk_mib=0, devices=options)
    captured = capture.capture(tmp_path / "again", capture_initramfs, again)
    capture.fetch(tmp_path / "disk", captured.target)
    (left,) = captured.events(Event.DUMP_LEFT_BEHIND)
    (spool,) = captured.target.glob(".vmcoredd-spool/*/000001.note")
    assert spool.parent.name in left["VMCOREDD_SPOOL"]
    assert judge.check_spool(captured.target) == set(NAMES)
    assert faulty.dumps_of(captured.vmcore()) == {"next-c5000"}
    # The other boot's, for which there is no vmcore.
    attach: list[str | Path] = [installed_program("vmcoredd"), "attach", captured.vmcore()]
    subprocess.run([*attach, *spool.parent.glob("*.note")], check=True, capture_output=True)
    assert faulty.dumps_of(captured.vmcore()) == {"next-c5000", *NAMES}


@pytest.mark.parametrize(
    "free",
    [
        pytest.param(0, id="nothing"),
        pytest.param(8 << 10, id="directories-of-the-spool"),
        pytest.param(64 << 10, id="one-dump"),
        pytest.param(256 << 10, id="two-dumps"),
        pytest.param(1 << 20, id="three-dumps"),
        pytest.param(3 << 20, id="four-dumps"),
        pytest.param(5 << 20, id="the-spool"),
        pytest.param(10 << 20, id="dumps-and-some-memory"),
        pytest.param(40 << 20, id="memory-that-is-filtered"),
        pytest.param(360 << 20, id="all-but-the-vmcore"),
    ],
)
def test_full_disk(capture_initramfs: capture.Initramfs, tmp_path: Path, free: int) -> None:
    disk = faulty.make_disk(tmp_path / "full", DISK_MIB, free)
    drive = ("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe")
    # Where there is no room for a directory, there is none for a journal.
    console_journal = {
        "etc/systemd/journald.conf.d/console.conf": b"[Journal]\nForwardToConsole=yes\nMaxLevelConsole=warning\n"
    }
    files = (faulty.adding(*NAMES), console_journal, units.finally_do("poweroff"))
    # Memory enough to keep device dumps there, which would be no use.
    scenario = faulty.scenario(*files, memory_mib=640, crashkernel="256M", disk_mib=0, devices=drive)
    captured = capture.capture(tmp_path / "machine", capture_initramfs, scenario)
    faulty.remove_filler(disk)
    capture.fetch(disk, captured.target)
    answers = faulty.answers(captured.console)
    assert answers.acknowledged.keys() | answers.refused.keys() == set(NAMES)
    assert set(answers.refused.values()) <= {"org.vmcoredd1.Error.NoSpace"}
    # A plain copy of the memory, which could not be finished either, has no device dumps.
    vmcores = [path for path in captured.target.glob("localhost-*/vmcore*") if path.suffix != ".txt"]
    found = {path.name: faulty.dumps_of(path) for path in vmcores if path.suffix != ".json"}
    spooled = judge.check_spool(captured.target)
    print(f"{free} bytes free: {len(answers.acknowledged)} acknowledged, {len(spooled)} in the spool, {found}")
    # No more either: no daemon finds what was refused.
    assert spooled.union(*found.values()) == answers.acknowledged.keys()
    assert_said(captured, answers.refused, found)


def assert_said(captured: capture.Captured, refused: dict[str, str], found: dict[str, set[str]]) -> None:
    """The log names what was refused, and what the vmcore lacks."""
    journals = list(captured.target.glob("*/vmcoredd-journal.json"))
    if journals and journals[0].stat().st_size:
        said = "\n".join(json.loads(line)["MESSAGE"] for line in journals[0].read_text().splitlines())
    else:
        said = captured.console
    for name in refused:
        # In its file, or in the directory.
        assert re.search(f"Collecting failed: device dump {name}: .*No space left on device", said)
    if "vmcore" not in found:
        assert "incomplete: " in said or "No vmcore written: " in said

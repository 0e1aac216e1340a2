# SPDX-License-Identifier: LGPL-2.1-or-later
"""A kernel whose /proc/vmcore has almost 2^64 bytes: more than a FUSE file can have, see tests/lib/unreachable.py.

No kernel has died: the headers of a dead one are put into its memory, as kexec-tools does it.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kdump import capture, rig, units
from tests.lib import external_tools as judges
from tests.lib.elf_writer import NT_PRSTATUS, Core, Load, note
from tests.lib.unreachable import ABSURD, MEMORY, RELEASE
from tests.lib.vmcore_dumps import manifest
from vmcoredd_daemon.collectors.builtin import BUILT_IN
from vmcoredd_daemon.manifest import MANIFEST_NAME

pytestmark = [pytest.mark.qemu, pytest.mark.kdump_matrix]

HEADERS = 0x18000000
"""Where they are in memory, which the kernel leaves alone."""
PAGE = 0x1000
P_OFFSET_OF_THE_NOTES = 64 + 8


def headers(path: Path) -> Path:
    """Write what kexec-tools gives the capture kernel: a p_offset is an address."""
    info = f"OSRELEASE={RELEASE}\nPAGESIZE={PAGE}\n".encode()
    notes = note(NT_PRSTATUS, bytes(336)) + note(0, info, b"VMCOREINFO\0")
    loads = (ABSURD, *(Load(paddr, filesz=size) for paddr, size in MEMORY))
    data = bytearray(Core(notes, tuple(replace(load, offset=load.paddr) for load in loads)).headers())
    struct.pack_into("<Q", data, P_OFFSET_OF_THE_NOTES, HEADERS + PAGE)
    path.write_bytes(data.ljust(PAGE, b"\0") + notes.ljust(PAGE, b"\0"))
    return path


def test_what_the_kernel_gives_is_kept(capture_initramfs: capture.Initramfs, tmp_path: Path) -> None:
    masks: units.Files = {f"etc/vmcoredd/collectors.d/{name}.conf": b"" for name in BUILT_IN}
    parts = [masks, units.pipe_helper("pipe", "registers", b"registers"), units.finally_do("poweroff")]
    files = {name: file for part in parts for name, file in part.items()}
    machine = capture.prepare(tmp_path, capture_initramfs, capture.Scenario(files=files))
    loader = f"loader,file={headers(tmp_path / 'headers')},addr={HEADERS:#x},force-raw=on"
    machine = replace(
        machine,
        initramfs=tmp_path / "combined.initramfs",
        command_line=f"{capture.CAPTURE_COMMAND_LINE} elfcorehdr={HEADERS:#x} memmap=1M${HEADERS:#x}",
        qemu_options=("-device", loader),
    )
    rig.boot(machine, tmp_path / "console.log", timeout=100)
    target = tmp_path / "target"
    target.mkdir()
    capture.fetch(machine.disks[0], target)

    (vmcore,) = target.glob("*/vmcore-incomplete")
    assert judges.crash_names(vmcore) == ["registers", MANIFEST_NAME]
    assert judges.osrelease(vmcore) == RELEASE
    assert [name for name, _ in judges.pyelftools(vmcore)] == ["LINUX", "LINUX", "CORE", "VMCOREINFO"]
    assert [(paddr, size) for paddr, _, _, size in judges.loads(vmcore)] == [(paddr, 0) for paddr, _ in MEMORY]
    assert "beyond what a file can hold: 3 of 3 PT_LOADs cannot be read" in manifest(vmcore).source.error

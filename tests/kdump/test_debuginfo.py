# SPDX-License-Identifier: LGPL-2.1-or-later
"""drgn and crash, with the debug information of the kernel, read what we write as they read the source."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kdump import rig
from tests.lib.attaching import attach_data
from tests.lib.tools import require
from vmcoredd_daemon.config.limits import Limits
from vmcoredd_daemon.config.vmcore_format import Compression, Format, Output
from vmcoredd_daemon.dumps.buffer import Buffer
from vmcoredd_daemon.dumps.collector import Collected
from vmcoredd_daemon.dumps.dump_list import DumpList
from vmcoredd_daemon.dumps.spool import Spool
from vmcoredd_daemon.manifest import MANIFEST_NAME
from vmcoredd_daemon.note import VMCOREDD_HEADER_SIZE, ByteOrder, note_size
from vmcoredd_daemon.writer.writer import VmcoreWriter

pytestmark = [pytest.mark.debuginfo, pytest.mark.timeout(300)]

PAGE = 4096
DUMPS = {"nic_0000:00:03.0": bytes(range(256)) * 300, "disk": b"d"}
ATTACHED = {"attached": os.urandom(70_000)}

READS = {"bt": "bt -a", "log": "log", "ps": "ps", "modules": "mod", "mounts": "mount"}
"""Commands of crash whose output the device dumps must not change."""

OUTPUTS = {
    "elf": Output(Format.ELF),
    **{f"kdump-{kind}": Output(Format.KDUMP, compression=kind) for kind in Compression},
}

DRGN = """
import json, sys
from drgn import Program
from drgn.helpers.linux.pid import for_each_task

program = Program()
program.set_core_dump(sys.argv[1])
program.load_debug_info([sys.argv[2]])
crashed = program.crashed_thread()
print(json.dumps({
    "VMCOREINFO": program["VMCOREINFO"].string_().decode(),
    "release": program["init_uts_ns"].name.release.string_().decode(),
    "banner": program["linux_banner"].string_().decode(),
    "tasks": [[task.pid.value_(), task.comm.string_().decode()] for task in for_each_task(program)],
    "crashed": [crashed.tid, [frame.name for frame in crashed.stack_trace()]],
}))
"""


@dataclass(frozen=True, slots=True)
class Bytes:
    """A collector that has these bytes."""

    data: bytes
    description: str = "bytes"

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        return Collected(os.pwrite(buffer.fd, self.data, buffer.offset))

    def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def by_drgn(panic_result: rig.PanicResult, vmlinux: Path) -> dict[str, Any]:
    """What drgn reads of the source."""
    return drgn(panic_result.vmcore, vmlinux)


@pytest.fixture(scope="session")
def by_crash(
    panic_result: rig.PanicResult, vmlinux: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What crash reads of the source."""
    return crash(panic_result.vmcore, vmlinux, tmp_path_factory.mktemp("crash"), READS)


def drgn(vmcore: Path, vmlinux: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", DRGN, str(vmcore), str(vmlinux)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def crash(vmcore: Path, vmlinux: Path, directory: Path, commands: dict[str, str]) -> dict[str, str]:
    """Run commands of crash, in *directory*; return what each prints. Its exit status says nothing of them."""
    require("crash")
    lines = "".join(f"{command} > {name}.txt\n" for name, command in commands.items())
    run = subprocess.run(
        ["crash", "-s", "-x", str(vmlinux), str(vmcore)],
        input=f"{lines}quit\n",
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
        cwd=directory,
    )
    assert "error" not in run.stdout.lower()
    return {name: (directory / f"{name}.txt").read_text(errors="replace") for name in commands}


async def write(source: Path, target: Path, output: Output) -> Path:
    """Write a vmcore with device dumps as the service does, and attach one more when it is finished."""
    dumps = DumpList(Spool.in_memory(PAGE, ByteOrder.LITTLE), Limits())
    try:
        for name, data in DUMPS.items():
            await dumps.add_device_dump(name, len(data), Bytes(data), timeout=5)
        written = await VmcoreWriter(dumps, source, target, output).write()
    finally:
        dumps.close()
    assert not written.error
    assert not written.fallback
    attach_data(written.path, **ATTACHED)
    return written.path


@pytest.mark.parametrize("name", OUTPUTS)
async def test_everything_is_as_in_the_source(
    panic_result: rig.PanicResult,
    vmlinux: Path,
    by_drgn: dict[str, Any],
    by_crash: dict[str, str],
    tmp_path: Path,
    name: str,
) -> None:
    require("makedumpfile")
    vmcore = await write(panic_result.vmcore, tmp_path, OUTPUTS[name])
    assert drgn(vmcore, vmlinux) == by_drgn
    expected = DUMPS | ATTACHED
    extract = {f"dump{index}": f"dev -v {index} dump{index}" for index in range(len(expected))}
    texts = crash(vmcore, vmlinux, tmp_path, {**READS, "list": "dev -V", **extract})
    assert {name: texts[name] for name in READS} == by_crash
    assert re.findall(r"^ *\d+ +0x\w+ +\d+ +(\S+)$", texts["list"], re.MULTILINE) == [*expected, MANIFEST_NAME]
    for name, data in zip(extract, expected.values(), strict=True):
        # crash has the bytes that fill the last page, too.
        assert (tmp_path / name).read_bytes() == data.ljust(
            note_size(len(data), PAGE) - VMCOREDD_HEADER_SIZE, b"\0"
        )


def test_what_is_compared_is_that_panic(
    panic_result: rig.PanicResult, by_drgn: dict[str, Any], by_crash: dict[str, str]
) -> None:
    assert by_drgn["release"] == panic_result.kernel_release
    assert "sysrq_handle_crash" in by_drgn["crashed"][1]
    assert "sysrq_handle_crash" in by_crash["bt"]
    assert rig.MARKER in by_crash["log"]
    assert [1, "init"] in by_drgn["tasks"]
    assert re.search(r"^> +1 +0 .* init$", by_crash["ps"], re.MULTILINE)

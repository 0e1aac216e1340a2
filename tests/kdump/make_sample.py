# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make the sample vmcore of tests/data, a real panic filtered by makedumpfile, and its section in the README.

`python -m tests.kdump.make_sample`, from the top of the repository.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.kdump import rig
from tests.lib.paths import DATA_DIRECTORY
from vmcoredd_daemon.vmcore.elf import read_headers
from vmcoredd_daemon.vmcore.image import file_image

DATA = DATA_DIRECTORY
SAMPLE = DATA / "vmcore-6.1-x86_64.elf.xz"
README = DATA / "README.md"
TITLE = f"## {SAMPLE.name}\n"

# A small machine, because its memory map (1/64 of its memory) passes the filter.
MEMORY_MIB = 288
CRASHKERNEL = "96M"

SECTION = """\
A real vmcore: a stock Debian kernel panicked in QEMU, its capture kernel's whole `/proc/vmcore` was copied out,
and `makedumpfile {filter}` filtered it; then the pages of the kernel's text, which the kernel's package holds too,
became zeros, for size. `python -m tests.kdump.make_sample` made it and wrote this section.

| | |
|---|---|
| kernel release | `{kernel_release}` |
| kernel command line | `{command_line}` |
| memory | {memory_mib} MiB |
| date of the panic | {date} |
| size | {size} bytes, {compressed_size} as .xz |
| sha256, uncompressed | `{sha256}` |
| kernel log ends with | `{marker}`, then the panic |

The command line and the marker are in the kernel log: `makedumpfile --dump-dmesg` shows them.
"""

FILTER = ("-E", "-d", "31")


@dataclass(frozen=True, slots=True)
class Sample:
    kernel_release: str
    command_line: str
    size: int
    compressed_size: int
    sha256: str


def make_sample() -> Sample:
    with tempfile.TemporaryDirectory() as temporary:
        workdir = Path(temporary)
        result = rig.panic(workdir, memory_mib=MEMORY_MIB, crashkernel=CRASHKERNEL)
        filtered = workdir / "filtered"
        subprocess.run(["makedumpfile", *FILTER, result.vmcore, filtered], check=True, capture_output=True)
        content = without_kernel_text(filtered)
    compress(content, SAMPLE)
    return Sample(
        kernel_release=result.kernel_release,
        command_line=command_line(result.console),
        size=len(content),
        compressed_size=SAMPLE.stat().st_size,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def without_kernel_text(vmcore: Path) -> bytes:
    """Return the vmcore with zeros for the kernel's text, which is in the kernel's package, and here twice.

    Two thirds of the compressed sample would be text; no reader of notes, kernel log or VMCOREINFO looks at it.
    """
    content = bytearray(vmcore.read_bytes())
    stext = re.search(rb"SYMBOL\(_stext\)=([0-9a-f]+)\n", content)
    assert stext is not None
    with vmcore.open("rb") as file:
        loads = read_headers(file_image(file.fileno(), str(vmcore))).loads
    text = next(load for load in loads if load.p_vaddr == int(stext[1], 16))
    for load in loads:
        if load.p_paddr == text.p_paddr:
            content[load.p_offset : load.p_offset + text.p_filesz] = bytes(text.p_filesz)
    return bytes(content)


def compress(content: bytes, destination: Path) -> None:
    destination.write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))


def command_line(console: str) -> str:
    first_kernels = re.search(r"Kernel command line: (.*)", console)
    if first_kernels is None:
        raise rig.RigError("no command line on the console", console)
    return first_kernels[1]


def write_section(sample: Sample) -> None:
    """Put the sample's section in the README, in place of the one of an earlier sample."""
    section = SECTION.format(
        filter=" ".join(FILTER),
        kernel_release=sample.kernel_release,
        command_line=sample.command_line,
        memory_mib=MEMORY_MIB,
        date=datetime.now(UTC).date(),
        size=f"{sample.size:,}",
        compressed_size=f"{sample.compressed_size:,}",
        sha256=sample.sha256,
        marker=rig.MARKER,
    )
    text = README.read_text()
    before, _, old = text.partition(TITLE)
    _, heading, after = old.partition("\n## ")
    README.write_text(f"{before.rstrip()}\n\n{TITLE}\n{section}{heading}{after}")


def main() -> None:
    sample = make_sample()
    write_section(sample)
    print(f"{SAMPLE}: {sample.compressed_size} bytes, {sample.size} uncompressed, sha256 {sample.sha256}")


if __name__ == "__main__":
    main()

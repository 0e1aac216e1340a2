# SPDX-License-Identifier: LGPL-2.1-or-later
"""A /proc/vmcore of almost 2^64 bytes, as kexec-tools and the kernel make it on arm64 without KALLSYMS_ALL.

kexec-tools takes _text, which it does not find in /proc/kallsyms, for 0 (``iomem_range_callback()`` in
kexec/arch/arm64/crashdump-arm64.c), and the kernel puts all PT_LOADs behind each other in 64 bits
(``process_ptload_program_headers_elf64()``). The addresses are those of tests/data/arm64-6.1.kdump.xz.
"""

from pathlib import Path

from tests.lib.elf_writer import EM_X86_64, NT_PRSTATUS, Core, Load, note

STEXT, CODE, CODE_END = 0xFFFFB52716810000, 0x40210000, 0x42210000
"""_stext in the crashed kernel, and where /proc/iomem has its code and the end of its data."""
MEMORY = ((0x40000000, 0x1B200000), (0x6B200000, 0x4E00000))
"""Address and size of what is not the capture kernel's."""
ABSURD = Load((CODE - STEXT) % 2**64, filesz=CODE_END - CODE + STEXT, vaddr=2**64 - 1)
RELEASE = "6.1.0-50-arm64"
READABLE = b"memory" * 10000
FILE_SIZE = (1 << 63) - 1
"""What a FUSE file can have at most; that of the kernel says more."""


def unreachable_source(path: Path, *, readable: bool) -> Path:
    """Write its headers and notes, and, if *readable*, a PT_LOAD that lies before the absurd one."""
    info = f"OSRELEASE={RELEASE}\nPAGESIZE=4096\nCRASHTIME=1795983956\n".encode()
    notes = note(NT_PRSTATUS, bytes(392)) + note(0, info, b"VMCOREINFO\0")
    before = [Load(0x1000, READABLE)] if readable else []
    offset, loads = 0x2000, []
    for load in (*before, ABSURD, *(Load(paddr, filesz=size) for paddr, size in MEMORY)):
        loads.append(Load(load.paddr, load.data, load.size, offset, vaddr=load.vaddr))
        offset = (offset + (load.size + 0xFFF & ~0xFFF)) % 2**64
    assert readable or offset == (0x2000 + STEXT + CODE_END - CODE + sum(size for _, size in MEMORY)) % 2**64
    # crash and makedumpfile of this machine read it, too.
    core = Core(notes, tuple(loads), e_machine=EM_X86_64)
    path.write_bytes((core.headers().ljust(0x1000, b"\0") + notes).ljust(0x2000, b"\0"))
    with path.open("ab") as file:
        file.write(READABLE if readable else b"")
        file.truncate(file.tell() + 0xFFF & ~0xFFF)
    return path

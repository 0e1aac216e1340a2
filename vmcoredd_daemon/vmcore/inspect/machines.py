# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is known of crash and makedumpfile on each machine: by trying, by their source alone, or not at all.

crash takes a file whose machine it does not know for one of its own (``read_dump_header()`` of diskdump.c). It
walks the notes of kdump-compressed files with ``machdep->process_elf_notes``, which arm.c does not set, and in
which s390x.c looks for other types. Page tables: ``arm64_init()`` and ``arm64_vtop_4level_4k()`` of its arm64.c.
makedumpfile: ``calculate_plat_config()`` of arch/arm64.c, ``get_machdep_info_riscv64()`` of arch/riscv64.c, and
the machines for which makedumpfile.h has functions.
"""

import platform
import re
from collections.abc import Mapping

from .compat import Verdict

_CRASH_TRIED = {"aarch64", "arm", "armv7l", "i686", "ppc64le", "s390x", "x86_64"}
"""Version 8.0.2 of each lists device dumps, or does not, as is said here."""
_MAKEDUMPFILE_TRIED = {"x86_64"}
_KNOWN = re.compile(
    r"x86_64|i[3-6]86|aarch64|arm\w*|ppc|ppc64|ppc64le|mips|mips64|riscv64|loongarch64|s390x|sparc64",
    re.IGNORECASE,
)
_NO_KDUMP_NOTES = re.compile(r"s390x|arm\w*", re.IGNORECASE)
"""Machines whose crash reads no device dumps from kdump-compressed files."""
_ARM64_PAGE_TABLES = {
    *((4096, bits) for bits in (39, 48)),
    *((16384, bits) for bits in (36, 47, 48)),
    *((65536, bits) for bits in (42, 48, 52)),
}
"""PAGESIZE and VA_BITS of which makedumpfile knows the levels, up to version 1.7.9."""
_RISCV64_NUMBERS = (
    *("VA_BITS", "PAGE_OFFSET", "VMALLOC_START", "VMALLOC_END", "VMEMMAP_START", "VMEMMAP_END", "MODULES_VADDR"),
    *("MODULES_END", "KERNEL_LINK_ADDR", "va_kernel_pa_offset"),
)
"""Without one of these in VMCOREINFO makedumpfile fails."""
_CRASH_SINCE = {"mips64": "7.3.0", "riscv64": "8.0.2", "loongarch64": "8.0.5"}
_MAKEDUMPFILE_SINCE = {"loongarch64": "1.7.2", "riscv64": "1.7.4"}
"""The first versions that know a machine; older ones than that had all others."""


def judge_crash(verdict: Verdict, machine: str, *, kdump: bool) -> None:
    """Add what the *machine* of a file, as the file calls it, means for crash."""
    if not _KNOWN.fullmatch(machine):
        verdict.unknown(f"machine {machine[:65]!a}: crash takes it for the one that it is built for")
        return
    if kdump and verdict.device_dumps and _NO_KDUMP_NOTES.fullmatch(machine):
        verdict.problems.append(
            f"on {machine.lower()} it reads no device dumps from kdump-compressed files: use vmcoredd extract"
        )
        verdict.device_dumps = 0
    _remark(verdict, "crash", machine, _CRASH_TRIED, _CRASH_SINCE)


def judge_page_tables(verdict: Verdict, machine: str, info: Mapping[str, str]) -> None:
    """Add what the page tables of arm64, as VMCOREINFO *info* has them, mean for crash."""
    if not verdict.reads or machine != "aarch64":
        return
    page, bits = info.get("PAGESIZE", ""), info.get("NUMBER(VA_BITS)", "")
    if (page, bits) == ("16384", "52"):
        verdict.refuse("version 9.0.2 does not support VA_BITS 52 with pages of 16384 bytes")
    elif (page, bits) == ("4096", "52") and re.fullmatch("0x0*c", info.get("NUMBER(TCR_EL1_T1SZ)", "")):
        verdict.remarks.append("version 9.0.2 walks four levels of page tables, this kernel has five")


def judge_makedumpfile(verdict: Verdict, machine: str, info: Mapping[str, str]) -> None:
    """Add what the *machine* of a file and its VMCOREINFO *info* mean for makedumpfile."""
    if not verdict.reads:
        return
    if not _KNOWN.fullmatch(machine):
        verdict.unknown(f"machine {machine[:65]!a}: it is not one that is known")
        return
    page, bits = info.get("PAGESIZE", ""), info.get("NUMBER(VA_BITS)", "")
    known = re.fullmatch(r"\d{1,6}", page) and re.fullmatch(r"\d{1,3}", bits)
    if machine == "mips":
        verdict.refuse("there is none for mips of 32 bits")
        return
    if machine == "aarch64" and known and (int(page), int(bits)) not in _ARM64_PAGE_TABLES:
        verdict.refuse(f"no version up to 1.7.9 supports VA_BITS {bits} with pages of {page} bytes")
    missing = [name for name in _RISCV64_NUMBERS if f"NUMBER({name})" not in info] if machine == "riscv64" else []
    if missing and verdict.vmcoreinfo:
        verdict.refuse(f"finds no NUMBER({missing[0]}) in VMCOREINFO")
    _remark(verdict, "makedumpfile", machine, _MAKEDUMPFILE_TRIED, _MAKEDUMPFILE_SINCE)


def _remark(verdict: Verdict, program: str, machine: str, tried: set[str], since: Mapping[str, str]) -> None:
    machine = machine.lower()
    if machine != platform.machine():
        version = f" {since[machine]} or later" if machine in since else ""
        untried = "" if machine in tried else "; this one was not tried, what is said is by its source"
        verdict.remarks.append(f"needs a {program}{version} that is built for {machine}{untried}")

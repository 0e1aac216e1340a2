# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is known of crash and makedumpfile on each machine: by trying, by their source alone, or not at all.

crash takes a file whose machine it does not know for one of its own (``read_dump_header()`` of diskdump.c). It
walks the notes of kdump-compressed files with ``machdep->process_elf_notes``, which arm.c does not set, and in
which s390x.c looks for other types. makedumpfile: ``calculate_plat_config()`` of arch/arm64.c.
"""

import platform
import re
from collections.abc import Mapping

from .compat import Verdict

_CRASH_TRIED = {"x86_64", "s390x"}
_MAKEDUMPFILE_TRIED = {"x86_64"}
_KNOWN = re.compile(
    r"x86_64|i[3-6]86|aarch64|arm\w*|ppc|ppc64|ppc64le|mips|mips64|riscv64|loongarch64|s390x|sparc64",
    re.IGNORECASE,
)
_NO_KDUMP_NOTES = re.compile(r"s390x|arm\w*", re.IGNORECASE)
"""Machines whose crash reads no device dumps from kdump-compressed files: tried on s390x, by its source on arm."""
_ARM64_PAGE_TABLES = {
    *((4096, bits) for bits in (39, 48)),
    *((16384, bits) for bits in (36, 47, 48)),
    *((65536, bits) for bits in (42, 48, 52)),
}
"""PAGESIZE and VA_BITS of which makedumpfile knows the levels, up to version 1.7.6."""


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
    _remark(verdict, "crash", machine, _CRASH_TRIED)


def judge_makedumpfile(verdict: Verdict, machine: str, info: Mapping[str, str]) -> None:
    """Add what the *machine* of a file and its VMCOREINFO *info* mean for makedumpfile."""
    if not verdict.reads:
        return
    if not _KNOWN.fullmatch(machine):
        verdict.unknown(f"machine {machine[:65]!a}: it is not one that is known")
        return
    page, bits = info.get("PAGESIZE", ""), info.get("NUMBER(VA_BITS)", "")
    known = re.fullmatch(r"\d{1,6}", page) and re.fullmatch(r"\d{1,3}", bits)
    if machine == "aarch64" and known and (int(page), int(bits)) not in _ARM64_PAGE_TABLES:
        verdict.refuse(f"version 1.7.6 has no support for VA_BITS {bits} with pages of {page} bytes")
    _remark(verdict, "makedumpfile", machine, _MAKEDUMPFILE_TRIED)


def _remark(verdict: Verdict, program: str, machine: str, tried: set[str]) -> None:
    machine = machine.lower()
    if machine != platform.machine():
        untried = "" if machine in tried else "; this one was not tried, what is said is by its source"
        verdict.remarks.append(f"needs a {program} that is built for {machine}{untried}")

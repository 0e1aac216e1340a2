# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the target and the spool have the space for a vmcore of this machine, and for its device dumps."""

import os
from collections.abc import Iterator
from pathlib import Path

from ...config.config import Configuration
from ...config.vmcore_format import Format
from ...dumps.spool_directory import NOTE, boot_id
from ...files import MEMORY_FILE_SYSTEMS, file_system, free_space, open_unnamed
from ...progress import human_size
from ...text import counted
from .finding import Finding, ok, problem, unknown
from .kdump import DEFAULTS
from .system import Setup, System

KERNEL_MEMORY = ("Slab", "KernelStack", "PageTables", "Percpu", "VmallocUsed")
"""Fields of proc_meminfo(5): what makedumpfile keeps at dump level 31, before it compresses that."""
REMOTE = ("SSH", "NFS", "FTP")
"""Variables of kdump-tools, of which one names another machine that gets the dump."""


def check_target(system: System, configuration: Configuration) -> Iterator[Finding]:
    """Check the file system of the vmcore."""
    name = str(configuration.target)
    if system.setup is Setup.KDUMP_UTILS:
        # It is mounted elsewhere in the initramfs, and kdumpctl checks it.
        return
    if system.setup is Setup.KDUMP_TOOLS:
        variables = system.variables(DEFAULTS)
        if remote := next((variable for variable in REMOTE if variables.get(variable)), None):
            yield unknown("target", f"kdump-tools sends the vmcore to another machine ({remote}=)")
            return
        name = variables.get("KDUMP_COREDIR") or name
    where = _existing(system.path(name))
    needed, memory = system.meminfo(*KERNEL_MEMORY), system.meminfo("MemTotal")
    free = free_space(where)
    if file_system(where) in MEMORY_FILE_SYSTEMS:
        advice = "Set Target= to a directory on a disk."
        yield problem("target", f"{name} is in memory: a vmcore is lost when the machine restarts", advice)
    elif free is None or needed is None or memory is None:
        yield unknown("target", f"{name}: how much space there is, or is needed, is not known")
    elif free < needed:
        has = f"{name} has {human_size(free)} free, and the kernel's memory alone is {human_size(needed)} now"
        yield problem("target", has, "Free some space, or set the target to a directory on a larger disk.")
    elif _is_complete(system, configuration) and free < memory:
        has = f"{human_size(free)} free for {human_size(memory)} of memory"
        yield ok("target", f"{name}: {has}, so that makedumpfile compresses it")
    else:
        yield ok("target", f"{name}: {human_size(free)} free")


def check_spool(system: System, configuration: Configuration, needed: int) -> Iterator[Finding]:
    """Check the file system of the spool, which gets *needed* bytes, and what is left in it of earlier crashes."""
    name = str(configuration.spool_directory)
    yield from _left_over(system.path(name), name)
    if system.setup is Setup.KDUMP_UTILS:
        return
    where = _existing(system.path(name))
    free = free_space(where)
    if not _has_unnamed_files(where):
        advice = "Set Spool= to a directory of a local ext4, XFS or Btrfs."
        reason = f"{name}: its file system is read-only or has no O_TMPFILE, so device dumps are kept in memory"
        yield problem("spool", reason, advice)
    elif free is None:
        yield unknown("spool", f"{name}: how much space there is is not known")
    elif free - configuration.keep_free < needed:
        has = human_size(max(0, free - configuration.keep_free))
        advice = "Free some space, lower KeepFree=, or set Spool= to a directory on a larger disk."
        yield problem("spool", f"{name} has {has}, and collectors may need {human_size(needed)}", advice)
    else:
        yield ok("spool", f"{name}: {human_size(free - configuration.keep_free)} for {human_size(needed)} at most")


def _is_complete(system: System, configuration: Configuration) -> bool:
    """Whether the vmcore has all memory, as it is."""
    return system.setup is not Setup.KDUMP_TOOLS and configuration.output.format is Format.ELF


def _existing(path: Path) -> Path:
    """Return *path*, or the nearest directory above that exists: the service makes the others."""
    return next(directory for directory in (path, *path.parents) if directory.is_dir())


def _has_unnamed_files(directory: Path) -> bool:
    opened = -1
    try:
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.close(open_unnamed(opened))
    except OSError:
        return False
    finally:
        if opened >= 0:
            os.close(opened)
    return True


def _left_over(spool: Path, name: str) -> Iterator[Finding]:
    boots = [boot for boot in sorted(spool.glob("*-*-*-*-*")) if boot.name != boot_id()]
    for boot in boots:
        if notes := len(list(boot.glob(f"*{NOTE}"))):
            advice = (
                f"See with vmcoredd inspect whether they are in the vmcore of that crash; "
                f"if not, vmcoredd attach VMCORE {name}/{boot.name}/*.note; then remove that directory."
            )
            left = f"{counted(notes, 'device dump')} of an earlier crash {'is' if notes == 1 else 'are'} in {name}"
            yield problem("spool", f"{left}/{boot.name}", advice)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the target and the spool have the space for a vmcore of this machine, and for its device dumps."""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ...config.config import Configuration
from ...config.vmcore_format import Format
from ...dumps.spool_directory import NOTE, boot_id
from ...files import MEMORY_FILE_SYSTEMS, file_system, free_space, open_unnamed
from ...lookup import exists, matching
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
    name, everything = str(configuration.target), _has_everything(system, configuration)
    match system.setup:
        case Setup.KDUMP_UTILS:
            # It is mounted elsewhere in the initramfs, and kdumpctl checks it.
            return
        case Setup.INITRAMFS:
            yield unknown("target", f"{name} is a file system that the initramfs mounts")
            return
        case Setup.KDUMP_TOOLS:
            variables = system.variables(DEFAULTS)
            if remote := next((variable for variable in REMOTE if variables.get(variable)), None):
                yield unknown("target", f"kdump-tools sends the vmcore to another machine ({remote}=)")
                return
            name = variables.get("KDUMP_COREDIR") or name
            level = re.search(r"-d\s*([0-9]+)", variables.get("MAKEDUMP_ARGS", "-d 31"))
            everything = level is None or level[1] != "31"
    where = _existing(system.path(name))
    needed, memory = system.meminfo(*KERNEL_MEMORY), system.meminfo("MemTotal")
    free = free_space(where)
    if exists(system.path(name)) and not system.path(name).is_dir():
        yield problem("target", f"{name} is no directory", "Move it away.")
    elif file_system(where) in MEMORY_FILE_SYSTEMS:
        advice = "Set the target to a directory on a disk."
        yield problem("target", f"{name} is in memory: a vmcore is lost when the machine restarts", advice)
    elif free is None or needed is None or memory is None:
        yield unknown("target", f"{name}: how much space there is, or is needed, is not known")
    elif free < needed:
        has = f"{name} has {human_size(free)} free, and the kernel's memory alone is {human_size(needed)} now"
        yield problem("target", has, "Free some space, or set the target to a directory on a larger disk.")
    elif everything and free < memory:
        has = f"{name} has {human_size(free)} free for {human_size(memory)} of memory"
        yield unknown("target", f"{has}: whether that is enough when compressed is not known")
    else:
        yield ok("target", f"{name}: {human_size(free)} free")


def _has_everything(system: System, configuration: Configuration) -> bool:
    """Return whether the service's own vmcore would have all of the memory."""
    return configuration.output.format is Format.ELF or not system.is_program("makedumpfile")


def check_spool(system: System, configuration: Configuration, needed: int) -> Iterator[Finding]:
    """Check the file system of the spool, which gets *needed* bytes, and what is left in it of earlier crashes."""
    name = str(configuration.spool_directory)
    left = list(_left_over(system.path(name), name))
    yield from left
    if system.setup in {Setup.KDUMP_UTILS, Setup.INITRAMFS}:
        return
    where = _existing(system.path(name))
    free = free_space(where)
    if file_system(where) in MEMORY_FILE_SYSTEMS:
        advice = "Set Spool= to a directory on a disk."
        yield problem("spool", f"{name} is in memory, which the capture kernel does not have", advice)
    elif code := _unnamed_file_error(where):
        advice = "Set Spool= to a directory of a local ext4, XFS or Btrfs."
        reason = f"{name}: {os.strerror(code)}"
        if code in {errno.EACCES, errno.EPERM}:
            yield unknown("spool", f"{reason}: only root can tell")
        else:
            yield problem("spool", f"{reason}: device dumps would be kept in memory", advice)
    elif free is None:
        yield unknown("spool", f"{name}: how much space there is is not known")
    elif (usable := max(0, free - _kept_free(system, configuration, free))) < needed:
        advice = "Free some space, lower KeepFree=, or set Spool= to a directory on a larger disk."
        yield problem(
            "spool", f"{name} has {human_size(usable)}, and collectors may need {human_size(needed)}", advice
        )
    elif not left:
        yield ok("spool", f"{name}: {human_size(usable)} for {human_size(needed)} at most")


def _kept_free(system: System, configuration: Configuration, free: int) -> int:
    """Return the bytes of *free* that the spool leaves free in the capture kernel."""
    if system.setup is Setup.KDUMP_TOOLS:
        # There it is the default, and any other is reported.
        configuration = replace(configuration, output=replace(configuration.output, format=Format.NONE))
    return configuration.kept_free(free)


def _existing(path: Path) -> Path:
    """Return *path*, or the nearest directory above that exists: the service makes the others."""
    return next(directory for directory in (path, *path.parents) if exists(directory) and directory.is_dir())


def _unnamed_file_error(directory: Path) -> int:
    """Return why no file of O_TMPFILE can be made there, 0 if it can."""
    opened = -1
    try:
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.close(open_unnamed(opened))
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        if opened >= 0:
            os.close(opened)
    return 0


def _left_over(spool: Path, name: str) -> Iterator[Finding]:
    for boot in matching(spool, "*-*-*-*-*"):
        notes = len(matching(boot, f"*{NOTE}")) if boot.name != boot_id() else 0
        if not notes:
            continue
        are = "is" if notes == 1 else "are"
        left = f"{counted(notes, 'device dump')} of an earlier crash {are} in {name}/{boot.name}"
        advice = "Run vmcoredd resolve: it puts them into the vmcore of that crash, or says why it does not."
        yield problem("spool", left, advice)

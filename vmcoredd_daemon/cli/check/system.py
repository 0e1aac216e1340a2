# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files of the system that is checked, and which program of it saves the vmcore."""

import os
import re
import shlex
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from ...collectors.settings import PATH
from ...config.config import DEFAULT_FILE

MAX_SIZE = 1 << 20
"""Bytes that are read of a file."""
MAX_LINKS = 40
"""Symbolic links in a path that are followed, as the kernel does (Linux, ``include/linux/namei.h``)."""


class Setup(StrEnum):
    """What saves the vmcore, see docs/kdump.md."""

    KDUMP_TOOLS = "kdump-tools"
    """Of Debian and Ubuntu."""
    KDUMP_UTILS = "kdump-utils"
    """Of Fedora and RHEL; older ones have its programs in kexec-tools."""
    INITRAMFS = "initramfs"
    """vmcoredd itself, in an initramfs that dracut has made for it."""


@dataclass(frozen=True, slots=True)
class System:
    """A system, whose files are in the directory *root*. All methods block, and follow links within it."""

    root: Path = Path("/")
    initramfs: Path | None = None
    """Of the capture kernel, where dracut has made one for vmcoredd alone."""

    @property
    def setup(self) -> Setup | None:
        """What saves the vmcore; None if nothing does."""
        if self.initramfs is not None:
            return Setup.INITRAMFS
        if os.path.exists(self.path("/usr/sbin/kdump-config")):
            return Setup.KDUMP_TOOLS
        return Setup.KDUMP_UTILS if os.path.exists(self.path("/etc/kdump.conf")) else None

    @property
    def configuration(self) -> Path | None:
        """The configuration of the service, None for the default one."""
        main = self.path(str(DEFAULT_FILE))
        return main if self.root != Path("/") and os.path.exists(main) else None

    def path(self, name: str) -> Path:
        """Return where the file *name* of the system is: an absolute link leads from *root*, not from ours."""
        done, rest, links = PurePosixPath("/"), list(PurePosixPath("/", name).parts[1:]), 0
        while rest:
            part = rest.pop(0)
            if part == "..":
                done = done.parent
                continue
            here = self.root / str(done / part).lstrip("/")
            if os.path.islink(here) and links < MAX_LINKS:
                links += 1
                target = PurePosixPath(here.readlink())
                # Devices are the same everywhere.
                if str(target) == os.devnull:
                    return Path(os.devnull)
                if target.is_absolute():
                    done = PurePosixPath("/")
                rest[:0] = [each for each in target.parts if each != "/"]
            else:
                done /= part
        return self.root / str(done).lstrip("/")

    def link(self, name: str) -> str:
        """Return where a symbolic link points to, as it says; empty if it is none."""
        parent = self.path(str(PurePosixPath(name).parent))
        path = parent / PurePosixPath(name).name
        return str(path.readlink()) if os.path.islink(path) else ""

    def name(self, path: Path) -> str:
        """Return the name that the file *path* has in the system."""
        return f"/{path.relative_to(self.root)}"

    def text(self, name: str) -> str | None:
        """Return the beginning of a file; None if it is none, or cannot be read."""
        try:
            # To open a FIFO would wait for a writer.
            fd = os.open(self.path(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with open(fd, "rb") as file:
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode) and not os.path.samestat(state, os.stat(os.devnull)):
                return None
            try:
                return file.read(MAX_SIZE).decode(errors="replace")
            except OSError:
                return None

    def number(self, name: str) -> int | None:
        """Return the number that a file of the kernel has; None if there is none."""
        text = (self.text(name) or "").strip()
        return int(text) if re.fullmatch("[0-9]{1,20}", text) else None

    def meminfo(self, *fields: str) -> int | None:
        """Return the sum of *fields* of proc_meminfo(5), in bytes; None if one is missing."""
        found = dict(re.findall(r"^(\w+): +([0-9]+) kB$", self.text("/proc/meminfo") or "", re.MULTILINE))
        return sum(int(found[field]) for field in fields) * 1024 if set(fields) <= set(found) else None

    def is_program(self, name: str) -> bool:
        """Return whether the system has the program *name*; without a directory, systemd looks for it in PATH."""
        places = [name] if "/" in name else [f"{directory}/{name}" for directory in PATH.split(os.pathsep)]
        return any(os.access(path, os.X_OK) and not os.path.isdir(path) for path in map(self.path, places))

    def variables(self, name: str) -> dict[str, str]:
        """Return what a file of shell variables, as ``/etc/default`` has them, assigns to constants."""
        text = (self.text(name) or "").replace("\\\n", "")
        found = {}
        for key, value in re.findall(r"^\s*(\w+)=(\"[^\"]*\"|'[^']*'|.*)", text, re.MULTILINE):
            try:
                found[key] = " ".join(shlex.split(value, comments=True))
            except ValueError:
                found[key] = value
        return found

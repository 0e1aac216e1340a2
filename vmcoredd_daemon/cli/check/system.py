# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files of the system that is checked, and which program of it saves the vmcore."""

import os
import re
import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ...config.config import DEFAULT_FILE

MAX_SIZE = 1 << 20
"""Bytes that are read of a file."""


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
    """A system, whose files are in the directory *root*. All methods block."""

    root: Path = Path("/")
    initramfs: Path | None = None
    """Of the capture kernel, where dracut has made one for vmcoredd alone."""

    @property
    def setup(self) -> Setup | None:
        """What saves the vmcore; None if nothing does."""
        if self.path("/usr/sbin/kdump-config").exists():
            return Setup.KDUMP_TOOLS
        if self.path("/etc/kdump.conf").exists():
            return Setup.KDUMP_UTILS
        return Setup.INITRAMFS if self.initramfs is not None else None

    @property
    def configuration(self) -> Path | None:
        """The configuration of the service, None for the default."""
        return None if self.root == Path("/") else self.path(str(DEFAULT_FILE))

    def path(self, name: str) -> Path:
        """Return where the file *name* of the system is."""
        return self.root / name.lstrip("/")

    def name(self, path: Path) -> str:
        """Return the name that the file *path* has in the system."""
        return f"/{path.relative_to(self.root)}"

    def text(self, name: str) -> str | None:
        """Return the beginning of a file; None if it cannot be read."""
        try:
            with self.path(name).open("rb") as file:
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
        """Return whether *name* can be executed."""
        return os.access(self.path(name), os.X_OK) and self.path(name).is_file()

    def variables(self, name: str) -> dict[str, str]:
        """Return what a file of shell variables, as ``/etc/default`` has them, assigns to constants."""
        found = {}
        for key, value in re.findall(r"^\s*(\w+)=(.*)$", self.text(name) or "", re.MULTILINE):
            try:
                found[key] = " ".join(shlex.split(value, comments=True))
            except ValueError:
                # A value of several lines.
                found[key] = value
        return found

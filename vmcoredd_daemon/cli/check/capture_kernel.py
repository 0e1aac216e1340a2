# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether a capture kernel is loaded, and has the memory that it needs."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from ...progress import human_size
from .finding import Finding, ok, problem, unknown
from .system import Setup, System

CHECK = "capture kernel"

TRIED: Mapping[Setup, int] = MappingProxyType(
    {Setup.KDUMP_TOOLS: 192 << 20, Setup.KDUMP_UTILS: 256 << 20, Setup.INITRAMFS: 192 << 20}
)
"""Bytes of ``crashkernel=`` with which panics were tried on x86_64, see docs/kdump.md."""

WHERE: Mapping[Setup, str] = MappingProxyType(
    {
        Setup.KDUMP_TOOLS: "into /etc/default/grub.d/kdump-tools.cfg, run update-grub",
        Setup.KDUMP_UTILS: "on the kernel's command line (grubby, or kdumpctl reset-crashkernel)",
        Setup.INITRAMFS: "on the kernel's command line",
    }
)
LOAD: Mapping[Setup | None, str] = MappingProxyType(
    {
        Setup.KDUMP_TOOLS: "Run kdump-config load; kdump-config show says what is missing.",
        Setup.KDUMP_UTILS: "Run kdumpctl start.",
        Setup.INITRAMFS: "Run kexec -p, as docs/kdump.md has it.",
        None: "Set up kdump first.",
    }
)


def check(system: System) -> Iterator[Finding]:
    """Read what the kernel says in ``/sys/kernel`` (Linux, ``kernel/ksysfs.c``)."""
    setup = system.setup
    loaded, size = system.number("/sys/kernel/kexec_crash_loaded"), system.number("/sys/kernel/kexec_crash_size")
    tried = TRIED[setup] if setup else 256 << 20
    where = WHERE[setup] if setup else WHERE[Setup.INITRAMFS]
    reserve = f"Put crashkernel={tried >> 20}M {where}, and reboot."
    if loaded is None or size is None:
        yield unknown(CHECK, "the kernel does not say whether one is loaded")
    elif size == 0:
        yield problem(CHECK, "no memory is reserved for it", reserve)
    elif setup and size < tried:
        less = f"it has {human_size(size)} of memory, and was tried with {human_size(tried)}"
        yield problem(CHECK, less, reserve)
    elif not loaded:
        yield problem(CHECK, "it is not loaded", LOAD[setup])
    else:
        yield ok(CHECK, f"loaded, with {human_size(size)} of memory")

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether a capture kernel is loaded, and has the memory that it needs."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from ...progress import human_size
from .finding import Finding, ok, problem, unknown
from .system import Setup, System

CHECK = "capture kernel"

NEEDED: Mapping[Setup, int] = MappingProxyType(
    {Setup.KDUMP_TOOLS: 192 << 20, Setup.KDUMP_UTILS: 256 << 20, Setup.INITRAMFS: 192 << 20}
)
"""Bytes of ``crashkernel=`` with which panics were tried on x86_64, see docs/kdump.md."""

LOAD: Mapping[Setup, str] = MappingProxyType(
    {
        Setup.KDUMP_TOOLS: "Run kdump-config load; kdump-config show says what is missing.",
        Setup.KDUMP_UTILS: "Run kdumpctl start.",
        Setup.INITRAMFS: "Run kexec -p, as docs/kdump.md has it.",
    }
)


def check(system: System) -> Iterator[Finding]:
    """Read what the kernel says in ``/sys/kernel`` (Linux, ``kernel/ksysfs.c``)."""
    setup = system.setup
    loaded, size = system.number("/sys/kernel/kexec_crash_loaded"), system.number("/sys/kernel/kexec_crash_size")
    needed = NEEDED.get(setup) if setup else None
    if loaded is None or size is None:
        yield unknown(CHECK, "the kernel does not say whether one is loaded")
    elif size == 0:
        amount = f"crashkernel={(needed or 256 << 20) >> 20}M"
        advice = f"Put {amount} on the kernel's command line (/etc/default/grub, update-grub), and reboot."
        yield problem(CHECK, "no memory is reserved for it", advice)
    elif needed and size < needed:
        advice = f"Raise crashkernel= on the kernel's command line to {needed >> 20}M, and reboot."
        yield problem(CHECK, f"it has {human_size(size)} of memory, and needs {human_size(needed)}", advice)
    elif not loaded:
        yield problem(CHECK, "it is not loaded", LOAD[setup] if setup else "Set up kdump first.")
    else:
        yield ok(CHECK, f"loaded, with {human_size(size)} of memory")
    if "vmcoredd=off" in (system.text("/proc/cmdline") or "").split():
        advice = "Remove it: the capture kernel has the same words on its command line."
        yield problem(CHECK, "vmcoredd=off is on the kernel's command line", advice)

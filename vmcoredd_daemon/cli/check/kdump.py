# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether what saves the vmcore is set up so that the device dumps get into it, see docs/kdump.md."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ... import __file__ as package_file
from ...config.config import assignments
from ...config.vmcore_format import KDUMP_TOOLS, Format
from ...errors import InvalidConfiguration
from ...text import utc
from .finding import Finding, State, ok, problem, unknown
from .system import Setup, System

CORE_COLLECTOR = "/usr/bin/vmcoredd-core-collector"
DEFAULTS = "/etc/default/kdump-tools"
DROP_IN = "kdump-tools-dump.service.d/vmcoredd.conf"
LSINITRD_TIMEOUT = 60.0
"""Seconds for the list of the modules of an initramfs."""


def check(system: System) -> Iterator[Finding]:
    """Check the program that saves the vmcore."""
    setup = system.setup
    if setup is None:
        advice = "Install kdump-tools (Debian) or kdump-utils (Fedora); or name the initramfs with --initramfs."
        yield problem("kdump", "nothing saves a vmcore after a panic", advice)
        return
    checks = {Setup.KDUMP_TOOLS: _kdump_tools, Setup.KDUMP_UTILS: _kdump_utils, Setup.INITRAMFS: _initramfs}
    findings = list(checks[setup](system))
    yield from findings
    if all(finding.state is State.OK for finding in findings):
        yield ok(setup, "puts the device dumps into its vmcore")


def _kdump_tools(system: System) -> Iterator[Finding]:
    check, variables = Setup.KDUMP_TOOLS, system.variables(DEFAULTS)
    if variables.get("USE_KDUMP", "0") in {"", "0"}:
        yield problem(check, f"{DEFAULTS} switches it off", f"Set USE_KDUMP=1 in {DEFAULTS}.")
    append = variables.get("KDUMP_CMDLINE_APPEND") or KDUMP_TOOLS
    if KDUMP_TOOLS not in append.split():
        advice = f"Add {KDUMP_TOOLS} to KDUMP_CMDLINE_APPEND= in {DEFAULTS}, and run kdump-config load again."
        yield problem(check, "the capture kernel does not start kdump-tools-dump.service", advice)
    if "vmcoredd=off" in append.split():
        advice = f"Remove it from KDUMP_CMDLINE_APPEND= in {DEFAULTS}, and run kdump-config load again."
        yield problem(check, "vmcoredd=off is on the capture kernel's command line", advice)
    if re.search(r"^\s*(function\s+)?makedumpfile\s*\(\)", system.text(DEFAULTS) or "", re.MULTILINE):
        advice = f"Remove it from {DEFAULTS}: the package's drop-in does the same, even if Python is broken."
        yield problem(check, "a shell function makedumpfile runs instead of the program", advice)
    if not system.is_program("/usr/bin/makedumpfile"):
        yield problem(check, "makedumpfile is missing: the vmcore has no device dumps", "Install makedumpfile.")
    units = (f"{directory}/{DROP_IN}" for directory in ("/etc/systemd/system", "/usr/lib/systemd/system"))
    # The first one counts: an empty one masks the other.
    drop_in = next((text for text in map(system.text, units) if text is not None), "")
    programs = ("/usr/lib/vmcoredd/makedumpfile", CORE_COLLECTOR)
    if "BindReadOnlyPaths=" not in drop_in or not all(map(system.is_program, programs)):
        advice = "Install the package vmcoredd again, and remove what masks the drop-in in /etc/systemd/system."
        yield problem(check, "kdump-tools-dump.service does not run our makedumpfile", advice)
    written = _format(system)
    if written not in {None, Format.NONE}:
        advice = "Remove the line, unless you want all memory in a vmcore of ours beside that of kdump-tools."
        yield problem(check, f"Format={written} in vmcoredd.conf makes the service write a second vmcore", advice)


def _kdump_utils(system: System) -> Iterator[Finding]:
    check, lines = Setup.KDUMP_UTILS, (system.text("/etc/kdump.conf") or "").splitlines()
    options = {key: " ".join(value) for key, *value in (line.split("#")[0].split() or [""] for line in lines)}
    collector = options.get("core_collector", "").split()
    if collector[:2] != ["vmcoredd-core-collector", "makedumpfile"]:
        advice = (
            "Replace the line core_collector in /etc/kdump.conf by core_collector vmcoredd-core-collector "
            "makedumpfile -l --message-level 7 -d 31, and run kdumpctl rebuild."
        )
        yield problem(check, "core_collector is not vmcoredd-core-collector makedumpfile", advice)
    if not re.search(r"(--add|-a)[ =]\s*[\"']?[^-]*\bvmcoredd\b", options.get("dracut_args", "")):
        advice = "Add --add vmcoredd to the line dracut_args in /etc/kdump.conf, and run kdumpctl rebuild."
        yield problem(check, "dracut_args does not add our module", advice)
    if not system.is_program(CORE_COLLECTOR):
        yield problem(check, f"{CORE_COLLECTOR} is missing", "Install the package vmcoredd again.")
    if "kdump_pre" in options and _format(system) is not Format.NONE:
        advice = "Set Format=none in vmcoredd.conf, and run kdumpctl rebuild."
        yield problem(check, "a service that kdump_pre starts would write a second vmcore", advice)
    append = system.variables("/etc/sysconfig/kdump").get("KDUMP_COMMANDLINE_APPEND", "")
    if "vmcoredd=off" in append.split():
        advice = "Remove it from KDUMP_COMMANDLINE_APPEND= in /etc/sysconfig/kdump, and run kdumpctl reload."
        yield problem(check, "vmcoredd=off is on the capture kernel's command line", advice)
    release = (system.text("/proc/sys/kernel/osrelease") or "").strip()
    names = [f"{directory}/initramfs-{release}kdump.img" for directory in ("/boot", "/var/lib/kdump")]
    images = [image for image in map(system.path, names) if image.exists()]
    if not images:
        yield problem("initramfs", f"there is no {names[0]}", "Run kdumpctl rebuild.")
    for image in images:
        yield from _image(system, image, "Run kdumpctl rebuild.")


def _initramfs(system: System) -> Iterator[Finding]:
    image = system.initramfs
    assert image is not None
    if not image.exists():
        yield problem("initramfs", f"{image} does not exist", "Make it with dracut, as docs/kdump.md has it.")
        return
    yield from _image(system, image, "Make it again with dracut, and load it again with kexec -p.")
    if _format(system) is Format.NONE:
        yield problem(
            "initramfs", "Format=none: no program writes a vmcore", "Remove the line from vmcoredd.conf."
        )


def _image(system: System, image: Path, advice: str) -> Iterator[Finding]:
    """Check that an initramfs has our module, and is not older than what it has copied."""
    modules = _modules(image)
    if modules is None:
        yield unknown("initramfs", "lsinitrd, which would list its modules, is missing or fails")
    elif "vmcoredd" not in modules:
        yield problem("initramfs", f"{image} does not have our dracut module", advice)
    made = image.stat().st_mtime
    newer = [(time, name) for time, name in _copied(system) if time > made]
    if newer:
        time, name = max(newer)
        yield problem("initramfs", f"{image} is older than {name} ({utc(int(time * 1e6))} UTC)", advice)


def _modules(image: Path) -> list[str] | None:
    try:
        listed = subprocess.run(
            ["lsinitrd", "--mod", image],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LSINITRD_TIMEOUT,
            check=True,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return listed.stdout.split()


def _copied(system: System) -> Iterator[tuple[float, str]]:
    """Yield what our dracut module copies: the time of its last change, and its name."""
    for directory in ("/etc/vmcoredd", "/usr/lib/vmcoredd/collectors.d"):
        for file in sorted(system.path(directory).rglob("*")):
            yield file.lstat().st_mtime, system.name(file)
    # When vmcoredd was installed: the times of its own files are those of the package.
    for list_ in (*system.path("/var/lib/dpkg/info").glob("vmcoredd.list"), *_records()):
        yield list_.stat().st_mtime, "the installed vmcoredd"


def _records() -> Iterator[Path]:
    """Yield the list of files that pip writes when it installs this program."""
    yield from Path(package_file).parents[1].glob("vmcoredd-*.dist-info/RECORD")


def _format(system: System) -> Format | None:
    """Return ``Format=``, None if there is none; a mistake in the file is told by another check."""
    try:
        found: Format | None = dict(assignments(system.configuration)).get("format")
    except InvalidConfiguration:
        return None
    return found

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether what saves the vmcore is set up so that the device dumps get into it, see docs/kdump.md."""

import re
import shlex
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ... import __file__ as package_file
from ...config.config import assignments
from ...config.vmcore_format import KDUMP_TOOLS, Format
from ...errors import InvalidConfiguration
from ...lookup import exists, matching
from ...text import utc
from .finding import Finding, State, ok, problem, unknown
from .system import Setup, System
from .units import AGAIN, Unit

CORE_COLLECTOR = "/usr/bin/vmcoredd-core-collector"
DEFAULTS = "/etc/default/kdump-tools"
KDUMP_CONF = "/etc/kdump.conf"
OFF = "vmcoredd=off"
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
    given = variables.get("KDUMP_CMDLINE") or system.text("/proc/cmdline") or ""
    append = variables.get("KDUMP_CMDLINE_APPEND") or KDUMP_TOOLS
    # What kdump-config has loaded, if it has; a change of the file since then has done nothing.
    loaded = system.text(f"{variables.get('KDUMP_COREDIR') or '/var/crash'}/kexec_cmd")
    again = f"Correct KDUMP_CMDLINE= and KDUMP_CMDLINE_APPEND= in {DEFAULTS}, and run kdump-config load again."
    for words in filter(None, (f"{given} {append}", loaded)):
        if KDUMP_TOOLS not in words.replace('"', " ").split():
            yield problem(check, "the capture kernel does not start kdump-tools-dump.service", again)
            break
    if OFF in f"{given} {append} {loaded or ''}".replace('"', " ").split():
        advice = f"Remove it from the kernel's command line, and from {DEFAULTS}, and run kdump-config load again."
        yield problem(check, f"{OFF} is on the capture kernel's command line", advice)
    if re.search(r"^\s*(function\s+)?makedumpfile\s*\(\)", system.text(DEFAULTS) or "", re.MULTILINE):
        advice = f"Remove it from {DEFAULTS}: the package's drop-in does the same, even if Python is broken."
        yield problem(check, "a shell function makedumpfile runs instead of the program", advice)
    if not system.is_program("/usr/bin/makedumpfile"):
        yield problem(check, "makedumpfile is missing: the vmcore has no device dumps", "Install makedumpfile.")
    mounts = Unit(system, "kdump-tools-dump.service").values("Service", "BindReadOnlyPaths")
    programs = ("/usr/lib/vmcoredd/makedumpfile", CORE_COLLECTOR)
    if not any("vmcoredd" in mount for mount in mounts) or not all(map(system.is_program, programs)):
        advice = f"{AGAIN} Remove what masks the drop-in vmcoredd.conf of that unit in /etc/systemd/system."
        yield problem(check, "kdump-tools-dump.service does not run our makedumpfile", advice)
    written = _format(system)
    if written not in {None, Format.NONE}:
        advice = "Remove the line, unless you want all memory in a vmcore of ours beside that of kdump-tools."
        yield problem(check, f"Format={written} in vmcoredd.conf makes the service write a second vmcore", advice)


def _kdump_utils(system: System) -> Iterator[Finding]:
    check = Setup.KDUMP_UTILS
    lines = [line.split("#")[0].split() for line in (system.text(KDUMP_CONF) or "").splitlines()]
    options = {key: " ".join(value) for key, *value in filter(None, lines)}
    for key, number in Counter(line[0] for line in lines if line).items():
        if number > 1 and key in {"core_collector", "dracut_args"}:
            advice = "Leave one of the lines, and run kdumpctl rebuild: kdumpctl refuses the file."
            yield problem(check, f"{KDUMP_CONF} has {key} {number} times", advice)
    collector = options.get("core_collector", "").split()
    if collector[:2] != ["vmcoredd-core-collector", "makedumpfile"]:
        advice = (
            f"Replace the line core_collector in {KDUMP_CONF} by core_collector vmcoredd-core-collector "
            "makedumpfile -l --message-level 7 -d 31, and run kdumpctl rebuild."
        )
        yield problem(check, "core_collector is not vmcoredd-core-collector makedumpfile", advice)
    if not system.is_program(CORE_COLLECTOR):
        yield problem(check, f"{CORE_COLLECTOR} is missing", AGAIN)
    script = options.get("kdump_pre", "")
    if "vmcoredd" in (system.text(script) or "" if script else "") and _format(system) is not Format.NONE:
        advice = "Set Format=none in vmcoredd.conf, and run kdumpctl rebuild."
        yield problem(check, "the service that kdump_pre starts would write a second vmcore", advice)
    variables = system.variables("/etc/sysconfig/kdump")
    given = variables.get("KDUMP_COMMANDLINE") or system.text("/proc/cmdline") or ""
    if OFF in f"{given} {variables.get('KDUMP_COMMANDLINE_APPEND', '')}".split():
        advice = "Remove it from the kernel's command line and /etc/sysconfig/kdump, and run kdumpctl reload."
        yield problem(check, f"{OFF} is on the capture kernel's command line", advice)
    yield from _kdump_image(system, variables, options.get("dracut_args", ""))


def _kdump_image(system: System, variables: dict[str, str], dracut_args: str) -> Iterator[Finding]:
    release = variables.get("KDUMP_KERNELVER") or (system.text("/proc/sys/kernel/osrelease") or "").strip()
    # Of a debug kernel kdumpctl takes the other one, if that is installed.
    releases = [release, re.sub(r"[+-]debug$", "", release)]
    names = [f"{where}/initramfs-{each}kdump.img" for each in releases for where in ("/boot", "/var/lib/kdump")]
    image = next((image for image in map(system.path, names) if exists(image)), None)
    if image is None:
        yield problem("initramfs", f"there is no {names[0]}", "Run kdumpctl rebuild.")
        return
    modules = _modules(image)
    try:
        words = shlex.split(dracut_args)
    except ValueError:
        words = []
    added = any("vmcoredd" in word.split() or word == "--add=vmcoredd" for word in words)
    rebuild = "Run kdumpctl rebuild."
    if not added:
        rebuild = f"Add --add vmcoredd to the line dracut_args in {KDUMP_CONF}, and run kdumpctl rebuild."
    if modules is None and not added:
        yield problem(Setup.KDUMP_UTILS, "dracut_args does not add our module", rebuild)
    yield from _image(system, image, modules, rebuild)


def _initramfs(system: System) -> Iterator[Finding]:
    image = system.initramfs
    assert image is not None
    if not exists(image):
        yield problem("initramfs", f"{image} does not exist", "Make it with dracut, as docs/kdump.md has it.")
        return
    advice = "Make it again with dracut, and load it again with kexec -p."
    yield from _image(system, image, _modules(image), advice)
    written = _format(system)
    if written is Format.NONE:
        remove = "Remove the line from vmcoredd.conf."
        yield problem("initramfs", "Format=none: no program writes a vmcore", remove)
    elif written is not Format.ELF and not system.is_program("makedumpfile"):
        install = f"Install makedumpfile; or set Format=elf in vmcoredd.conf. {advice}"
        yield problem("initramfs", "makedumpfile is missing: the vmcore would have all of the memory", install)


def _image(system: System, image: Path, modules: list[str] | None, advice: str) -> Iterator[Finding]:
    """Check that an initramfs has our module, and is not older than what it has copied."""
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
    """Yield what the initramfs has copies of: the time of its last change, and its name."""
    for directory in ("/etc/vmcoredd", "/usr/lib/vmcoredd/collectors.d"):
        above = system.path(directory)
        for file in _below(above):
            yield file.lstat().st_mtime, f"{directory}/{file.relative_to(above)}"
    units = [f"/etc/systemd/system/{name}.service.d" for name in ("vmcoredd", "vmcoredd-plain")]
    files = [system.path(KDUMP_CONF), *(file for name in units for file in matching(system.path(name), "*.conf"))]
    for file in files:
        if exists(file):
            yield file.stat().st_mtime, system.name(file)
    # When vmcoredd was installed: the times of its own files are those of the package.
    for list_ in (*matching(system.path("/var/lib/dpkg/info"), "vmcoredd.list"), *_records(system)):
        yield list_.stat().st_mtime, "the installed vmcoredd"


def _below(directory: Path) -> Iterator[Path]:
    for path in matching(directory, "*"):
        yield path
        if stat.S_ISDIR(path.lstat().st_mode):
            yield from _below(path)


def _records(system: System) -> Iterator[Path]:
    """Yield the list of files that pip writes when it installs this program."""
    if system.root == Path("/"):
        yield from Path(package_file).parents[1].glob("vmcoredd-*.dist-info/RECORD")


def _format(system: System) -> Format | None:
    """Return ``Format=``, None if there is none; a mistake in the file is told by another check."""
    try:
        found: Format | None = dict(assignments(system.configuration)).get("format")
    except InvalidConfiguration:
        return None
    return found

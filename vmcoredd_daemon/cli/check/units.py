# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether systemd starts the service and the helpers in the capture kernel, and the bus lets them talk."""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from ...text import counted
from .finding import Finding, ok, problem
from .system import System

DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
"""Of units, the first one wins: systemd.unit(5)."""
TARGET = "vmcoredd-capture.target"
OURS = (TARGET, "vmcoredd.service", "vmcoredd-plain.service")
OF_COLLECTORS = "vmcoredd-collect@.service"
"""Each collector has an instance, if its file wants one."""
POLICY = "dbus-1/system.d/org.vmcoredd1.conf"
ACTIVATION = "dbus-1/system-services/org.vmcoredd1.service"


def check_units(system: System) -> Iterator[Finding]:
    """Check our units, and those of helpers: what is ``WantedBy=vmcoredd-capture.target``."""
    missing = [name for name in OURS if not _Unit(system, name).exists]
    if missing:
        yield problem("units", f"{', '.join(missing)} cannot be found", "Install the package vmcoredd again.")
    files, enabled = _services(system), _services(system, f"/{TARGET}.wants")
    bad = 0
    for name in sorted(enabled):
        for said, advice in _faults(_Unit(system, name)):
            bad += 1
            yield problem("units", f"{name}: {said}", advice)
    for name in sorted(files - enabled - {OF_COLLECTORS}):
        unit = _Unit(system, name)
        if not unit.masked and TARGET in unit.values("Install", "WantedBy"):
            bad += 1
            advice = f"Run systemctl enable {name}; or systemctl mask {name}, if it is not wanted."
            yield problem("units", f"{name} is for {TARGET}, and not enabled", advice)
    if not missing and not bad:
        helpers = counted(len(enabled), "unit of a helper", "units of helpers")
        yield ok("units", f"the service, and {helpers}")


def check_bus(system: System) -> Iterator[Finding]:
    """Check the files of the message bus: the policy, and what starts the service when it is called."""
    packages = "Install the package vmcoredd again."
    directories = ("/etc", "/usr/local/share", "/usr/share")
    policies = [name for name in (f"{each}/{POLICY}" for each in directories) if system.text(name) is not None]
    if not policies:
        yield problem("message bus", f"there is no /usr/share/{POLICY}: the service cannot own its name", packages)
    for name in policies:
        if not _may_own(system.text(name) or ""):
            yield problem("message bus", f"{name} does not let the service own its name", packages)
    if len(policies) > 1:
        advice = f"Remove {policies[0]}: an older vmcoredd has left it there, and the bus obeys both."
        yield problem("message bus", f"there are {len(policies)} policies, {' and '.join(policies)}", advice)
    if not any(system.text(f"{each}/{ACTIVATION}") for each in directories[1:]):
        yield problem("message bus", f"there is no /usr/share/{ACTIVATION}", packages)
    brokers = ("/usr/bin/dbus-daemon", "/usr/bin/dbus-broker")
    if not any(map(system.is_program, brokers)):
        yield problem(
            "message bus", "no message bus is installed: helpers cannot add device dumps", "Install dbus."
        )
    elif policies and all(_may_own(system.text(name) or "") for name in policies):
        yield ok("message bus", f"/usr/share/{POLICY}" if len(policies) == 1 else policies[-1])


def _services(system: System, directory: str = "") -> set[str]:
    return {file.name for each in DIRECTORIES for file in system.path(f"{each}{directory}").glob("*.service")}


def _faults(unit: "_Unit") -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a helper's unit, and what to do about it."""
    if not unit.exists:
        yield "its unit file is missing", f"Install its package again, or run systemctl disable {unit.name}."
        return
    if unit.masked:
        return
    oneshot = unit.values("Service", "Type")[-1:] == ["oneshot"]
    if oneshot and unit.values("Service", "TimeoutStartSec")[-1:] in ([], ["infinity"], ["0"]):
        yield (
            "has no time limit, and could keep the vmcore from being written",
            f"Set TimeoutStartSec= (systemctl edit {unit.name}): Type=oneshot has no limit by default.",
        )
    if "vmcoredd.service" not in unit.values("Unit", "After"):
        yield "may run before the service does", f"Set After=vmcoredd.service (systemctl edit {unit.name})."


class _Unit:
    """A unit, as its files say: systemd itself need not run in the system that is checked."""

    def __init__(self, system: System, name: str) -> None:
        self.name = name
        names = list(dict.fromkeys([name, re.sub(r"@.+\.", "@.", name)]))
        paths = [system.path(f"{directory}/{each}") for each in names for directory in DIRECTORIES]
        self._file = next((path for path in paths if path.is_symlink() or path.exists()), None)
        self.masked = self._file is not None and _target(self._file) == "/dev/null"
        self.exists = self.masked or (self._file is not None and self._real(system, self._file) is not None)
        files = [self._real(system, self._file)] if self._file is not None and not self.masked else []
        for directory in DIRECTORIES:
            for each in names:
                files += sorted(system.path(f"{directory}/{each}.d").glob("*.conf"))
        self._texts = [file.read_text(errors="replace") for file in files if file is not None and file.is_file()]

    def values(self, section: str, key: str) -> list[str]:
        """Return the words that are assigned to a key; those before an empty assignment do not count."""
        words: list[str] = []
        for text in self._texts:
            current = ""
            for line in text.replace("\\\n", " ").splitlines():
                if line.startswith("["):
                    current = line.strip()[1:-1]
                elif current == section and line.partition("=")[0].strip() == key:
                    value = line.partition("=")[2].split()
                    words = [*words, *value] if value else []
        return words

    @staticmethod
    def _real(system: System, file: Path) -> Path | None:
        """Follow the symbolic links of a unit, which are absolute, within the system."""
        for _ in range(8):
            if not (target := _target(file)):
                return file if file.is_file() else None
            file = system.path(target) if target.startswith("/") else file.parent / target
        return None


def _target(file: Path) -> str:
    return str(file.readlink()) if file.is_symlink() else ""


def _may_own(policy: str) -> bool:
    try:
        rules = ElementTree.fromstring(policy).iterfind("./policy[@user='root']/allow")
    except ElementTree.ParseError:
        return False
    return any(rule.get("own") == "org.vmcoredd1" for rule in rules)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether systemd starts the service and the helpers in the capture kernel, and the bus lets them talk."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from ...lookup import matching
from ...text import counted
from .finding import Finding, ok, problem, unknown
from .system import Setup, System

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
COLLECT = re.compile(r"vmcoredd-collect@(.+)\.service")
"""Runs one collector."""
PROGRAMS = ("vmcoredd", "vmcoredd-daemon")
POLICY = "dbus-1/system.d/org.vmcoredd1.conf"
ACTIVATION = "dbus-1/system-services/org.vmcoredd1.service"
AGAIN = "Install vmcoredd again."
_LINKS = {"WantedBy": "wants", "RequiredBy": "requires"}


class Unit:
    """A unit, as its files say: systemd itself need not run in the system that is checked."""

    def __init__(self, system: System, name: str) -> None:
        self.name = name
        self._system = system
        names = list(dict.fromkeys([name, re.sub(r"@.+\.", "@.", name)]))
        kind = name.rpartition(".")[2]
        places = [f"{directory}/{each}" for each in names for directory in DIRECTORIES]
        place = next((each for each in places if system.link(each) or system.text(each) is not None), None)
        text = None if place is None else system.text(place)
        self.exists = text is not None
        """Whether there is a file, or what masks it."""
        self.masked = text == ""
        self._texts = [] if self.masked or text is None else [text, *self._drop_ins([*names, kind])]

    def values(self, section: str, key: str) -> list[str]:
        """Return what is assigned to a key, in order; an empty assignment takes all before it back."""
        found: list[str] = []
        for text in self._texts:
            for in_section, name, value in _assignments(text):
                if (in_section, name) == (section, key):
                    found = [*found, value] if value else []
        return found

    def words(self, section: str, key: str) -> list[str]:
        """Return the words that are assigned to a key of units; they cannot be taken back: systemd.unit(5)."""
        return [
            word.strip("\"'")
            for text in self._texts
            for in_section, name, value in _assignments(text)
            if (in_section, name) == (section, key)
            for word in value.split()
        ]

    def _drop_ins(self, names: list[str]) -> list[str]:
        """Return the drop-ins by name, whatever their directory; of two of one name the first one counts."""
        found: dict[str, str] = {}
        for each in reversed(names):
            for directory in reversed(DIRECTORIES):
                above = f"{directory}/{each}.d"
                found |= {
                    file.name: f"{above}/{file.name}" for file in matching(self._system.path(above), "*.conf")
                }
        return [self._system.text(found[name]) or "" for name in sorted(found)]


def enabled_helpers(system: System) -> list[Unit]:
    """Return the units that :data:`TARGET` starts, besides ours, by name."""
    names = {word for word in Unit(system, TARGET).words("Unit", "Wants") if word.endswith(".service")}
    for suffix in _LINKS.values():
        names |= _services(system, f"/{TARGET}.{suffix}")
    ours = {name for name in names if name in OURS or name.startswith("vmcoredd-finish@")}
    return [Unit(system, name) for name in sorted(names - ours)]


def check_units(system: System) -> Iterator[Finding]:
    """Check our programs and units, and those of helpers: what is ``WantedBy=vmcoredd-capture.target``."""
    faults = [*_own(system)]
    helpers = enabled_helpers(system)
    for unit in helpers:
        faults += [problem("units", f"{unit.name}: {said}", advice) for said, advice in _faults(system, unit)]
    faults += [*_not_enabled(system, {unit.name for unit in helpers})]
    yield from faults
    if system.setup in {Setup.INITRAMFS, Setup.KDUMP_UTILS} and helpers:
        names = ", ".join(unit.name for unit in helpers)
        yield unknown(
            "units", f"{names}: our dracut module does not copy it; whether the initramfs has it is not known"
        )
    elif not faults:
        yield ok("units", f"the service, and {counted(len(helpers), 'unit of a helper', 'units of helpers')}")


def check_bus(system: System) -> Iterator[Finding]:
    """Check the files of the message bus: the policy, and what starts the service when it is called."""
    policies = {name: text for name in (f"/etc/{POLICY}", f"/usr/share/{POLICY}") if (text := system.text(name))}
    faults = []
    if not policies:
        missing = f"there is no /usr/share/{POLICY}: the service cannot own its name"
        faults.append(problem("message bus", missing, AGAIN))
    for name, text in policies.items():
        if not _may_own(text):
            faults.append(problem("message bus", f"{name} does not let the service own its name", AGAIN))
    if len(policies) > 1:
        first, second = policies
        advice = f"Remove {first}: an older vmcoredd has left it there, and the bus obeys both."
        faults.append(problem("message bus", f"there are two policies, {first} and {second}", advice))
    if not any(system.text(f"{each}/{ACTIVATION}") for each in ("/usr/local/share", "/usr/share")):
        faults.append(problem("message bus", f"there is no /usr/share/{ACTIVATION}", AGAIN))
    if not any(map(system.is_program, ("/usr/bin/dbus-daemon", "/usr/bin/dbus-broker"))):
        missing = "no message bus is installed: helpers cannot add device dumps"
        faults.append(problem("message bus", missing, "Install dbus."))
    yield from faults or [ok("message bus", "installed, with our policy")]


def _own(system: System) -> Iterator[Finding]:
    for name in PROGRAMS:
        if not system.is_program(name):
            yield problem("units", f"the program {name} is not in a directory where systemd looks for it", AGAIN)
    for unit in (Unit(system, name) for name in OURS):
        if not unit.exists:
            yield problem("units", f"{unit.name} cannot be found", AGAIN)
        elif unit.masked:
            yield problem("units", f"{unit.name} is masked", f"Run systemctl unmask {unit.name}.")


def _faults(system: System, unit: Unit) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a helper's unit, and what to do about it."""
    edit = f"(systemctl edit {unit.name})"
    if not unit.exists:
        yield "its unit file is missing", f"Install its package again, or run systemctl disable {unit.name}."
        return
    if unit.masked:
        return
    if unit.values("Service", "Type")[-1:] != ["oneshot"]:
        yield "is not Type=oneshot, so nothing waits until it has ended", f"Set Type=oneshot {edit}."
    limit = [*unit.values("Service", "TimeoutSec"), *unit.values("Service", "TimeoutStartSec")]
    if limit[-1:] in ([], ["infinity"], ["0"]):
        yield (
            "has no time limit, and could delay the vmcore by ten minutes",
            f"Set TimeoutStartSec= {edit}: Type=oneshot has no limit by default.",
        )
    if "vmcoredd.service" not in unit.words("Unit", "After"):
        yield "may run before the service does", f"Set After=vmcoredd.service {edit}."
    for command in unit.values("Service", "ExecStart"):
        program = command.lstrip("@-:+!").split(maxsplit=1)[:1]
        if program and "%" not in program[0] and not system.is_program(program[0].strip("\"'")):
            yield f"its program {program[0]} is missing", "Install it, or correct ExecStart=."


def _not_enabled(system: System, enabled: set[str]) -> Iterator[Finding]:
    """Yield the units of helpers that are not enabled; an instance enables its template, and a name an alias."""
    known = {COLLECT.sub("vmcoredd-collect@.service", name) for name in (*enabled, "vmcoredd-collect@x.service")}
    known |= {re.sub(r"@.+\.", "@.", name) for name in enabled} | set(enabled)
    for name in sorted(_services(system) - known):
        if any(system.link(f"{each}/{name}").rpartition("/")[2] not in {"", name} for each in DIRECTORIES):
            continue
        unit = Unit(system, name)
        if any(TARGET in unit.words("Install", key) for key in _LINKS):
            advice = f"Run systemctl enable {name}; or systemctl mask {name}, if it is not wanted."
            yield problem("units", f"{name} is for {TARGET}, and not enabled", advice)


def _services(system: System, directory: str = "") -> set[str]:
    return {file.name for each in DIRECTORIES for file in matching(system.path(f"{each}{directory}"), "*.service")}


def _assignments(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield section, key and value of each assignment: systemd.syntax(7)."""
    section = begun = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith(("#", ";")):
            continue
        joined = f"{begun} {stripped}".strip()
        if joined.endswith("\\"):
            begun = joined[:-1]
            continue
        begun = ""
        if joined.startswith("["):
            section = joined[1:-1]
        key, equals, value = joined.partition("=")
        if equals:
            yield section, key.strip(), value.strip()


def _may_own(policy: str) -> bool:
    try:
        rules = ElementTree.fromstring(policy).iterfind("./policy[@user='root']/allow")
    except (ElementTree.ParseError, ValueError):
        return False
    return any(rule.get("own") == "org.vmcoredd1" for rule in rules)

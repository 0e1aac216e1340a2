# SPDX-License-Identifier: LGPL-2.1-or-later
"""Units that a scenario adds to its capture kernel: helpers of devices, as a vendor would bring them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from tests.kdump import capture
from tests.lib.paths import ROOT

Files = Mapping[str, Path | bytes]

SYSTEM = "etc/systemd/system"
VENDOR = "usr/lib/vendor"
BUS_ADDRESS = "unix:path=/run/dbus/system_bus_socket"

ONESHOT = """\
[Unit]
{unit}
[Service]
Type=oneshot
TimeoutStartSec={timeout}
StandardError=journal+console
ExecStart={command}
ExecStartPost=measure %p
"""

# The service starts after it, so that it stops after the service.
JOURNAL = f"""\
[Unit]
Before=vmcoredd.service
RequiresMountsFor={capture.TARGET}
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=true
ExecStop=sh -c "journalctl --sync; journalctl -o json > {capture.TARGET}/journal.json"
ExecStop=cp -r /run/log/journal {capture.TARGET}
TimeoutStopSec=60
"""

MEASURED = """\
[Service]
ExecStartPost=+measure %p
ExecStopPost=+measure %p-stopped
"""


def watched() -> Files:
    """What every scenario has: measurements, and the whole journal on the disk."""
    return {**measured("vmcoredd"), **measured("dbus"), **wanted("save-journal", JOURNAL)}


def measured(service: str) -> Files:
    """Measurements when a service is ready, and when it has stopped."""
    return {f"{SYSTEM}/{service}.service.d/measured.conf": MEASURED.encode()}


def devices_first(*modules: str) -> Files:
    """Modules that nothing loads by itself, and a service that starts when drivers have found their devices."""
    order = "[Unit]\nWants=systemd-udev-settle.service\nAfter=systemd-udev-settle.service\n"
    return {
        "etc/modules-load.d/scenario.conf": "\n".join([*modules, ""]).encode(),
        f"{SYSTEM}/vmcoredd.service.d/devices.conf": order.encode(),
    }


def wanted(name: str, text: str) -> Files:
    """A unit that belongs to the capture."""
    return {
        f"{SYSTEM}/{name}.service": text.encode(),
        f"{SYSTEM}/vmcoredd-capture.target.d/{name}.conf": f"[Unit]\nWants={name}.service\n".encode(),
    }


def helper(name: str, command: str, after: str = "vmcoredd.service") -> Files:
    """A unit that adds device dumps with a shell's *command*."""
    return wanted(name, ONESHOT.format(unit=f"After={after}", timeout=30, command=f"sh -c '{command}'"))


def callback_helper(name: str, dump_name: str, size: int, script: str = "tests/lib/helper_process.py") -> Files:
    """A unit that is called back by the service to fill the dump, by a script."""
    scripts = {Path("tests/lib/helper_process.py"), Path(script)}
    command = f"exec {interpreter()} /{VENDOR}/{Path(script).name} {BUS_ADDRESS} {dump_name} {size}"
    return {
        **helper(name, command),
        **{f"{VENDOR}/{path.name}": ROOT / path for path in scripts},
        **extension("mmap"),
    }


def pipe_helper(name: str, dump_name: str, content: bytes, before: str = "") -> Files:
    """A unit that runs a shell's command *before*, and pipes *content* into `vmcoredd add`."""
    source = f"{VENDOR}/{name}.bin"
    return {**helper(name, f"{before} cat /{source} | vmcoredd add {dump_name} --size 1M"), source: content}


def core_collector(after: str, options: str) -> Files:
    """A unit that saves the vmcore as dump_fs() of kdump-utils does, with us as its core_collector."""
    script = f"""\
#!/bin/sh
directory={capture.TARGET}/kdump
mkdir "$directory"
vmcoredd core-collector {options} /proc/vmcore "$directory/vmcore-incomplete" > /dev/console 2>&1
status=$?
echo "status $status" > "$directory/status"
[ $status -eq 0 ] && sync -f "$directory/vmcore-incomplete" &&
    mv "$directory/vmcore-incomplete" "$directory/vmcore"
"""
    unit = ONESHOT.format(unit=f"After={after}", timeout=90, command=f"/{VENDOR}/kdump")
    return {**wanted("kdump", unit), f"{VENDOR}/kdump": script.encode()}


def configuration(*lines: str) -> Files:
    """Lines of the service's configuration."""
    text = "".join(f"{line}\n" for line in ("[Vmcoredd]", *lines))
    return {"etc/vmcoredd/vmcoredd.conf.d/scenario.conf": text.encode()}


def finally_do(verb: str) -> Files:
    """A unit that ends the capture with a verb of systemctl."""
    command = f"systemctl --no-block {verb}"
    unit = "DefaultDependencies=no\nAfter=vmcoredd-capture.target"
    return wanted("finally", ONESHOT.format(unit=unit, timeout=60, command=command))


def interpreter() -> str:
    """The interpreter that the initramfs has: the program's."""
    return capture.PROGRAM.read_text().splitlines()[0].removeprefix("#!").strip()


def extension(name: str) -> Files:
    """An extension module that the helper imports and the service does not, where it is not built in."""
    file = getattr(importlib.import_module(name), "__file__", None)
    return {file.lstrip("/"): Path(file)} if file else {}


def instance(name: str) -> Files:
    """An instance of a template that the initramfs has."""
    return {f"{SYSTEM}/vmcoredd-capture.target.d/instance.conf": f"[Unit]\nWants={name}.service\n".encode()}


def bare_target(wants: str) -> Files:
    """The target that the capture kernel boots into, where it does not have ours."""
    return {f"{SYSTEM}/vmcoredd-capture.target": f"[Unit]\nWants={wants}\nAllowIsolate=yes\n".encode()}

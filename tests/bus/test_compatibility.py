# SPDX-License-Identifier: LGPL-2.1-or-later
"""dbus-next on a Python that is younger than it: Python 3.15 and 3.16 remove names that it uses."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lib.caller import MANAGER, NAME, PATH, PROPERTIES, add, fill
from tests.lib.paths import ROOT
from tests.lib.service import Service
from vmcoredd_daemon.bus import Connection

REMOVED = """\
import asyncio, typing
vars(typing).pop("no_type_check_decorator", None)
vars(asyncio).pop("iscoroutinefunction", None)
"""


async def test_service_on_a_python_without_the_names_that_dbus_next_uses(
    bus_address: str, bus: Connection, source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    # Python imports it before anything of ours.
    (modules / "sitecustomize.py").write_text(f"{REMOVED}import sys\nprint('removed', file=sys.stderr)\n")
    monkeypatch.setenv("PYTHONPATH", str(modules))
    with Service(bus_address, source_vmcore, tmp_path) as service:
        service.start()
        await add(bus, "nic", 100, fill)
        reply = await bus.method_call(NAME, PATH, PROPERTIES, "GetAll", "s", [MANAGER])
        assert reply.body[0]["DeviceDumps"].value == 1
        assert service.stop() == 0
    assert service.log().startswith("removed\n")
    assert "Warning" not in service.log()


def test_only_dbus_next_gets_the_names() -> None:
    program = f"""{REMOVED}
import vmcoredd_daemon.bus
assert not hasattr(typing, "no_type_check_decorator") and not hasattr(asyncio, "iscoroutinefunction")
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_no_module_causes_a_warning() -> None:
    program = """
import importlib, pkgutil, vmcoredd_daemon
for module in pkgutil.walk_packages(vmcoredd_daemon.__path__, "vmcoredd_daemon."):
    importlib.import_module(module.name)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=ROOT, check=True)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples of org.vmcoredd1(5), as they stand there, with the tools and libraries that they name."""

import os
import re
import subprocess
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.lib.paths import ROOT
from tests.lib.service import Service, mask_built_in
from tests.lib.tools import require, skip_or_fail
from tests.lib.vmcoredd import run

PYTHON = "/usr/bin/python3"
"""Debian's, which has these libraries."""


def example(title: str) -> str:
    """Return the lines of an example."""
    text = (ROOT / "docs/man/org.vmcoredd1.5.rst").read_text()
    (block,) = re.findall(rf"^{title}\n~+\n\n::\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    return textwrap.dedent(block)


@pytest.fixture
def call(start_daemon: Callable[..., Service], bus_address: str, tmp_path: Path) -> Callable[[Sequence[str]], str]:
    """Run a program beside a service, where ``registers.bin`` is; return what it prints."""
    mask_built_in(tmp_path / "collectors.d")
    (tmp_path / "collectors.d/pci.conf").write_text("[Collector]\nExec=echo registers\n")
    (tmp_path / "registers.bin").write_bytes(b"registers")
    start_daemon("RunCollectors=no")
    environment = {"PATH": os.defpath, "DBUS_SYSTEM_BUS_ADDRESS": bus_address, "LC_ALL": "C.UTF-8"}

    def call(command: Sequence[str]) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def names(bus_address: str) -> list[str]:
    """Return the device dumps of the service."""
    table = run("list", "--no-legend", "--bus-address", bus_address).stdout
    return [line.split()[0] for line in table.splitlines()]


def test_busctl(call: Callable[[Sequence[str]], str]) -> None:
    require("busctl")
    printed = call(["sh", "-euc", example("busctl")])
    assert printed.startswith('a(osus) 0\ns "ready"\n')
    assert re.search(r"^\.AddDeviceDumpFd +method +suha\{sv\} +o ", printed, re.MULTILINE)


def test_gdbus(call: Callable[[Sequence[str]], str], bus_address: str) -> None:
    require("gdbus")
    printed = call(["sh", "-euc", example("gdbus")])
    assert printed.startswith("([objectpath '/org/vmcoredd1/dump/1'],)\n")
    assert "readonly s State = 'ready';" in printed
    assert names(bus_address) == ["pci"]


@pytest.mark.parametrize(("title", "module"), [("Python, dbus-python", "dbus"), ("Python, GDBus", "gi")])
def test_python(call: Callable[[Sequence[str]], str], bus_address: str, title: str, module: str) -> None:
    if subprocess.run([PYTHON, "-c", f"import {module}"], capture_output=True, check=False).returncode:
        skip_or_fail([f"{PYTHON} with {module}"])
    assert call([PYTHON, "-c", example(title)]) == "/org/vmcoredd1/dump/1\n"
    assert names(bus_address) == ["nic"]
    if module == "gi":
        assert call([PYTHON, "-c", example(title)]) == "org.vmcoredd1.Error.NameInUse\n"

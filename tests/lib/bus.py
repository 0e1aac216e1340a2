# SPDX-License-Identifier: LGPL-2.1-or-later
"""A private message bus with the rules of the stock system bus and the project's own policy."""

import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.lib.paths import ROOT

STOCK_CONFIGURATION = Path("/usr/share/dbus-1/system.conf")
POLICY = ROOT / "dbus" / "org.vmcoredd1.conf"


def write_configuration(directory: Path, limits: Mapping[str, int]) -> Path:
    """Write the configuration of a system bus that listens in *directory*, and return its path."""
    stock = ET.parse(STOCK_CONFIGURATION).getroot()
    root = ET.Element("busconfig")
    ET.SubElement(root, "type").text = "system"
    ET.SubElement(root, "listen").text = f"unix:path={directory / 'bus'}"
    ET.SubElement(root, "auth").text = "EXTERNAL"
    root.extend(stock.findall("policy"))
    for name, value in limits.items():
        ET.SubElement(root, "limit", name=name).text = str(value)
    ET.SubElement(root, "include").text = str(POLICY)
    path = directory / "bus.conf"
    path.write_text(
        '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"'
        ' "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">\n' + ET.tostring(root, encoding="unicode")
    )
    return path


@contextmanager
def private_bus(directory: Path, **limits: int) -> Iterator[str]:
    """Run dbus-daemon while the context lasts, with the stock limits but for *limits*; yields its address."""
    configuration = write_configuration(directory, limits)
    command = ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--print-address=1"]
    log = directory / "dbus-daemon.log"
    with log.open("wb") as stderr, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().decode().strip()
            if not address:
                raise RuntimeError(f"dbus-daemon did not start: {log.read_text()}")
            yield address
        finally:
            process.terminate()

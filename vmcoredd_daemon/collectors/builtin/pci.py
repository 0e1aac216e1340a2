# SPDX-License-Identifier: LGPL-2.1-or-later
"""PCI: configuration space and error counters of all devices."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .files import Problems, chunks, write_lines

LINE = 16
"""Bytes of configuration space on a line."""

EXTRA_SIZE = 1 << 14
"""Bytes for devices that appear between planning and collecting."""


class Pci:
    """Two device dumps: ``pci`` and, if a device has AER, ``pci_aer``.

    ``pci`` is the text of ``lspci -Dnkxxxx``; ``lspci -F FILE -vvv`` decodes it. It has all bytes of
    ``/sys/bus/pci/devices/*/config``, 256 or 4096 bytes a device (Linux ``drivers/pci/pci-sysfs.c``): 1 or
    14 kB of text. Drivers of the capture kernel have written to it: commands, BARs, MSI. The state of links and
    slots is the device's own. AER status registers survive the panic, but ``pci_aer_init()``
    (``drivers/pci/pcie/aer.c``) clears them if the firmware has left AER to the kernel.
    As with lspci -xxx, reading may hang a faulty device.

    ``pci_aer`` has ``aer_*`` (``Documentation/ABI/testing/sysfs-bus-pci-devices-aer``), as ``grep -r`` prints
    files. These counters began with the capture kernel.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._devices = root / "sys/bus/pci/devices"

    def device_dumps(self) -> Iterator[tuple[str, int]]:
        """Return the two, if there is something to collect."""
        configs = [path.stat().st_size for path in self._devices.glob("*/config")]
        if configs:
            yield "pci", sum(256 + size // LINE * (LINE * 3 + 6) for size in configs) + EXTRA_SIZE
        # A file of sysfs has at most 4096 bytes; these are much shorter, which leaves space for the names.
        if counters := self._counters():
            yield "pci_aer", len(counters) * 4096 + EXTRA_SIZE

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        """Write all devices; raise OSError at the end if one could not be read."""
        if dump_name == "pci_aer":
            write_lines(self._counters(), self._devices, data)
            return
        with Problems() as problems:
            for device in sorted(self._devices.iterdir()):
                with problems.kept():
                    _write(device, data)

    def _counters(self) -> list[Path]:
        return sorted(self._devices.glob("*/aer_*"))


def _write(device: Path, data: BinaryIO) -> None:
    config = bytearray()
    try:
        for chunk in chunks(device / "config"):
            config += chunk
    finally:
        # After an error, what was read before it.
        data.write(_text(device, config).encode())


def _text(device: Path, config: bytearray) -> str:
    # lspci shows a device that does not answer as ff.
    header = config[:12].ljust(12, b"\xff")
    vendor, product, kind = (int.from_bytes(header[at : at + 2], "little") for at in (0, 2, 10))
    lines = [f"{device.name} {kind:04x}: {vendor:04x}:{product:04x} (rev {header[8]:02x})"]
    if (device / "driver").exists():
        lines.append(f"\tKernel driver in use: {(device / 'driver').resolve().name}")
    for offset in range(0, len(config), LINE):
        lines.append(f"{offset:02x}: {config[offset : offset + LINE].hex(' ')}")
    return "\n".join([*lines, "", ""])

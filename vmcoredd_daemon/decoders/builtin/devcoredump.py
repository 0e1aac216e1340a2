# SPDX-License-Identifier: LGPL-2.1-or-later
"""devcoredump: what a driver has saved of a device that failed, in a format of its own.

Linux ``drivers/base/devcoredump.c``. Formats are told by how they begin: ``amd/amdgpu/amdgpu_dev_coredump.c``,
``xe/xe_devcoredump.c`` and ``etnaviv/etnaviv_dump.h`` in ``drivers/gpu/drm``; ``include/uapi/drm/panfrost_drm.h``;
``ath/ath10k/coredump.h`` (ath11k and ath12k have the same) and ``intel/iwlwifi/fw/error-dump.h`` in
``drivers/net/wireless``; ``net/bluetooth/coredump.c``. ELF: ``drivers/remoteproc/remoteproc_coredump.c``.
"""

from collections.abc import Iterator, Mapping
from typing import BinaryIO

from ...errors import InvalidDump
from ...text import shortened
from ..decoded import Decoded, Field, Part, Section
from ..excerpt import MAX_TEXT, excerpt, is_text
from ..structure import Item, Order, fields, named

FORMATS: Mapping[bytes, str] = {
    b"**** AMDGPU Device Coredump ****": "amdgpu",
    b"**** Xe Device Coredump ****": "xe",
    b"Bluetooth devcoredump": "Bluetooth",
    b"ATH10K-FW-DUMP\0": "ath10k",
    b"ATH11K-FW-DUMP\0": "ath11k",
    b"ATH12K-FW-DUMP\0": "ath12k",
    b"ETNA": "etnaviv",
    b"PANF": "panfrost",
    b"\x32\x96\x78\x14": "iwlwifi",
    b"\x33\x96\x78\x14": "iwlwifi",
    b"\x7fELF": "ELF",
}
"""By the first bytes, whose it is."""

ATH = (Item("len", 16, 4, lambda value: f"{value} bytes"), Item("version", 20, 4))
IWLWIFI = (Item("file_len", 4, 4, lambda value: f"{value} bytes"),)
HEADERS: Mapping[str, tuple[Item, ...]] = {"ath10k": ATH, "ath11k": ATH, "ath12k": ATH, "iwlwifi": IWLWIFI}

# ELF-64 Object File Format 1.5, ELF Header: EI_CLASS, EI_DATA, e_type, e_machine
ELF_CLASSES = {1: "32-bit", 2: "64-bit"}
ELF_ORDERS = {1: "little-endian", 2: "big-endian"}
ELF_TYPES = {1: "relocatable", 2: "executable", 3: "shared object", 4: "core"}

HEADER_LINES = 32
"""Lines of a text whose ``name: value`` become fields."""

PRIVATE = frozenset({"process_name", "Process"})


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Decode ``devcd1_0000:01:00.0`` and others. Raises InvalidDump if it is empty."""
    size = data.seek(0, 2)
    data.seek(0)
    start = data.read(MAX_TEXT)
    if not start.strip(b"\0"):
        raise InvalidDump(
            "the driver has saved nothing" if size == 0 else f"the first {len(start)} bytes are zero"
        )
    kind = next((name for magic, name in FORMATS.items() if start.startswith(magic)), "")
    parts: list[Part] = [Field("Format", kind or "unknown"), Field("Size", size, f"{size} bytes")]
    if kind == "ELF":
        parts += _elf(start)
    parts += fields(HEADERS.get(kind, ()), start)
    if is_text(start[:4096]) or kind == "Bluetooth":
        parts += _named_values(start)
    parts.append(excerpt("", start, size))
    title = f"device core dump of {kind}" if kind and kind != "ELF" else "device core dump"
    facts = (("ELF",) if kind == "ELF" else ()) + (f"{size} bytes",)
    return Decoded(title, ("a device failed",), facts, (Section("", tuple(parts)),))


def _elf(start: bytes) -> Iterator[Field]:
    header = start[:20].ljust(20, b"\0")
    order: Order = "big" if header[5] == 2 else "little"
    width, endian = named(header[4], ELF_CLASSES), named(header[5], ELF_ORDERS)
    yield Field("ELF class and data", f"{width}, {endian}")
    kind = int.from_bytes(header[16:18], order)
    yield Field("ELF type", kind, named(kind, ELF_TYPES))
    machine = int.from_bytes(header[18:20], order)
    yield Field("ELF machine", machine, f"{machine:#x}")


def _named_values(start: bytes) -> Iterator[Field]:
    """Yield the values that a header of text names, ``kernel: 6.1.0``, until it ends."""
    for line in start[:MAX_TEXT].splitlines()[:HEADER_LINES]:
        text = line.strip(b"\0").decode("utf-8", "surrogateescape")
        if text.startswith("--- Start dump"):
            return
        name, colon, value = text.partition(":")
        if colon and value.strip() and name and len(name) < 40 and not name.startswith((" ", "\t")):
            yield Field(shortened(name), shortened(value.strip()), private=name in PRIVATE)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""EDAC: counts of memory errors and of PCI errors, with the labels of DIMMs, as ``grep -r`` prints files.

Linux ``Documentation/ABI/testing/sysfs-devices-edac``, ``drivers/edac/edac_mc_sysfs.c`` and ``edac_pci_sysfs.c``.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from ...errors import InvalidDump
from ...text import counted, shortened
from ..decoded import Decoded, Field, Section, Table
from ..lines import read_lines

MAX_FILES = 1 << 15
"""Files that are looked at."""

MAX_ROWS = 2048
"""DIMMs and controllers that are shown."""

MAX_NAMED = 4
"""DIMMs that findings name."""

LINE = re.compile(r"([^:\s]+):(.*)")
CONTROLLER = re.compile(r"mc/(mc\d+)/")
DIMM = re.compile(r"(mc/(mc\d+)/(?:dimm|rank)\d+)/")
CHANNEL = re.compile(r"(mc/(mc\d+)/csrow\d+/ch\d+)_")
COUNT = re.compile(r"\d{1,20}")

CORRECTED, UNCORRECTED = "corrected", "uncorrected"

COLUMNS = ("DIMM", "Label", "Location", "Size in MB", "Memory type", "Corrected errors", "Uncorrected errors")


@dataclass(frozen=True, slots=True)
class _Dimm:
    name: str
    """``mc0/dimm1``, or ``mc0/csrow0/ch1`` if the driver knows no DIMMs."""
    controller: str
    label: str
    location: str
    size: int
    memory_type: str
    corrected: int
    uncorrected: int


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Decode ``edac``. Raises InvalidDump if there is no file of EDAC in it."""
    files: dict[str, str] = {}
    problems: list[str] = []
    for line in read_lines(data):
        if not line.strip():
            continue
        found = LINE.fullmatch(line)
        if found is None or not found[1].startswith(("mc/", "pci/")):
            problems = ["lines that are no file of EDAC are left out"]
        elif len(files) < MAX_FILES:
            files[shortened(found[1])] = shortened(found[2].strip())
    if not files:
        raise InvalidDump("no file of EDAC in it")
    controllers = list(dict.fromkeys(found[1] for name in files if (found := CONTROLLER.match(name))))
    dimms = list(_dimms(files))
    if max(len(controllers), len(dimms)) > MAX_ROWS:
        problems.append(f"only {MAX_ROWS} of {len(dimms)} DIMMs and {len(controllers)} controllers are shown")
    sections = [Section("", (_table(dimms[:MAX_ROWS]),))] if dimms else []
    sections += (Section(name, tuple(_fields(f"mc/{name}/", files))) for name in controllers[:MAX_ROWS])
    if pci := tuple(_fields("pci/", files)):
        sections.append(Section("pci", pci[:MAX_ROWS]))
    return Decoded(
        _title(files, controllers),
        tuple(_findings(files, controllers, dimms)),
        tuple(_facts(dimms)),
        tuple(sections),
        tuple(problems),
    )


def _dimms(files: Mapping[str, str]) -> Iterator[_Dimm]:
    dimms = {found[1]: found[2] for name in files if (found := DIMM.match(name))}
    for path, controller in dimms.items():
        yield _Dimm(
            path.removeprefix("mc/"),
            controller,
            files.get(f"{path}/dimm_label", ""),
            files.get(f"{path}/dimm_location", ""),
            _number(files.get(f"{path}/size")),
            files.get(f"{path}/dimm_mem_type", ""),
            _number(files.get(f"{path}/dimm_ce_count")),
            _number(files.get(f"{path}/dimm_ue_count")),
        )
    channels = {found[1]: found[2] for name in files if (found := CHANNEL.match(name))}
    for path, controller in channels.items():
        # The same memory in the older view, whose channels have no count of uncorrected errors and no size.
        if controller not in dimms.values():
            row = path.rpartition("/")[0]
            label, count = files.get(f"{path}_dimm_label", ""), _number(files.get(f"{path}_ce_count"))
            location = row.rpartition("/")[2]
            yield _Dimm(path.removeprefix("mc/"), controller, label, location, 0, "", count, 0)


def _table(dimms: list[_Dimm]) -> Table:
    rows = (
        (dimm.name, dimm.label, dimm.location, dimm.size, dimm.memory_type, dimm.corrected, dimm.uncorrected)
        for dimm in dimms
    )
    return Table("DIMMs", COLUMNS, tuple(rows))


def _fields(prefix: str, files: Mapping[str, str]) -> Iterator[Field]:
    for path, value in files.items():
        name = path.removeprefix(prefix)
        if not path.startswith(prefix) or (prefix != "pci/" and "/" in name):
            continue
        if COUNT.fullmatch(value):
            yield Field(name, int(value), wrong=name.endswith("count") and int(value) != 0)
        else:
            yield Field(name, value)


def _title(files: Mapping[str, str], controllers: list[str]) -> str:
    names = [files[path] for name in controllers if (path := f"mc/{name}/mc_name") in files]
    several = f"{len(controllers)} memory controllers"
    return {0: "EDAC", 1: names[0] if names else "1 memory controller"}.get(len(controllers), several)


def _findings(files: Mapping[str, str], controllers: list[str], dimms: list[_Dimm]) -> Iterator[str]:
    for kind, file in ((UNCORRECTED, "ue_count"), (CORRECTED, "ce_count")):
        total = sum(_number(files.get(f"mc/{name}/{file}")) for name in controllers)
        counts = [(dimm, dimm.uncorrected if kind == UNCORRECTED else dimm.corrected) for dimm in dimms]
        counts = sorted((each for each in counts if each[1]), key=lambda each: -each[1])
        for dimm, count in counts[:MAX_NAMED]:
            yield f"{_errors(count, kind)} of {dimm.label or dimm.name}"
        if more := sum(count for _, count in counts[MAX_NAMED:]):
            others = len(counts) - MAX_NAMED
            yield f"{_errors(more, kind)} of {counted(others, 'other DIMM')}"
        # A controller may count errors of which it does not know the DIMM.
        if (unknown := total - sum(count for _, count in counts)) > 0:
            yield f"{_errors(unknown, kind)} of an unknown DIMM"
    pci = sum(_number(value) for path, value in files.items() if path.startswith("pci/"))
    if pci:
        yield counted(pci, "PCI error")


def _errors(count: int, kind: str) -> str:
    return counted(count, f"{kind} memory error")


def _facts(dimms: list[_Dimm]) -> Iterator[str]:
    if dimms:
        yield counted(len(dimms), "DIMM")
    if size := sum(dimm.size for dimm in dimms):
        yield f"{size} MB"


def _number(value: str | None) -> int:
    return int(value) if value is not None and COUNT.fullmatch(value) else 0

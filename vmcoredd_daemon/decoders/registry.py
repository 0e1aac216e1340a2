# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which decoder reads a device dump: by the collector that the manifest names, else by the dump name.

A decoder has the name of its collector. Others replace ours of that name: entry points of Python packages, of the
group ``vmcoredd.decoders``, and programs, by ``Decode=`` in collectors.d.
"""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import BinaryIO

from ..errors import InvalidDump
from ..manifest import MANIFEST_NAME
from ..vmcore.image import Image
from ..vmcore.inspect.inspect import FoundDump, data_of
from .apart import decode_apart, decode_by_program
from .decoded import Decode, Decoded

GROUP = "vmcoredd.decoders"

VERSION = "1"
"""Of the formats that our own decoders read: what a later collector makes is not misread."""

UNKNOWN = "unknown"
"""The decoder of what no other takes."""

BUILT_IN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "devcoredump": ("devcd[0-9]*",),
        "devlink": ("devlink_*",),
        "edac": ("edac",),
        "fdt": ("fdt",),
        "firmware_tables": ("acpi_apei", "dmi"),
        "ipmi": ("ipmi[0-9]*",),
        "manifest": (MANIFEST_NAME,),
        "nvme": ("nvme_*",),
        "pci": ("pci", "pci_aer"),
        "pmt": ("crashlog[0-9]*",),
        "pstore": ("pstore",),
        # Driver and address: the least certain, so it is the last.
        "ethtool": ("*_????:??:??.?",),
    }
)
"""Our decoders, each a module of :mod:`.builtin`, and the names of device dumps that they read."""

Load = Callable[[], Decode]


@dataclass(frozen=True, slots=True)
class Decoders:
    """The decoders of this machine."""

    programs: Mapping[str, Sequence[str]]
    """Command lines, by the name of their collector."""
    packages: Mapping[str, Load]
    """How to load the decoder of each entry point."""

    @classmethod
    def load(cls, programs: Mapping[str, Sequence[str]] = MappingProxyType({})) -> "Decoders":
        """Return *programs*, those of installed packages, and our own. Blocks."""
        return cls(programs, {entry.name: entry.load for entry in entry_points(group=GROUP)})

    def kind(self, dump: FoundDump) -> str:
        """Return the name of the decoder that reads *dump*."""
        if dump.name == MANIFEST_NAME:
            return "manifest"
        others = {*self.programs, *self.packages}
        if dump.entry is not None and dump.entry.kind:
            name, _, version = dump.entry.kind.partition("/")
            return name if name in others or (name in BUILT_IN and version == VERSION) else UNKNOWN
        if dump.entry is not None:
            # Of version 0.1: "nvme: vmcoredd_daemon.collectors.builtin.nvme.Nvme"
            collector = dump.entry.collector.partition(":")[0]
            if collector in others or collector in BUILT_IN:
                return collector
        for name in sorted(others):
            if re.fullmatch(rf"{re.escape(name)}(_.*|[0-9]*)", dump.name):
                return name
        for name, patterns in BUILT_IN.items():
            if any(fnmatchcase(dump.name, pattern) for pattern in patterns):
                return name
        return UNKNOWN

    def decode(self, image: Image, dump: FoundDump) -> Decoded:
        """Return what *dump* says. Blocks; never fails: what cannot be decoded is shown as what it looks like."""
        data = data_of(image, dump).stream()
        problems: tuple[str, ...] = ()
        for kind in dict.fromkeys((self.kind(dump), UNKNOWN)):
            try:
                seen = self._decode(kind, dump.name, data)
            except InvalidDump as error:
                problems += (str(error) if kind == UNKNOWN else f"{kind}: {error}",)
            else:
                return replace(seen, problems=(*problems, *seen.problems))
        return Decoded(problems=problems)

    def _decode(self, kind: str, dump_name: str, data: BinaryIO) -> Decoded:
        if kind in self.programs:
            return decode_by_program(self.programs[kind], data)
        if kind in self.packages:
            return decode_apart(partial(_of_package, self.packages[kind]), dump_name, data, built_in=False)
        return decode_apart(partial(_own, kind), dump_name, data, built_in=True)


def _of_package(load: Load, dump_name: str, data: BinaryIO) -> Decoded:
    # Loaded here: what the module does when it is imported has limits, too.
    return load()(dump_name, data)


def _own(kind: str, dump_name: str, data: BinaryIO) -> Decoded:
    # Imported late, and by its process alone: a vmcore has few kinds.
    decode: Decode = importlib.import_module(f".builtin.{kind}", __package__).decode
    return decode(dump_name, data)

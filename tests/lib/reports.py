# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reports of vmcores that nobody wrote: with all that one can say, and with any text in every place."""

from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any

from vmcoredd_daemon.cli.report.content import Entry, Report
from vmcoredd_daemon.decoders.decoded import Decoded, Field, Section, Table, Text
from vmcoredd_daemon.manifest import (
    Failure,
    IdleCollector,
    Manifest,
    ManifestDump,
    ManifestMachine,
    ManifestSource,
)
from vmcoredd_daemon.vmcore.inspect.inspect import FoundDump
from vmcoredd_daemon.vmcore.inspect.summary import Summary

DIED = 1795464321
"""Seconds since the epoch."""

SERIAL = "S5GXNF0R123456"
MAC = "52:54:00:12:34:56"
HOST = "db-07.example.com"
LOG = "\n".join(f"[    {i}.000000] line {i}" for i in range(100)) + (
    "\n[  100.000000] Kernel panic - not syncing: Fatal exception\n[  100.000001] CPU: 0 PID: 1 Comm: init"
)
DECODED = Decoded(
    "Samsung SSD 980 PRO 1TB",
    ("2 media errors", "97 % used"),
    ("38 C",),
    (
        Section(
            "smart-log.bin", (Field("Critical Warning", 2, "0x2: temperature", wrong=True), Field("Power On", 9))
        ),
        Section("identify.bin", (Field("Serial Number", SERIAL, private=True), Field("Firmware", "5B2QGXA7"))),
        Section(
            "ports.bin",
            (
                Table("Ports", ("Address", "Packets"), ((MAC, 12), ("52:54:00:12:34:57", 13)), ("Address",)),
                Text("Log", f"first of {SERIAL}\n\tsecond on {HOST}\n"),
            ),
        ),
    ),
    ("error-log.bin: the data end at byte 3",),
)


def found(index: int, name: str, state: str = "complete", *, verified: bool | None = True) -> FoundDump:
    """Return a device dump that was collected in the second after the crash."""
    started = (DIED + 5) * 10**6 + 50_000 * index
    entry = ManifestDump(
        name, 5120, 8192, f"{index:064x}", f"{name}: collector", state, started, started + 900_000
    )
    return FoundDump(
        index=index,
        name=name,
        offset=4096 * index,
        size=8128,
        true_size=5120,
        sha256=entry.sha256,
        verified=verified,
        entry=entry,
    )


def report(count: int = 4, decoded: Decoded = DECODED) -> Report:
    """Return a report of *count* device dumps; the second is truncated, the third is altered."""
    states = {1: "truncated"}
    entries = [
        Entry(
            dump=found(i, f"nvme_0000:{i:02x}:00.0", states.get(i, "complete"), verified=i != 2), decoded=decoded
        )
        for i in range(count)
    ]
    return Report(
        file_name="vmcore",
        size=92 << 20,
        format="kdump",
        machine="x86_64",
        host=HOST,
        hardware="HPE ProLiant DL380 Gen10, BIOS U30 07/20/2023",
        summary=Summary(
            kernel_release="6.1.0-56-cloud-amd64",
            host=HOST,
            crash_time=DIED,
            memory=200781824,
            memory_in_file=59731968,
            dump_level=31,
            compression="zstd",
            incomplete=True,
        ),
        panic="Kernel panic - not syncing: Fatal exception",
        log=LOG,
        manifest=Manifest(
            "vmcoredd 0",
            (DIED + 9) * 10**6,
            (),
            (),
            2,
            ManifestSource("/proc/vmcore", 3, 8192, "the source blocks", "it did not fit"),
            ManifestMachine(host=HOST, serial="CZ3012ABCD"),
            (IdleCollector("pmt", "no such device"),),
        ),
        entries=tuple(entries),
        failures=(Failure("eth0", ":1.9", "org.vmcoredd1.Error.TimedOut", "late", (DIED + 6) * 10**6),),
        problems=("the file is strange",),
    )


def filled(value: Any, text: str) -> Any:
    """Return *value*, of records and tuples, with *text* in the place of every text."""
    match value:
        case Enum():
            return value
        case str():
            return text
        case tuple():
            return tuple(filled(each, text) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: filled(getattr(value, field.name), text) for field in fields(value)})
    return value

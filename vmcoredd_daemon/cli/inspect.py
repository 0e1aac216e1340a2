# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand inspect: what vmcores are, and what device dumps they hold."""

import argparse
from dataclasses import asdict
from typing import Any

from ..manifest import MANIFEST_NAME, Manifest, State, reason
from ..terminal.exit import UsageError
from ..terminal.progress_line import progress
from ..terminal.stdio import complain
from ..terminal.view import Cell, Mark, Size, View
from ..text import counted, utc
from ..vmcore.formats import Vmcore, recognise
from ..vmcore.image import file_image
from ..vmcore.inspect.inspect import FoundDump, Inspection, check, find_in
from ..vmcore.inspect.summary import Summary, summarize
from .json_objects import failure_object
from .map import map_objects, show_map
from .operands import name_of, open_vmcore
from .panic_message import panic_line
from .vmcores import Answer, for_each

FIELDS = (
    *(
        "Vmcore",
        "Format",
        "Host",
        "Hardware",
        "Kernel",
        "Crash time",
        "Panic",
        "Memory",
        "In the file",
        "Dump level",
        "Compression",
    ),
    *("Complete", "Written", "Incomplete", "Unreadable", "Missing", "Fallback", "Device dumps", "Nothing from"),
)
"""The lines above the tables, in this order; unknown ones are left out."""
COLUMNS = ("INDEX", "NAME", "SIZE", "STATE", "CHECKSUM", "COLLECTOR", "TIME")
FAILED_COLUMNS = ("FAILED", "COLLECTOR", "TIME")
_SHRINK = ("COLLECTOR", "NAME", "FAILED")
_DROP = ("TIME", "COLLECTOR", "INDEX")

_CHECKSUM: dict[bool | None, Cell] = {True: Mark("ok", True), False: Mark("altered", False), None: None}


def run(options: argparse.Namespace) -> int:
    """Show the vmcores; return the exit status."""
    view = View.of(options)
    if not options.map:
        return for_each(view, options.vmcores, lambda path: _answer(view, path))
    (path, *others) = options.vmcores
    if others:
        raise UsageError("inspect --map takes one VMCORE")
    if view.as_json:
        return for_each(view, [path], lambda path: _answer(view, path, with_map=True))
    with open_vmcore(path) as fd:
        return show_map(view, fd, recognise(file_image(fd, path)))


def _answer(view: View, path: str, *, with_map: bool = False) -> Answer:
    with open_vmcore(path) as fd:
        image = file_image(fd, path)
        vmcore = recognise(image)
        summary = summarize(vmcore)
        found = check_with_progress(find_in(vmcore))
        for problem in found.problems:
            complain(f"{path}: {problem}")
        panic = panic_line(path, flattened=vmcore.format == "flattened", inside=name_of(fd, path))
        drawn = {"map": map_objects(fd, vmcore)} if with_map else {}
    if view.as_json:
        return Answer({"path": path, **_object(found, image.size, summary, panic), **drawn})
    return Answer(_text(view, vmcore, found, image.size, summary, panic))


def check_with_progress(found: Inspection) -> Inspection:
    """Check all checksums, and show the progress. Raises InvalidVmcore."""
    total = sum(dump.true_size or 0 for dump in found.device_dumps if dump.sha256 is not None)
    with progress("checksums", total) as shown:
        return check(found, shown.advance)


def _object(found: Inspection, size: int, summary: Summary, panic: str | None) -> dict[str, Any]:
    manifest = found.manifest
    return {
        "format": found.format,
        "class": found.elfclass,
        "endian": found.byteorder,
        "machine": found.machine,
        "size": size,
        "kernel_release": summary.kernel_release,
        "host": summary.host,
        "crash_usec": None if summary.crash_time is None else summary.crash_time * 10**6,
        "memory": summary.memory,
        "memory_in_file": summary.memory_in_file,
        "dump_level": summary.dump_level,
        "compression": summary.compression,
        "incomplete": summary.incomplete,
        "panic": panic,
        "producer": manifest and manifest.producer,
        "written_usec": manifest and manifest.written_usec,
        "source": manifest and asdict(manifest.source),
        "hardware": manifest and asdict(manifest.machine),
        "device_dumps": [_dump_object(dump) for dump in found.device_dumps],
        "failures": [failure_object(failure) for failure in found.failures],
        "idle_collectors": [asdict(idle) for idle in manifest.idle_collectors] if manifest else [],
    }


def _dump_object(dump: FoundDump) -> dict[str, Any]:
    entry = dump.entry
    return {
        "index": dump.index,
        "name": dump.name,
        "offset": dump.offset,
        "size": dump.true_size,
        "buffer_size": dump.size,
        "sha256": dump.sha256,
        "verified": dump.verified,
        "state": entry and entry.state,
        "collector": entry and entry.collector,
        "kind": (entry and entry.kind) or None,
        "started_usec": entry and entry.started_usec,
        "finished_usec": entry and entry.finished_usec,
        "error": (entry and entry.error) or None,
    }


def _text(view: View, vmcore: Vmcore, found: Inspection, size: int, summary: Summary, panic: str | None) -> str:
    bits = f"{vmcore.elfclass} bits, {vmcore.byteorder} endian, {vmcore.machine}"
    crash_time = utc((summary.crash_time or 0) * 10**6)
    known: dict[str, Cell] = {
        "Vmcore": f"{vmcore.image.path} ({view.size(size)})",
        "Format": f"{vmcore.format}, {bits}",
        "Host": summary.host or (found.manifest and found.manifest.machine.host) or None,
        "Kernel": summary.kernel_release,
        "Crash time": f"{crash_time} UTC" if crash_time else None,
        "Panic": panic,
        **_memory(view, summary),
        **(_manifest(view, found.manifest) if found.manifest is not None else {}),
        "Device dumps": dump_count(found),
    }
    fields = ((name, known[name]) for name in FIELDS if known.get(name) is not None)
    return view.fields(fields) + _tables(view, found)


def dump_count(found: Inspection) -> str:
    """Return how many device dumps a vmcore has, as ``5 and the manifest; 1 truncated, 2 failed``."""
    with_manifest = any(dump.name == MANIFEST_NAME for dump in found.device_dumps)
    states = [dump.entry.state for dump in found.device_dumps if dump.entry is not None]
    bad = {"truncated": states.count(State.TRUNCATED), "failed": len(found.failures)}
    count = f"{len(found.device_dumps) - with_manifest}{' and the manifest' if with_manifest else ''}"
    return "; ".join(
        filter(None, (count, ", ".join(f"{number} {state}" for state, number in bad.items() if number)))
    )


def _memory(view: View, summary: Summary) -> dict[str, Cell]:
    memory, stored = summary.memory, summary.memory_in_file
    return {
        "Memory": None if memory is None else view.size(memory),
        "In the file": None if stored in {None, memory} else view.size(stored or 0),
        "Dump level": summary.dump_level,
        "Compression": summary.compression,
        "Complete": Mark("no, memory is missing", False) if summary.incomplete else None,
    }


def _manifest(view: View, manifest: Manifest) -> dict[str, Cell]:
    written, source, machine = utc(manifest.written_usec), manifest.source, manifest.machine
    serial = f"serial number {machine.serial}" if machine.serial else ""
    pages = counted(source.unreadable_pages, "page")
    return {
        "Hardware": ", ".join(filter(None, (machine.hardware, serial))) or None,
        "Nothing from": ", ".join(idle.name for idle in manifest.idle_collectors) or None,
        "Written": f"{written} UTC by {manifest.producer}" if written else f"by {manifest.producer}",
        "Incomplete": Mark(source.error, False) if source.error else None,
        "Unreadable": Mark(f"{pages}, replaced by zeros", False) if source.unreadable_pages else None,
        "Missing": Mark(f"{view.size(source.missing_bytes)} of memory", False) if source.missing_bytes else None,
        "Fallback": source.fallback or None,
    }


def _tables(view: View, found: Inspection) -> str:
    text = ""
    if found.device_dumps:
        # If all are complete, the column is not worth its space.
        complete = all(dump.entry is None or dump.entry.state == State.COMPLETE for dump in found.device_dumps)
        columns = [name for name in COLUMNS if not complete or name != "STATE"]
        cells = [[row[name] for name in columns] for row in map(_row, found.device_dumps)]
        reasons = [reason(dump.entry.error, dump.name) if dump.entry else "" for dump in found.device_dumps]
        text += "\n" + view.table(columns, cells, _SHRINK, _DROP, below=reasons)
    if found.failures:
        failed: list[list[Cell]] = [
            [Mark(failure.name, good=False), failure.collector, utc(failure.time_usec)]
            for failure in found.failures
        ]
        reasons = [reason(failure.message, failure.name) for failure in found.failures]
        text += "\n" + view.table(FAILED_COLUMNS, failed, _SHRINK, _DROP, below=reasons)
    return text


def _row(dump: FoundDump) -> dict[str, Cell]:
    entry = dump.entry
    return {
        "INDEX": dump.index,
        "NAME": dump.name,
        "SIZE": Size(dump.data_size),
        "STATE": None if entry is None else Mark(entry.state, entry.state == State.COMPLETE),
        "CHECKSUM": _CHECKSUM[dump.verified],
        "COLLECTOR": None if entry is None else entry.collector,
        "TIME": None if entry is None else utc(entry.finished_usec),
    }

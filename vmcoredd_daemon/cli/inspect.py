# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand inspect: what a vmcore is, and what device dumps it holds."""

import argparse
from dataclasses import asdict
from typing import Any

from ..vmcore.formats import Vmcore, recognise
from ..vmcore.image import file_image
from ..vmcore.inspect import FoundDump, Inspection, check, find_in
from ..vmcore.summary import Summary, summarize
from . import SUCCESS
from .console import complain
from .kernel_panic import panic_line
from .progress import progress
from .view import Cell, Mark, Size, View, utc
from .vmcore_file import opened

_CHECKSUM: dict[bool | None, Cell] = {True: Mark("ok", True), False: Mark("altered", False), None: None}


def run(options: argparse.Namespace) -> int:
    """Show the vmcore; return the exit status."""
    view = View.of(options)
    with opened(options.vmcore) as fd:
        image = file_image(fd, options.vmcore)
        vmcore = recognise(image)
        summary = summarize(vmcore)
        if options.map:
            from .map import show_map

            return show_map(view, fd, vmcore)
        found = check_with_progress(find_in(vmcore))
        for problem in found.problems:
            complain(f"{options.vmcore}: {problem}")
        panic = panic_line(options.vmcore, flattened=vmcore.format == "flattened")
        if view.as_json:
            view.show_json(_json(found, image.size, summary, panic))
        else:
            view.show(_text(view, vmcore, found, image.size, summary, panic))
    return SUCCESS


def check_with_progress(found: Inspection) -> Inspection:
    """Check all checksums, and show how far that is. Raises InvalidVmcore."""
    total = sum(dump.true_size or 0 for dump in found.device_dumps if dump.sha256 is not None)
    with progress("checksums", total) as shown:
        return check(found, shown.advance)


def _json(found: Inspection, size: int, summary: Summary, panic: str | None) -> dict[str, Any]:
    manifest = found.manifest
    return {
        "format": found.format,
        "class": found.elfclass,
        "endian": found.byteorder,
        "machine": found.machine,
        "size": size,
        **asdict(summary),
        "panic": panic,
        "producer": manifest and manifest.producer,
        "written_usec": manifest and manifest.written_usec,
        "source": manifest and asdict(manifest.source),
        "device_dumps": [_json_dump(dump) for dump in found.device_dumps],
        "failures": [asdict(failure) for failure in found.failures],
    }


def _json_dump(dump: FoundDump) -> dict[str, Any]:
    entry = dump.entry
    return {
        "index": dump.index,
        "name": dump.name,
        "offset": dump.offset,
        "size": dump.size,
        "bytes": dump.true_size,
        "sha256": dump.sha256,
        "verified": dump.verified,
        "state": entry and entry.state,
        "collector": entry and entry.collector,
        "started_usec": entry and entry.started_usec,
        "finished_usec": entry and entry.finished_usec,
        "error": entry and entry.error,
    }


def _text(view: View, vmcore: Vmcore, found: Inspection, size: int, summary: Summary, panic: str | None) -> str:
    return view.fields(_fields(view, vmcore, found, size, summary, panic).items()) + _tables(view, found)


def _fields(
    view: View, vmcore: Vmcore, found: Inspection, size: int, summary: Summary, panic: str | None
) -> dict[str, Cell]:
    """Return what is known; what the file does not say has no line."""
    manifest, fields = found.manifest, dict[str, Cell]()
    bits = f"{vmcore.elfclass} bits, {vmcore.byteorder} endian, {vmcore.machine}"
    fields["Vmcore"] = f"{vmcore.image.path} ({view.size(size)})"
    fields["Format"] = f"{vmcore.format}, {bits}"
    if summary.kernel_release:
        fields["Kernel"] = summary.kernel_release
    if crash_time := utc((summary.crash_time or 0) * 10**6):
        fields["Crash time"] = f"{crash_time} UTC"
    if panic:
        fields["Panic"] = panic
    if summary.memory is not None:
        fields["Memory"] = view.size(summary.memory)
    if summary.memory_in_file is not None and summary.memory_in_file != summary.memory:
        fields["In the file"] = view.size(summary.memory_in_file)
    if summary.dump_level is not None:
        fields["Dump level"] = summary.dump_level
    if summary.compression is not None:
        fields["Compression"] = summary.compression
    if summary.incomplete:
        fields["Complete"] = Mark("no, memory is missing", False)
    if manifest is not None:
        written = utc(manifest.written_usec)
        fields["Written"] = f"{written} UTC by {manifest.producer}" if written else f"by {manifest.producer}"
        fields |= {"Not whole": manifest.source.error} if manifest.source.error else {}
        fields |= {"Fallback": manifest.source.fallback} if manifest.source.fallback else {}
    fields["Device dumps"] = len(found.device_dumps)
    return fields


def _tables(view: View, found: Inspection) -> str:
    text = ""
    if found.device_dumps:
        header = ["INDEX", "NAME", "SIZE", "CHECKSUM", "COLLECTOR", "TIME"]
        text += "\n" + view.table(header, map(_row, found.device_dumps), shrink=("COLLECTOR", "NAME"))
    if found.failures:
        failed: list[list[Cell]] = [
            [failure.name, failure.collector, failure.message, utc(failure.time_usec)]
            for failure in found.failures
        ]
        header = ["FAILED", "COLLECTOR", "MESSAGE", "TIME"]
        text += "\n" + view.table(header, failed, shrink=("COLLECTOR", "MESSAGE", "FAILED"))
    return text


def _row(dump: FoundDump) -> list[Cell]:
    size = Size(dump.size if dump.true_size is None else dump.true_size)
    entry = dump.entry
    checksum = _CHECKSUM[dump.verified]
    collector, time = (entry.collector, utc(entry.finished_usec)) if entry else (None, None)
    return [dump.index, dump.name, size, checksum, collector, time]

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand verify: whether vmcores are intact, and what crash and makedumpfile do with them."""

import argparse
import os
from typing import Any

from ..errors import InvalidVmcore
from ..manifest import MANIFEST_NAME
from ..terminal.progress_line import progress
from ..terminal.view import Cell, Mark, View
from ..text import counted
from ..vmcore.image import file_image
from ..vmcore.inspect.compat import Verdict
from ..vmcore.inspect.inspect import Inspection
from ..vmcore.inspect.verify import Verification, verify
from .inspect import dump_count
from .operands import open_vmcore
from .vmcores import Answer, for_each


def run(options: argparse.Namespace) -> int:
    """Verify; return the exit status: 0 if nothing is wrong."""
    view = View.of(options)
    return for_each(view, options.vmcores, lambda path: _answer(view, path))


def _answer(view: View, path: str) -> Answer:
    with open_vmcore(path) as fd, progress("verifying") as shown:
        image = file_image(fd, path)
        try:
            verification = verify(image, shown.advance)
        except OSError as error:
            raise InvalidVmcore(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from error
    if view.as_json:
        value: object = _object(path, image.size, verification)
    else:
        value = view.fields(_fields(f"{path} ({view.size(image.size)})", verification))
    return Answer(value, _complaint(path, verification))


def _complaint(path: str, verification: Verification) -> str:
    if verification.good:
        return ""
    (first, *others) = _all_problems(verification)
    return f"{path}: {first}{f'; and {len(others)} more' if others else ''}"


def _all_problems(verification: Verification) -> list[str]:
    programs = (("crash", verification.crash), ("makedumpfile", verification.makedumpfile))
    said = (f"{name}: {problem}" for name, verdict in programs for problem in verdict.problems)
    return [*verification.problems, *said]


def _object(path: str, size: int, verification: Verification) -> dict[str, Any]:
    inspection = verification.inspection
    return {
        "path": path,
        "size": size,
        "good": verification.good,
        "format": inspection and inspection.format,
        "device_dump_count": inspection and len(inspection.device_dumps),
        "checksums": inspection and _checksums(inspection),
        "problems": verification.problems,
        "remarks": verification.remarks,
        "crash": _verdict_object(verification.crash),
        "makedumpfile": _verdict_object(verification.makedumpfile),
    }


def _verdict_object(verdict: Verdict) -> dict[str, Any]:
    return {
        "reads": verdict.reads,
        "vmcoreinfo": verdict.vmcoreinfo,
        "device_dump_count": verdict.device_dumps,
        "problems": verdict.problems,
        "remarks": verdict.remarks,
    }


def _checksums(inspection: Inspection) -> dict[str, int]:
    states = [dump.verified for dump in inspection.device_dumps if dump.name != MANIFEST_NAME]
    return {"ok": states.count(True), "altered": states.count(False), "none": states.count(None)}


def _fields(file: str, verification: Verification) -> list[tuple[str, Cell]]:
    inspection = verification.inspection
    fields: list[tuple[str, Cell]] = [("Vmcore", file)]
    if inspection is not None:
        fields.append(("Format", inspection.format))
        fields.extend(_lines("Device dumps", [dump_count(inspection), *verification.remarks]))
        counts = ", ".join(f"{count} {state}" for state, count in _checksums(inspection).items() if count)
        altered = any(dump.verified is False for dump in inspection.device_dumps)
        fields.append(("Checksums", Mark(counts, False) if altered else counts or None))
    problems: list[Cell] = [Mark(problem, False) for problem in verification.problems]
    fields.extend(_lines("Structure", problems or [Mark("ok", True)]))
    fields.extend(_lines("crash", _verdict(verification.crash, "lists")))
    fields.extend(_lines("makedumpfile", _verdict(verification.makedumpfile, "keeps")))
    return fields


def _verdict(verdict: Verdict, verb: str) -> list[Cell]:
    if not verdict.reads:
        return [Mark(f"refuses it: {verdict.problems[-1]}", False), *verdict.remarks]
    count = verdict.device_dumps
    if count is None:
        return [f"how many device dumps it {verb} is not known", *verdict.problems, *verdict.remarks]
    dumps = f"{verb} {counted(count, 'device dump')}"
    problems: list[Cell] = [Mark(problem, False) for problem in verdict.problems]
    return [dumps if problems else Mark(dumps, True), *problems, *verdict.remarks]


def _lines(name: str, values: list[Cell]) -> list[tuple[str, Cell]]:
    return [(name if number == 0 else "", value) for number, value in enumerate(values)]

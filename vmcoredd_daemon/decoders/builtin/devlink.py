# SPDX-License-Identifier: LGPL-2.1-or-later
"""devlink: dumps of health reporters as text, and regions of the memory of a device.

Linux ``Documentation/networking/devlink/devlink-health.rst`` and ``devlink-region.rst``; what
they contain is the driver's.
"""

import re
from typing import BinaryIO

from ...text import counted, shortened
from ..decoded import Decoded, Part, Section, Table, Text
from ..excerpt import MAX_SHOWN, excerpt, first_bytes, lines_of
from ..members import read_members

MAX_ROWS = 4096

MAX_HEALTH = 1 << 20
"""Bytes of the text of a reporter: as many as the collector takes."""

REGION_SHOWN = 1024
"""Bytes of a region that are shown."""

REGION = re.compile(r"region/(.+)/(\d+)")

# Drivers choose names and values; these are words of mlx5, bnxt_en, ice, hns3, octeontx2 and of the documentation.
STATES = ("state", "status", "health")
BAD = frozenset(
    {"error", "err", "bad", "fatal", "failed", "failure", "faulty", "unhealthy", "hung", "critical", "dead"}
)
SYNDROMES = ("syndrome", "synd")


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Decode ``devlink_0000:02:00.0`` and others. Raises InvalidDump if it is no archive."""
    members = read_members(data)
    reporters: list[tuple[str, int, str]] = []
    regions: list[tuple[str, str, int]] = []
    sections: list[Section] = []
    bad = shown = left_out = 0
    for member in members.files.values():
        if member.name.startswith("health/"):
            part = Text("", lines_of(member.read(MAX_HEALTH)))
            state = bad_state(part.text)
            bad += bool(state)
            reporters.append((member.name.removeprefix("health/"), member.size, state))
        elif found := REGION.fullmatch(member.name):
            regions.append((found[1], found[2], member.size))
            # Bytes of memory, even if they look like text.
            part = first_bytes("", member.read(REGION_SHOWN), member.size)
        else:
            part = excerpt("", member.read(REGION_SHOWN), member.size, REGION_SHOWN)
        shown += len(part.text)
        if part.text and shown <= MAX_SHOWN:
            sections.append(Section(member.name, (part,)))
        else:
            left_out += bool(part.text)
    tables: list[Part] = []
    if reporters:
        tables.append(Table("Health reporters", ("Reporter", "Bytes", "Error state"), tuple(reporters[:MAX_ROWS])))
    if regions:
        tables.append(Table("Regions", ("Region", "Snapshot", "Bytes"), tuple(regions[:MAX_ROWS])))
    problems = list(members.problems)
    if left_out:
        problems.append(f"too much text: {counted(left_out, 'member')} not shown")
    return Decoded(
        f"devlink {shortened(dump_name.removeprefix('devlink_'))}",
        (f"{counted(bad, 'health reporter')} in error state",) if bad else (),
        (counted(len(reporters), "health reporter"), counted(len(regions), "region")),
        (Section("", tuple(tables)), *sections) if tables else tuple(sections),
        tuple(problems),
    )


def bad_state(text: str) -> str:
    """Return the first line of a health dump that tells of an error, as an empty string if there is none."""
    for line in text.splitlines():
        name, colon, value = line.strip(" -").partition(":")
        words = re.findall(r"\w+", value.lower())
        if not colon or not words:
            continue
        is_state = (
            name.lower().endswith(STATES) and not BAD.isdisjoint(words) and words[0] not in ("no", "not", "0")
        )
        if is_state or (name.lower().endswith(SYNDROMES) and words[0].removeprefix("0x").strip("0")):
            return shortened(line.strip(" -"))
    return ""

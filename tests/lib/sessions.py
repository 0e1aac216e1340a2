# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sessions in a document: what is typed behind a $, and what it prints."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path


def sessions(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command, and what it is to print."""
    # A paragraph ends it, an empty line does not.
    for block in re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", text, re.MULTILINE):
        lines = [line.removeprefix("    ") for line in block.splitlines()]
        starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=False):
            yield lines[start].removeprefix("$ "), "".join(f"{line}\n" for line in lines[start + 1 : end])


def check_session(command: str, output: str, directory: Path) -> None:
    """Run *command* in *directory*: it succeeds, and prints *output*."""
    result = subprocess.run(command, shell=True, cwd=directory, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, ""), command
    assert without_times(result.stdout) == without_times(output), command


def without_times(text: str) -> str:
    """Of times, that of the crash stays: it is in the vmcore."""
    return re.sub(r"(?<!Crash time: )\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)


def make_files(directory: Path) -> None:
    """Make the device dumps of the sessions."""
    (directory / "registers.bin").write_bytes(bytes(range(256)) * 1024)
    log = (f"[{i:6}] firmware: queue {i % 8} stalled, retrying\n" for i in range(2000))
    (directory / "firmware.log").write_text("".join(log))

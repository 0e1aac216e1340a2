# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd inspect --map."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lib.elf_writer import Core, Load, device_dump, note
from tests.lib.external_tools import makedumpfile
from tests.lib.flattened_writer import makedumpfile_flat
from tests.lib.vmcoredd import run, run_in_terminal

PAGES = 24


def regions(path: Path) -> list[tuple[str, int, int]]:
    found = json.loads(run("inspect", "--map", "--json", path).stdout)["map"]
    return [(region["kind"], region["offset"], region["size"]) for region in found]


def test_drawing_and_table(tmp_path: Path) -> None:
    notes = device_dump(b"nic", b"x" * 5000) + note(1, b"r" * 336)
    path = Core(notes, (Load(0x1000, b"m" * 4096 * PAGES, memsz=4096 * 30),)).write(tmp_path / "vmcore")
    with path.open("r+b") as file:
        # The last half is not on disk.
        file.truncate(0x4000 + 4096 * PAGES // 2)
        file.truncate(0x4000 + 4096 * PAGES)
    result = run("inspect", "--map", path)
    assert (result.returncode, result.stderr) == (0, "")
    drawing, table = result.stdout.split("\n\n")
    *rows, legend = drawing.splitlines()
    cells = "".join(row.partition("|")[2].rstrip("|") for row in rows)
    assert len(rows) == 8
    # A cell has 224 bytes.
    assert cells[:1] == "h"
    assert cells[1:18].strip() == ""
    assert cells[19:54] == "D" * 35
    # Where both are, the few bytes of the note are shown.
    assert cells[54:58] == "nnn "
    assert cells[75:292] == "#" * 217
    assert set(cells[293:]) == {"."}
    assert rows[1].startswith("0x03800 |")
    assert legend == "# memory  n note  h header  D device dump  . hole  blank unused  224B a cell"
    assert table.splitlines() == [
        "OFFSET   SIZE  HOLES  KIND         WHAT",
        "0x0      176B      -  header       ELF header, 2 program headers",
        "0xb0     3.8K      -  unused",
        "0x1000   8.0K      -  device dump  0 nic",
        "0x3000   356B      -  note         CORE, type 0x1",
        "0x3164   3.6K      -  unused",
        "0x4000  96.0K  48.0K  memory       physical 0x1000 to 0x1f000",
    ]


def test_headers_and_notes_are_seen_beside_device_dumps(source_vmcore: Path, tmp_path: Path) -> None:
    """In a vmcore of usual size they lie in the same cells."""
    path = Path(shutil.copy(source_vmcore, tmp_path / "vmcore"))
    (tmp_path / "nic").write_bytes(b"r" * 600_000)
    assert run("attach", path, f"nic={tmp_path / 'nic'}").returncode == 0
    drawing, table = run("inspect", "--map", path).stdout.split("\n\n")
    assert drawing.startswith("0x0000000 |hDDn#####")
    assert drawing.endswith("# memory  n note  h header  D device dump  178.0K a cell")
    assert "HOLES" not in table


def test_what_is_too_small_for_a_cell_of_its_own_is_not_promised(source_vmcore: Path) -> None:
    drawing = run("inspect", "--map", source_vmcore).stdout.split("\n\n")[0]
    assert drawing.endswith("|\n# memory  h header  176.8K a cell")


def test_small_device_dump_is_seen(source_vmcore: Path, tmp_path: Path) -> None:
    """It is what one looks for, even where headers and notes in the same cell are smaller."""
    path = Path(shutil.copy(source_vmcore, tmp_path / "vmcore"))
    (tmp_path / "nic").write_bytes(b"r" * 90_000)
    assert run("attach", path, f"nic={tmp_path / 'nic'}").returncode == 0
    drawing = run("inspect", "--map", path).stdout.split("\n\n")[0]
    assert drawing.startswith("0x0000000 |D#####")
    assert drawing.endswith("# memory  D device dump  177.0K a cell")


def test_hole_in_a_device_dump(tmp_path: Path) -> None:
    path = Core(device_dump(b"nic", bytes(4096 * 8)), (Load(0x1000, b"m" * 4096),)).write(tmp_path / "vmcore")
    with path.open("r+b") as file:
        # What a copy with --sparse=always leaves.
        subprocess.run(["fallocate", "--dig-holes", path], check=True)
        holes = os.lseek(file.fileno(), 0x1000, os.SEEK_HOLE)
    assert holes < path.stat().st_size
    drawing, table = run("inspect", "--map", path).stdout.split("\n\n")
    assert "D.........." in drawing.replace("|\n", "")
    assert ". hole" in drawing
    assert re.search(r"^0x1000 +36\.0K +32\.0K +device dump +0 nic$", table, re.MULTILINE)


@pytest.mark.parametrize(
    ("columns", "cells", "shown"),
    [
        (120, 64, "OFFSET SIZE KIND WHAT"),
        (80, 64, "OFFSET SIZE KIND WHAT"),
        (60, 51, "OFFSET SIZE KIND WHAT"),
        (40, 31, "OFFSET SIZE KIND WHAT"),
        (30, 21, "OFFSET KIND WHAT"),
    ],
)
def test_it_fits_the_terminal(vmcore: Path, columns: int, cells: int, shown: str) -> None:
    lines = run_in_terminal(columns, "inspect", "--map", vmcore)
    assert max(map(len, lines)) <= columns
    assert len(lines[0]) == len("0x0000 ||") + cells
    assert lines[lines.index("") + 1].split() == shown.split()


def test_nothing_of_a_file_is_left_out(source_vmcore: Path, tmp_path: Path) -> None:
    for path in (
        source_vmcore,
        makedumpfile(source_vmcore, tmp_path / "kdump", "-l", "-d", "31"),
        makedumpfile_flat(source_vmcore, tmp_path / "flat", "-l", "-d", "31", "--non-mmap"),
    ):
        end = 0
        for _, offset, size in regions(path):
            assert offset == end
            end += size
        assert end == (tmp_path / "kdump" if path.name == "flat" else path).stat().st_size


def test_device_dumps_that_were_attached_to_a_kdump_file(source_vmcore: Path, tmp_path: Path) -> None:
    path = makedumpfile(source_vmcore, tmp_path / "vmcore", "-l", "-d", "31")
    before = path.stat().st_size
    data = tmp_path / "data"
    data.write_bytes(b"registers")
    assert run("attach", path, f"nic={data}").returncode == 0
    kinds = [kind for kind, _, _ in regions(path)]
    assert kinds[-4:] == ["device dump", "device dump", "note", "note"]
    memory = next(region for region in regions(path) if region[0] == "memory")
    assert memory[1] + memory[2] == (before + 4095) // 4096 * 4096


def test_forged_file_of_many_notes(tmp_path: Path) -> None:
    path = Core(note(1, b"", b"X\0") * 70000).write(tmp_path / "vmcore")
    result = run("inspect", "--map", path)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1].endswith(" more are not shown")
    assert len(result.stdout.splitlines()) < 5000


def test_hostile_names(tmp_path: Path) -> None:
    path = Core(device_dump(b"\x1b[2J", b"x")).write(tmp_path / "vmcore")
    assert "\x1b" not in run("inspect", "--map", path).stdout
    os.truncate(path, path.stat().st_size + 1)
    assert regions(path)[-1][0] == "unused"

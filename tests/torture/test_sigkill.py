# SPDX-License-Identifier: LGPL-2.1-or-later
"""A few kills of the campaign, and judges that can fail; ``make torture`` runs it for long."""

from pathlib import Path

import pytest

from tests.lib.elf_writer import device_dump
from tests.lib.tools import require
from tests.torture import disk
from tests.torture.sigkill import campaign


async def test_kills_under_load(tmp_path: Path) -> None:
    require("dbus-daemon")
    figures = await campaign(tmp_path, kills=8, seed=2)
    assert figures.kills.total() == 8
    assert len(figures.kills) > 1
    assert min(figures.acknowledged, figures.in_vmcore, figures.read_back) > 0


def spooled(tmp_path: Path, content: bytes, name: str = "000001.note") -> Path:
    path = tmp_path / ".vmcoredd-spool" / "boot" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("size", [0, 100, 4096])
def test_judge_sees_a_partial_note(tmp_path: Path, size: int) -> None:
    spooled(tmp_path, disk.note_of("a-1-c100")[:size])
    with pytest.raises(disk.Lost, match="partial"):
        disk.check_spool(tmp_path)


def test_judge_sees_altered_data(tmp_path: Path) -> None:
    spooled(tmp_path, device_dump(b"a-1-c100", bytes(100)) + b"{}")
    with pytest.raises(disk.Lost, match="device dump a-1-c100 is altered"):
        disk.check_spool(tmp_path)


def test_judge_sees_what_is_set_aside(tmp_path: Path) -> None:
    spooled(tmp_path, b"", "000001.note.damaged")
    with pytest.raises(disk.Lost, match="lies in the spool"):
        disk.check_spool(tmp_path)


@pytest.mark.parametrize("cut", [0, 100, 5000, 1 << 20])
def test_judge_sees_a_partial_vmcore(tmp_path: Path, cut: int) -> None:
    source = disk.write_source(tmp_path / "source")
    (tmp_path / "vmcore").write_bytes(source.read_bytes()[:cut])
    with pytest.raises(disk.Lost):
        disk.check_vmcores(tmp_path, source)

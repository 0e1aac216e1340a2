# SPDX-License-Identifier: LGPL-2.1-or-later
from pathlib import Path

from tests.collectors.builtin.collecting import BROKEN, collect, members, tree
from vmcoredd_daemon.collectors.builtin.pstore import Pstore

FILES = {"dmesg-erst-7218427481": b"Panic#1 Part1\n" * 300, "console-ramoops-0": b"Linux version 6.1\n"}


def test_files_come_out_of_the_archive(tmp_path: Path) -> None:
    tree(tmp_path, {f"sys/fs/pstore/{name}": content for name, content in FILES.items()})
    dump, error = collect(Pstore(tmp_path))["pstore"]
    assert (members(dump), error) == (FILES, "")


def test_file_that_cannot_be_read_costs_only_itself(tmp_path: Path) -> None:
    tree(tmp_path, {f"sys/fs/pstore/{name}": content for name, content in FILES.items()})
    (tmp_path / "sys/fs/pstore/dmesg-efi-1").symlink_to(BROKEN)
    dump, error = collect(Pstore(tmp_path))["pstore"]
    assert members(dump) == {**FILES, "dmesg-efi-1": b""}
    assert "Input/output error: '" in error
    assert "sys/fs/pstore/dmesg-efi-1'" in error


def test_machine_without_files(tmp_path: Path) -> None:
    (tmp_path / "sys/fs/pstore").mkdir(parents=True)
    assert list(Pstore(tmp_path).device_dumps()) == []

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is put into capture kernels, without one."""

from pathlib import Path

from tests.kdump import faulty, units


def test_files_of_units_exist() -> None:
    files = [faulty.adding("nic"), faulty.writing("say", 50), units.callback_helper("nic", "nic", 100)]
    paths = [path for each in files for path in each.values() if isinstance(path, Path)]
    assert len(paths) >= len(files)
    assert [path for path in paths if not path.exists()] == []

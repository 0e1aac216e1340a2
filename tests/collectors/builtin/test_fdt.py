# SPDX-License-Identifier: LGPL-2.1-or-later
from pathlib import Path

from tests.collectors.builtin.collecting import BROKEN, collect, tree
from vmcoredd_daemon.collectors.builtin.fdt import Fdt

FILE = "sys/firmware/fdt"


def test_it_is_one_device_dump(tmp_path: Path) -> None:
    tree(tmp_path, {FILE: b"\xd0\x0d\xfe\xed" * 50_000})
    assert collect(Fdt(tmp_path)) == {"fdt": (b"\xd0\x0d\xfe\xed" * 50_000, "")}


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / FILE).parent.mkdir(parents=True)
    (tmp_path / FILE).symlink_to(BROKEN)
    # As sysfs, which knows the size: /proc says 0.
    collector = Fdt(tmp_path)
    assert list(collector.device_dumps()) == [("fdt", 0)]


def test_machine_without_any(tmp_path: Path) -> None:
    assert list(Fdt(tmp_path).device_dumps()) == []

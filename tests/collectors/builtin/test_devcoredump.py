# SPDX-License-Identifier: LGPL-2.1-or-later
from pathlib import Path

from tests.collectors.builtin.collecting import BROKEN, collect, tree
from vmcoredd_daemon.collectors.builtin import devcoredump
from vmcoredd_daemon.collectors.builtin.devcoredump import Devcoredump

CLASS = "sys/class/devcoredump"
DATA = b"**** GPU HANG ****\n" * 10_000


def device(root: Path, number: int, name: str) -> Path:
    tree(root, {f"sys/devices/pci0000:00/{name}/uevent": b"", f"{CLASS}/devcd{number}/uevent": b""})
    directory = root / CLASS / f"devcd{number}"
    (directory / "failing_device").symlink_to(f"../../../devices/pci0000:00/{name}")
    return directory


def test_each_is_one_device_dump(tmp_path: Path) -> None:
    (device(tmp_path, 1, "0000:01:00.0") / "data").write_bytes(DATA)
    (device(tmp_path, 2, "0000:02:00.0") / "data").symlink_to(BROKEN)
    made = collect(Devcoredump(tmp_path))
    assert made["devcd1_0000:01:00.0"] == (DATA, "")
    dump, error = made["devcd2_0000:02:00.0"]
    assert dump == b""
    assert "devcd2/data'" in error


def test_start_of_a_long_one_is_kept(tmp_path: Path) -> None:
    with (device(tmp_path, 1, "0000:01:00.0") / "data").open("wb") as file:
        file.truncate(devcoredump.SIZE + 1)
    ((dump, error),) = collect(Devcoredump(tmp_path)).values()
    assert len(dump) == devcoredump.SIZE
    assert f"wrote more than {devcoredump.SIZE} bytes" in error


def test_machine_without_any(tmp_path: Path) -> None:
    assert list(Devcoredump(tmp_path).device_dumps()) == []

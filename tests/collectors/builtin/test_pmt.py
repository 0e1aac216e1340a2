# SPDX-License-Identifier: LGPL-2.1-or-later
from pathlib import Path

from tests.collectors.builtin.collecting import collect, tree
from vmcoredd_daemon.collectors.builtin.pmt import Pmt


def test_each_is_one_device_dump(tmp_path: Path) -> None:
    logs = {f"crashlog{number}": bytes([number]) * 70_000 for number in range(2)}
    tree(tmp_path, {f"sys/class/intel_pmt/{name}/crashlog": log for name, log in logs.items()})
    tree(
        tmp_path, {"sys/class/intel_pmt/telem0/telem": b"not this", "sys/class/intel_pmt/crashlog2/crashlog": b""}
    )
    assert collect(Pmt(tmp_path)) == {name: (log, "") for name, log in logs.items()}


def test_machine_without_any(tmp_path: Path) -> None:
    assert list(Pmt(tmp_path).device_dumps()) == []

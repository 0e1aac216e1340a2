# SPDX-License-Identifier: LGPL-2.1-or-later
import json
import subprocess
from pathlib import Path

import pytest

from tests.collectors.builtin.collecting import BROKEN, collect, tree
from tests.lib.tools import require
from tests.lib.vmcoredd import run
from vmcoredd_daemon.collectors.builtin import BUILT_IN
from vmcoredd_daemon.collectors.builtin.pci import Pci
from vmcoredd_daemon.collectors.registry import find

DEVICES = "sys/bus/pci/devices"


def config(size: int) -> bytes:
    # An NVMe controller of Samsung's, revision 1.
    start = bytes.fromhex("4d14 0aa8 0604 1000 01 020801 10008000")
    return start + bytes((i * 7) & 0xFF for i in range(len(start), size))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree(
        tmp_path,
        {
            f"{DEVICES}/0000:03:00.0/config": config(4096),
            f"{DEVICES}/0000:03:00.0/aer_dev_fatal": b"Undefined 0\nTLP 2\nTOTAL_ERR_FATAL 2\n",
            f"{DEVICES}/0001:00:1c.2/config": config(256),
            "sys/bus/pci/drivers/nvme/bind": b"",
        },
    )
    (tmp_path / DEVICES / "0000:03:00.0/driver").symlink_to("../../drivers/nvme")
    return tmp_path


def lspci(dump: bytes, tmp_path: Path, *options: str) -> str:
    require("lspci")
    (tmp_path / "pci").write_bytes(dump)
    command = ["lspci", "-F", tmp_path / "pci", "-D", "-n", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def hexadecimal(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("\t")]


def test_lspci_reads_all_of_it_back(root: Path, tmp_path: Path) -> None:
    dump, error = collect(Pci(root))["pci"]
    assert error == ""
    assert hexadecimal(lspci(dump, tmp_path, "-xxxx")) == hexadecimal(dump.decode())
    assert "\n\tKernel driver in use: nvme\n" in dump.decode()


def test_error_counters(root: Path) -> None:
    dump, error = collect(Pci(root))["pci_aer"]
    lines = ["Undefined 0", "TLP 2", "TOTAL_ERR_FATAL 2"]
    assert dump.decode().splitlines() == [f"0000:03:00.0/aer_dev_fatal:{line}" for line in lines]
    assert error == ""


def test_device_that_cannot_be_read_costs_only_itself(root: Path, tmp_path: Path) -> None:
    for name in ("0000:02:00.0", "0000:04:00.0"):
        (root / DEVICES / name).mkdir()
        (root / DEVICES / name / "config").symlink_to(BROKEN)
    dump, error = collect(Pci(root))["pci"]
    assert lspci(dump, tmp_path).splitlines() == [
        "0000:02:00.0 ffff: ffff:ffff (rev ff)",
        "0000:03:00.0 0108: 144d:a80a (rev 01)",
        "0000:04:00.0 ffff: ffff:ffff (rev ff)",
        "0001:00:1c.2 0108: 144d:a80a (rev 01)",
    ]
    assert "Input/output error" in error
    assert f"{DEVICES}/0000:02:00.0/config', and 1 more" in error


def test_machine_without_pci(tmp_path: Path) -> None:
    assert list(Pci(tmp_path).device_dumps()) == []


def test_this_machine(tmp_path: Path) -> None:
    (tmp_path / "vmcoredd.conf").touch()
    options = ["--config", tmp_path / "vmcoredd.conf"]
    listed = {entry["name"]: entry for entry in json.loads(run("run", "--list", "--json", *options).stdout)}
    assert set(BUILT_IN) <= set(listed)
    if not listed["pci"]["runs"]:
        pytest.skip("no PCI here")
    result = run("run", "pci", "-o", tmp_path / "out", *options)
    assert (result.returncode, result.stderr) == (0, "")
    ours = lspci((tmp_path / "out" / "pci").read_bytes(), tmp_path)
    theirs = subprocess.run(["lspci", "-D", "-n"], capture_output=True, text=True, check=True).stdout
    assert [line.split(" (")[0] for line in ours.splitlines()] == [
        line.split(" (")[0] for line in theirs.splitlines()
    ]


def test_built_in_collectors_can_be_loaded_and_masked(tmp_path: Path) -> None:
    found = find([tmp_path])
    for name in BUILT_IN:
        load = found[name].load
        assert load is not None
        assert callable(load())
    (tmp_path / "pci.conf").touch()
    masked = find([tmp_path])["pci"]
    assert masked.masked
    assert not masked.enabled
    assert masked.plan(None, 1) == []

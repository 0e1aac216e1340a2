# SPDX-License-Identifier: LGPL-2.1-or-later
from pathlib import Path

from tests.collectors.builtin.collecting import BROKEN, collect, tree
from vmcoredd_daemon.collectors.builtin.edac import Edac

MC = "sys/devices/system/edac/mc/mc0"
FILES = {
    "ce_count": b"3\n",
    "ue_count": b"0\n",
    "mc_name": b"Skylake Socket#0 IMC#0\n",
    "dimm0/dimm_label": b"CPU_SrcID#0_MC#0_Chan#0_DIMM#0\n",
    "dimm0/dimm_ce_count": b"3\n",
    "csrow0/ch0_ce_count": b"3\n",
    "reset_counters": b"not this",
}


def test_counters_and_labels(tmp_path: Path) -> None:
    tree(tmp_path, {f"{MC}/{name}": content for name, content in FILES.items()})
    dump, error = collect(Edac(tmp_path))["edac"]
    names = sorted(set(FILES) - {"reset_counters"})
    assert dump.decode().splitlines() == [f"mc/mc0/{name}:{FILES[name].decode().strip()}" for name in names]
    assert error == ""


def test_file_that_cannot_be_read_costs_only_itself(tmp_path: Path) -> None:
    tree(tmp_path, {f"{MC}/ue_count": b"1\n"})
    (tmp_path / MC / "ce_count").symlink_to(BROKEN)
    dump, error = collect(Edac(tmp_path))["edac"]
    assert dump == b"mc/mc0/ue_count:1\n"
    assert "mc/mc0/ce_count'" in error


def test_machine_without_drivers(tmp_path: Path) -> None:
    assert list(Edac(tmp_path).device_dumps()) == []

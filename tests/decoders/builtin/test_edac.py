# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import io

import pytest

from tests.decoders.damage import endures
from vmcoredd_daemon.decoders.builtin.edac import decode
from vmcoredd_daemon.decoders.decoded import Decoded, Field, Table
from vmcoredd_daemon.errors import InvalidDump

DUMP = """\
mc/mc0/ce_count:5
mc/mc0/ce_noinfo_count:0
mc/mc0/csrow0/ce_count:5
mc/mc0/csrow0/ch0_ce_count:5
mc/mc0/csrow0/ch0_dimm_label:CPU_SrcID#0_MC#0_Chan#0_DIMM#0
mc/mc0/dimm0/dimm_ce_count:3
mc/mc0/dimm0/dimm_edac_mode:S4ECD4ED
mc/mc0/dimm0/dimm_label:CPU_SrcID#0_MC#0_Chan#0_DIMM#0
mc/mc0/dimm0/dimm_location:channel 0 slot 0
mc/mc0/dimm0/dimm_mem_type:Registered-DDR4
mc/mc0/dimm0/dimm_ue_count:0
mc/mc0/dimm0/size:16384
mc/mc0/dimm3/dimm_ce_count:0
mc/mc0/dimm3/dimm_label:DIMM: B1
mc/mc0/dimm3/dimm_ue_count:1
mc/mc0/dimm3/size:16384
mc/mc0/mc_name:Skylake Socket#0 IMC#0
mc/mc0/ue_count:1
mc/mc0/ue_noinfo_count:0
pci/pci0/npe_count:0
pci/pci0/pe_count:2
"""


def decoded(text: str) -> Decoded:
    return decode("edac", io.BytesIO(text.encode("utf-8", "surrogateescape")))


def rows(found: Decoded) -> tuple[tuple[object, ...], ...]:
    [table] = found.sections[0].parts
    assert isinstance(table, Table)
    return table.rows


def test_errors_are_found_with_the_label_of_their_dimm() -> None:
    found = decoded(DUMP)
    assert found.summary == (
        "Skylake Socket#0 IMC#0, 1 uncorrected memory error of DIMM: B1, "
        "3 corrected memory errors of CPU_SrcID#0_MC#0_Chan#0_DIMM#0, "
        "2 corrected memory errors of an unknown DIMM, 2 PCI errors, 2 DIMMs, 32768 MB"
    )
    assert rows(found) == (
        ("mc0/dimm0", "CPU_SrcID#0_MC#0_Chan#0_DIMM#0", "channel 0 slot 0", 16384, "Registered-DDR4", 3, 0),
        ("mc0/dimm3", "DIMM: B1", "", 16384, "", 0, 1),
    )
    assert [(section.name, part.name) for section in found.sections for part in section.parts if wrong(part)] == [
        ("mc0", "ce_count"),
        ("mc0", "ue_count"),
        ("pci", "pci0/pe_count"),
    ]


def wrong(part: object) -> bool:
    return isinstance(part, Field) and part.wrong


def test_older_kernel_without_counts_of_dimms() -> None:
    found = decoded(
        "mc/mc0/mc_name:AMD64\nmc/mc0/ce_count:7\nmc/mc0/csrow1/ch0_ce_count:7\nmc/mc0/csrow1/ch0_dimm_label:A2\n"
    )
    assert found.findings == ("7 corrected memory errors of A2",)
    assert rows(found)[0][:3] == ("mc0/csrow1/ch0", "A2", "csrow1")


def test_machine_without_errors() -> None:
    found = decoded("mc/mc0/mc_name:one\nmc/mc1/mc_name:two\nmc/mc0/ce_count:0\nmc/mc0/dimm0/dimm_label:A1\n")
    assert (found.title, found.findings, found.facts) == ("2 memory controllers", (), ("1 DIMM",))


def test_many_dimms_with_errors() -> None:
    found = decoded("".join(f"mc/mc0/dimm{number}/dimm_ce_count:{number}\n" for number in range(1, 8)))
    assert found.findings == (
        "7 corrected memory errors of mc0/dimm7",
        "6 corrected memory errors of mc0/dimm6",
        "5 corrected memory errors of mc0/dimm5",
        "4 corrected memory errors of mc0/dimm4",
        "6 corrected memory errors of 3 other DIMMs",
    )


def test_hostile_text() -> None:
    found = decoded("mc/mc0/mc_name:\x1b[31m<b>\udcff\nmc/mc0/ce_count:" + "9" * 5000 + "\nno such line\n\0\0\0")
    assert found.title == "\\x1b[31m<b>\\xff"
    assert found.problems == ("lines that are no file of EDAC are left out",)
    with pytest.raises(InvalidDump, match="no file of EDAC"):
        decoded("\0" * 4096)
    endures(decode, samples())


def samples() -> list[tuple[str, bytes]]:
    """Return device dumps as machines have them."""
    return [("edac", DUMP.encode())]

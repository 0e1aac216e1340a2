# SPDX-License-Identifier: LGPL-2.1-or-later
"""Devicetrees: that of QEMU's arm64 machine, and what the Devicetree compiler makes of a source."""

from __future__ import annotations

import io
import lzma
import subprocess

import pytest

from tests.decoders.damage import endures
from tests.lib.paths import DATA_DIRECTORY
from tests.lib.tools import require
from vmcoredd_daemon.decoders.builtin.fdt import MAX_DEPTH, MAX_ROWS, decode
from vmcoredd_daemon.decoders.decoded import Decoded, Field, Table
from vmcoredd_daemon.errors import InvalidDump

SOURCE = """\
/dts-v1/;
/memreserve/ 0x80000000 0x10000;
/ {
    model = "Example\\x1b[31m Board";
    compatible = "example,board", "example,soc";
    serial-number = "SN12345";
    #address-cells = <2>;
    #size-cells = <1>;
    chosen {
        bootargs = "console=ttyS0 root=/dev/sda1";
        linux,elfcorehdr = <0x0 0x7fef0000 0x10000>;
    };
    cpus {
        #address-cells = <1>;
        #size-cells = <0>;
        cpu@0 { device_type = "cpu"; reg = <0>; };
        cpu@1 { device_type = "cpu"; reg = <1>; status = "fail-bist"; compatible = "arm,cortex-a72"; };
    };
    memory@40000000 { device_type = "memory"; reg = <0x0 0x40000000 0x20000000  0x8 0x0 0x10000000>; };
    reserved-memory {
        #address-cells = <1>;
        #size-cells = <1>;
        ramoops@50000000 { reg = <0x50000000 0x10000>; };
    };
    soc {
        uart@9000000 { compatible = "arm,pl011"; status = "fail"; };
        rtc@9010000 { status = "disabled"; };
    };
};
"""


def compiled(source: str) -> bytes:
    """Return what dtc makes of *source*."""
    require("dtc")
    command = ["dtc", "-q", "-I", "dts", "-O", "dtb"]
    return subprocess.run(command, input=source.encode(), capture_output=True, check=True).stdout


def of_qemu() -> bytes:
    """Return the devicetree of ``qemu-system-aarch64 -M virt``, which has 1 MiB."""
    return lzma.decompress((DATA_DIRECTORY / "arm64-virt.dtb.xz").read_bytes())


def decoded(tree: bytes) -> Decoded:
    return decode("fdt", io.BytesIO(tree))


def fields(found: Decoded) -> dict[str, object]:
    return {part.name: part.value for part in found.sections[0].parts if isinstance(part, Field)}


def rows(found: Decoded, name: str) -> tuple[tuple[object, ...], ...]:
    [table] = [part for part in found.sections[0].parts if isinstance(part, Table) and part.name == name]
    return table.rows


def test_machine_of_qemu() -> None:
    found = decoded(of_qemu())
    assert found.summary == "linux,dummy-virt, 2 processors, 1.0G of memory, 58 nodes"
    assert (found.findings, found.problems) == ((), ())
    assert rows(found, "Memory") == (("memory@40000000", "0x40000000", "0x80000000", 1 << 30),)
    assert fields(found)["stdout-path"] == "/pl011@9000000"
    assert fields(found)["bootargs"] == "console=ttyAMA0"


def test_what_dtc_says_of_it() -> None:
    require("dtc")
    command = ["dtc", "-q", "-I", "dtb", "-O", "dts"]
    source = subprocess.run(command, input=of_qemu(), capture_output=True, check=True).stdout.decode()
    # Each node is a line with a brace at its end.
    assert fields(decoded(of_qemu()))["Nodes"] == source.count("{\n") == 58
    assert source.count('device_type = "cpu"') == fields(decoded(of_qemu()))["Processors"]


def test_what_a_source_says() -> None:
    found = decoded(compiled(SOURCE))
    assert found.title == "Example\\x1b[31m Board"
    assert found.findings == ("/cpus/cpu@1 has status fail-bist", "/soc/uart@9000000 has status fail")
    assert found.facts == ("2 processors", "768.0M of memory", "11 nodes")
    assert fields(found) == {
        "Model": "Example\\x1b[31m Board",
        "Compatible": "example,board, example,soc",
        "Serial number": "SN12345",
        "Processors": 2,
        "Nodes": 11,
        "bootargs": "console=ttyS0 root=/dev/sda1",
        "linux,elfcorehdr": "0x7fef0000 to 0x7ff00000",
    }
    assert [part.name for part in found.sections[0].parts if isinstance(part, Field) and part.private] == [
        "Serial number"
    ]
    assert rows(found, "Memory") == (
        ("memory@40000000", "0x40000000", "0x60000000", 0x20000000),
        ("memory@40000000", "0x800000000", "0x810000000", 0x10000000),
    )
    assert rows(found, "Reserved memory") == (
        ("reservation block", "0x80000000", "0x80010000", 0x10000),
        ("ramoops@50000000", "0x50000000", "0x50010000", 0x10000),
    )
    assert rows(found, "Failed devices") == (
        ("/cpus/cpu@1", "arm,cortex-a72", "fail-bist"),
        ("/soc/uart@9000000", "arm,pl011", "fail"),
    )


def test_tree_that_is_damaged_says_what_was_before() -> None:
    tree = compiled(SOURCE)
    found = decoded(tree.replace(b"uart@9000000\0\0\0\0", b"uart@9000000xxxx"))
    assert found.title == "Example\\x1b[31m Board"
    assert rows(found, "Memory")
    [problem] = found.problems
    assert problem.startswith("the structure block has token 0x")
    # The names of properties are at its end.
    with pytest.raises(InvalidDump, match=r"a name at byte .* has no end"):
        decoded(tree[: tree.index(b"#address-cells\0")])


def test_hostile_trees() -> None:
    deep = "/dts-v1/; / { " + "a { " * (MAX_DEPTH + 5) + "}; " * (MAX_DEPTH + 5) + "};"
    assert decoded(compiled(deep)).problems == (f"more than {MAX_DEPTH} nodes are inside each other",)
    many = "".join(f'd{number} {{ status = "fail"; }};' for number in range(MAX_ROWS + 5))
    found = decoded(compiled(f"/dts-v1/; / {{ {many} }};"))
    assert found.problems == (f"only the first {MAX_ROWS} ranges of a kind, and devices that failed, are shown",)
    assert len(rows(found, "Failed devices")) == MAX_ROWS
    assert found.findings[-1] == f"{MAX_ROWS - 4} other devices failed"
    for data, problem in (
        (b"", "the header"),
        (b"\xd0\x0d\xfe\xee" + bytes(60), "magic is 0xd00dfeee"),
        (bytes.fromhex("d00dfeed") + bytes(36), "version 0 is compatible with 0"),
    ):
        with pytest.raises(InvalidDump, match=problem):
            decoded(data)
    endures(decode, samples())


def samples() -> list[tuple[str, bytes]]:
    """Return device dumps as machines have them."""
    # Its last 992 KiB are zeros.
    return [("fdt", of_qemu().rstrip(b"\0"))]

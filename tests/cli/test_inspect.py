# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd inspect, on files of every kind."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.lib.elf_writer import Core, device_dump
from tests.lib.external_tools import makedumpfile
from tests.lib.tools import require
from tests.lib.vmcore_dumps import DATA, DUMP, GOLDEN, MANIFEST, SHA256, truncated_manifest
from tests.lib.vmcoredd import run, run_in_terminal
from vmcoredd_daemon.manifest import MANIFEST_NAME, IdleCollector, Manifest, ManifestDump, ManifestMachine


def test_inspect_prints_a_table(vmcore: Path) -> None:
    result = run("inspect", vmcore)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        f"      Vmcore: {vmcore} (20.0K)\n"
        "      Format: elf, 64 bits, little endian, x86_64\n"
        "     Written: 1970-01-01 00:00:00 UTC by vmcoredd 0\n"
        "Device dumps: 2 and the manifest; 1 failed\n"
        "\n"
        "INDEX  NAME               SIZE  CHECKSUM  COLLECTOR  TIME\n"
        "    0  kernel             3.9K  -         -          -\n"
        "    1  nic                5.0K  ok        :1.5/nic   1970-01-01 00:00:00\n"
        f"    2  vmcoredd_manifest  {len(MANIFEST)}B  -         -          -\n"
        "\n"
        "FAILED    COLLECTOR  TIME\n"
        "wifi\\x1b  :1.9/wifi  1970-01-01 00:00:00\n"
        "  late\n"
    )


def test_exact_sizes_and_no_legend(vmcore: Path) -> None:
    lines = run("inspect", "--bytes", "--no-legend", vmcore).stdout.splitlines()
    assert lines[0] == f"      Vmcore: {vmcore} (20480 bytes)"
    assert lines[5:8] == [
        "    0  kernel             4032  -         -          -",
        "    1  nic                5120  ok        :1.5/nic   1970-01-01 00:00:00",
        f"    2  vmcoredd_manifest   {len(MANIFEST)}  -         -          -",
    ]


def test_inspect_prints_json(vmcore: Path) -> None:
    result = run("inspect", "--json", vmcore)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {
        "path": str(vmcore),
        "format": "elf",
        "class": 64,
        "endian": "little",
        "machine": "x86_64",
        "size": 20480,
        "kernel_release": None,
        "host": None,
        "crash_usec": None,
        "memory": None,
        "memory_in_file": None,
        "dump_level": None,
        "compression": None,
        "incomplete": False,
        "panic": None,
        "producer": "vmcoredd 0",
        "written_usec": 3,
        "source": {"path": "", "unreadable_pages": 0, "missing_bytes": 0, "error": "", "fallback": ""},
        "hardware": asdict(ManifestMachine()),
        "device_dumps": [
            _dump(0, "kernel", 0x1040, 4032, None, None, None),
            _dump(1, "nic", 0x2040, 8128, 5120, SHA256, True, DUMP),
            _dump(2, MANIFEST_NAME, 0x4040, 4032, len(MANIFEST), None, None),
        ],
        "failures": [
            {
                "name": "wifi\x1b",
                "collector": ":1.9/wifi",
                "error": "late",
                "error_name": "org.vmcoredd1.Error.TimedOut",
                "finished_usec": 5,
            }
        ],
        "idle_collectors": [],
    }


def test_inspect_names_the_machine_and_who_made_nothing(tmp_path: Path) -> None:
    machine = ManifestMachine("db7", "6.1.0", "", "", "Acme", "Server 1", "4711", "2.1 11/30/2026")
    idle = (IdleCollector("edac", "nothing to collect here"), IdleCollector("pmt", "switched off"))
    manifest = Manifest("test", 3, (), machine=machine, idle_collectors=idle)
    vmcore = Core(device_dump(MANIFEST_NAME.encode(), manifest.dump())).write(tmp_path / "vmcore")
    lines = run("inspect", vmcore).stdout.splitlines()
    assert "        Host: db7" in lines
    assert "    Hardware: Acme Server 1, BIOS 2.1 11/30/2026, serial number 4711" in lines
    assert "Nothing from: edac, pmt" in lines
    content = json.loads(run("inspect", "--json", vmcore).stdout)
    assert content["hardware"] == asdict(machine)
    assert content["idle_collectors"] == [asdict(each) for each in idle]


def _dump(
    index: int,
    name: str,
    offset: int,
    buffer_size: int,
    size: int | None,
    sha256: str | None,
    verified: bool | None,
    entry: ManifestDump | None = None,
) -> dict[str, object]:
    values = {"index": index, "name": name, "offset": offset, "buffer_size": buffer_size}
    described = ("state", "collector", "started_usec", "finished_usec", "error")
    values |= {key: None if entry is None else getattr(entry, key) or None for key in described} | {"kind": None}
    return values | {"size": size, "sha256": sha256, "verified": verified}


def test_inspect_vmcore_of_the_kernel() -> None:
    result = run("inspect", "--json", GOLDEN)
    assert [dump["name"] for dump in json.loads(result.stdout)["device_dumps"]][:2] == ["golden_a", "golden_b"]


def test_inspect_real_vmcore_without_device_dumps(source_vmcore: Path) -> None:
    require("makedumpfile")
    result = run("inspect", source_vmcore)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        f"      Vmcore: {source_vmcore} (88.4M)\n"
        "      Format: elf, 64 bits, little endian, x86_64\n"
        "      Kernel: 6.1.0-56-cloud-amd64\n"
        "  Crash time: 2026-11-23 20:05:21 UTC\n"
        "       Panic: Kernel panic - not syncing: sysrq triggered crash\n"
        "      Memory: 191.4M\n"
        " In the file: 58.6M\n"
        "Device dumps: 0\n"
    )


@pytest.mark.parametrize(("option", "compression"), [("-c", "zlib"), ("-l", "lzo"), ("-d", "none")])
def test_inspect_kdump_compressed(source_vmcore: Path, tmp_path: Path, option: str, compression: str) -> None:
    options = ["-d", "31"] if option == "-d" else [option, "-d", "31"]
    vmcore = makedumpfile(source_vmcore, tmp_path / "vmcore", *options)
    found = json.loads(run("inspect", "--json", vmcore).stdout)
    assert (found["format"], found["dump_level"], found["compression"]) == ("kdump", 31, compression)
    assert (found["kernel_release"], found["crash_usec"]) == ("6.1.0-56-cloud-amd64", 1795464321 * 10**6)
    assert found["panic"] == "Kernel panic - not syncing: sysrq triggered crash"
    assert (found["memory"], found["memory_in_file"]) == (200781824, 59731968)
    lines = run("inspect", vmcore).stdout.splitlines()
    assert "  Dump level: 31" in lines
    assert f" Compression: {compression}" in lines


def test_inspect_truncated_vmcore(source_vmcore: Path, tmp_path: Path) -> None:
    vmcore = Path(shutil.copy(source_vmcore, tmp_path / "vmcore"))
    os.truncate(vmcore, 80 << 20)
    assert " In the file: 50.1M\n    Complete: no, memory is missing\n" in run("inspect", vmcore).stdout
    # Of the memory nothing is left.
    os.truncate(vmcore, 0x135C)
    found = json.loads(run("inspect", "--json", vmcore).stdout)
    assert (found["memory"], found["memory_in_file"]) == (200784896, 0)


def test_device_dump_and_memory_that_are_not_whole(truncated: Path) -> None:
    result, size = run("inspect", truncated), len(truncated_manifest().dump())
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[2:] == [
        "     Written: 1970-01-01 00:00:00 UTC by vmcoredd 0",
        "  Incomplete: the source blocks",
        "  Unreadable: 3 pages, replaced by zeros",
        "     Missing: 8.0K of memory",
        "    Fallback: it did not fit",
        "Device dumps: 1 and the manifest; 1 truncated",
        "",
        "INDEX  NAME               SIZE  STATE      CHECKSUM  COLLECTOR             TIME",
        "    0  nic                5.0K  truncated  ok        descriptor from :1.5  1970-01-01 00:00:00",
        "  late",
        f"    1  vmcoredd_manifest  {size}B  -          -         -                     -",
    ]


def test_one_page_that_could_not_be_read(tmp_path: Path) -> None:
    manifest = truncated_manifest(unreadable_pages=1, missing_bytes=0).dump()
    text = run("inspect", Core(device_dump(MANIFEST_NAME.encode(), manifest)).write(tmp_path / "vmcore")).stdout
    assert "  Unreadable: 1 page, replaced by zeros\n" in text
    assert "Missing" not in text


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (120, "INDEX NAME SIZE STATE CHECKSUM COLLECTOR TIME"),
        (80, "INDEX NAME SIZE STATE CHECKSUM COLLECTOR"),
        (60, "INDEX NAME SIZE STATE CHECKSUM COLLECTOR"),
        (40, "NAME SIZE STATE CHECKSUM"),
    ],
)
def test_tables_fit_the_terminal(truncated: Path, columns: int, shown: str) -> None:
    lines = run_in_terminal(columns, "inspect", truncated)
    table = lines[lines.index("") + 1 :]
    assert table[0].split() == shown.split()
    assert max(map(len, table)) <= columns
    # What says whether it can be trusted is never cut.
    assert "  truncated  ok" in table[1]
    full = run_in_terminal(columns, "inspect", "--full", truncated)
    assert full == run("inspect", truncated).stdout.splitlines()


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (120, "INDEX NAME SIZE CHECKSUM COLLECTOR TIME, FAILED COLLECTOR TIME"),
        (80, "INDEX NAME SIZE CHECKSUM COLLECTOR TIME, FAILED COLLECTOR TIME"),
        (60, "INDEX NAME SIZE CHECKSUM COLLECTOR, FAILED COLLECTOR TIME"),
        (40, "INDEX NAME SIZE CHECKSUM, FAILED COLLECTOR TIME"),
    ],
)
def test_short_tables_keep_their_columns(vmcore: Path, columns: int, shown: str) -> None:
    lines = run_in_terminal(columns, "inspect", vmcore)
    first, second = (lines.index(line) for line in lines if line.startswith(("INDEX", "FAILED")))
    assert [lines[first].split(), lines[second].split()] == [names.split() for names in shown.split(", ")]
    assert max(map(len, lines[first:])) <= columns


@pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"LANG": "POSIX"}])
def test_locale_without_an_ellipsis(truncated: Path, environment: dict[str, str]) -> None:
    assert any("..." in line for line in run_in_terminal(40, "inspect", truncated, **environment))
    assert any("…" in line for line in run_in_terminal(40, "inspect", truncated, LC_ALL="C.UTF-8"))


@pytest.mark.parametrize(
    ("vmcore_name", "log_name"), [("vmcore", "vmcore-dmesg.txt"), ("dump.202611242017", "dmesg.202611242017")]
)
@pytest.mark.parametrize(
    ("log", "panic"),
    [
        (
            b"[  1.0] BUG: unable to handle\n[  2.0] Kernel panic - not syncing: Fatal\n",
            "Kernel panic - not syncing: Fatal",
        ),
        (
            b"<1>[  1.0] BUG: kernel NULL pointer dereference, address: 0\r\n",
            "BUG: kernel NULL pointer dereference, address: 0",
        ),
        (b"x" * (2 << 20) + b"\nsysrq: Trigger a crash\n", "sysrq: Trigger a crash"),
        (b"Kernel panic - not syncing: \x1b[2J\xff\n", "Kernel panic - not syncing: \x1b[2J\\xff"),
        (b"all is well\n", None),
    ],
    ids=["panic", "BUG", "far from the start", "escape code", "none"],
)
def test_panic_in_the_log_beside(
    vmcore: Path, vmcore_name: str, log_name: str, log: bytes, panic: str | None
) -> None:
    path = vmcore.rename(vmcore.with_name(vmcore_name))
    path.with_name(log_name).write_bytes(log)
    assert json.loads(run("inspect", "--json", path).stdout)["panic"] == panic
    assert "\x1b" not in run("inspect", path).stdout


def test_log_beside_that_nobody_can_read(vmcore: Path) -> None:
    os.mkfifo(vmcore.with_name("vmcore-dmesg.txt"))
    assert json.loads(run("inspect", "--json", vmcore).stdout)["panic"] is None


def test_inspect_warns_of_altered_data(altered: Path) -> None:
    result = run("inspect", "--json", altered)
    assert result.returncode == 0
    warning = f"vmcoredd: {altered}: device dump nic does not match the SHA-256 in its manifest\n"
    assert result.stderr == warning
    assert json.loads(result.stdout)["device_dumps"][1]["verified"] is False


def test_inspect_warns_of_damaged_manifest(tmp_path: Path) -> None:
    notes = device_dump(b"nic", DATA) + device_dump(MANIFEST_NAME.encode(), MANIFEST[:-9])
    result = run("inspect", "--json", Core(notes).write(tmp_path / "vmcore"))
    assert result.returncode == 0
    assert result.stderr.startswith(f"vmcoredd: {tmp_path}/vmcore: vmcoredd_manifest: not JSON")
    assert result.stderr.count("\n") == 1
    assert json.loads(result.stdout)["device_dumps"][0]["verified"] is None

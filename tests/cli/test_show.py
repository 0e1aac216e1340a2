# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd show: what device dumps say, on any machine, whatever is in them."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.decoders.archives import archive
from tests.decoders.builtin import test_nvme
from tests.lib.elf_writer import Core, device_dump, note
from tests.lib.shell_program import shell_program
from tests.lib.tools import require
from tests.lib.vmcoredd import run, run_in_terminal
from vmcoredd_daemon.manifest import MANIFEST_NAME, Failure, Manifest

HARMLESS = b"a log of some lines, most of which are harmless, as logs are\n" * 8
ESCAPES = HARMLESS + b"\x1b]0;title\x07\x1b[31mred\r\n\xc2\x9b31m \xe2\x80\xaertl <script>\n"


def vmcore_of(tmp_path: Path, dumps: dict[str, bytes], *failures: Failure) -> Path:
    notes = b"".join(device_dump(name.encode(), data) for name, data in dumps.items())
    if failures:
        notes += device_dump(MANIFEST_NAME.encode(), Manifest("test", 1, (), failures).dump())
    return Core(notes).write(tmp_path / "vmcore")


def show(*arguments: object) -> str:
    result = run("show", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    return str(result.stdout)


def test_one_line_for_each(tmp_path: Path) -> None:
    healthy, failing = (data for _, data in test_nvme.samples())
    failed = Failure("fc", "fc: qla", "org.vmcoredd1.Error.TimedOut", "device dump fc: did not answer", 5)
    vmcore = vmcore_of(
        tmp_path,
        {"nvme_0000:01:00.0": healthy, "nvme_0000:02:00.0": failing, "notes": b"a log\nof two lines\n"},
        failed,
    )
    lines = show(vmcore).splitlines()
    assert [line.split()[0] for line in lines[:5]] == [
        "NAME",
        "nvme_0000:01:00.0",
        "nvme_0000:02:00.0",
        "notes",
        "fc",
    ]
    assert "media error" not in lines[1]
    assert "media error" in lines[2]
    assert lines[4].endswith("FAILED")
    assert lines[5:] == ["  did not answer"]
    narrow = run_in_terminal(40, "show", vmcore)
    assert max(map(len, narrow)) <= 40


def test_details_of_one_and_of_a_member(tmp_path: Path) -> None:
    name, failing = test_nvme.samples()[1]
    vmcore = vmcore_of(tmp_path, {name: failing, "other": b"text"})
    text = show(vmcore, name)
    assert f"Name: {name}\n" in text
    assert "Attention: " in text
    assert "smart_log" in text
    assert "error_log" in text
    # By index, by a glob, and only one member.
    assert show(vmcore, "0") == text == show(vmcore, "nvme*")
    member = show(vmcore, f"{name}/smart_log")
    assert "Percentage Used" in member
    assert "error_log\n" not in member
    both = show(vmcore, "*")
    assert f"Name: {name}\n" in both
    assert "Name: other\n" in both


def test_json_has_names_kinds_and_fields(tmp_path: Path) -> None:
    name, failing = test_nvme.samples()[1]
    vmcore = vmcore_of(tmp_path, {name: failing})
    (dump,) = json.loads(show(vmcore, "--json"))
    assert (dump["name"], dump["index"], dump["kind"]) == (name, 0, "nvme")
    assert dump["findings"]
    sections = {section["name"]: section for section in dump["sections"]}
    assert isinstance(sections["smart_log"]["fields"]["percentage_used"], int)


def test_raw_and_hex(tmp_path: Path) -> None:
    packed = archive({"a": b"first", "deep/b": bytes(range(32))})
    vmcore = vmcore_of(tmp_path, {"acme": packed})
    raw = run("show", vmcore, "acme", "--raw", text=False).stdout
    # The kernel's format has no true size: zeros fill the page.
    assert raw.startswith(packed)
    assert raw.strip(b"\0") == packed.strip(b"\0")
    assert run("show", vmcore, "acme/a", "--raw", text=False).stdout == b"first"
    assert show(vmcore, "acme/deep/b", "--hex") == (
        "00000000: 0001 0203 0405 0607 0809 0a0b 0c0d 0e0f  ................\n"
        "00000010: 1011 1213 1415 1617 1819 1a1b 1c1d 1e1f  ................\n"
    )
    result = run("show", vmcore, "--raw")
    assert (result.returncode, result.stderr) == (
        2,
        "vmcoredd: --hex and --raw need NAME (see vmcoredd show --help)\n",
    )


@pytest.mark.parametrize("name", ["missing", "acme/missing", "acme/", "9", "text/member"])
def test_what_is_not_there(tmp_path: Path, name: str) -> None:
    vmcore = vmcore_of(tmp_path, {"acme": archive({"a": b"1"}), "text": b"text"})
    result = run("show", vmcore, name)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"vmcoredd: {vmcore}: has no ")
    assert result.stderr.count("\n") == 1


def test_parts_that_there_are_are_named(tmp_path: Path) -> None:
    vmcore = vmcore_of(tmp_path, {"acme": archive({"first": b"1", "second": b"2"})})
    assert run("show", vmcore, "acme/third").stderr == (
        f"vmcoredd: {vmcore}: has no acme/third: it has first, second\n"
    )


def test_incomplete_device_dump_says_so(truncated: Path) -> None:
    assert re.search(r"^nic .*; it is not complete: late$", show(truncated), re.MULTILINE)
    assert "Problem: it is not complete: late\n" in show(truncated, "nic")
    assert json.loads(show(truncated, "--json"))[0]["problems"][0] == "it is not complete: late"


def test_altered_data_are_not_shown_in_silence(altered: Path) -> None:
    result = run("show", altered)
    assert (result.returncode, result.stderr) == (
        0,
        f"vmcoredd: {altered}: device dump nic does not match the SHA-256 in its manifest\n",
    )


def test_columns_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    name, failing = test_nvme.samples()[1]
    vmcore = vmcore_of(tmp_path, {name: failing})
    narrow = run_in_terminal(80, "show", "--no-pager", vmcore, f"{name}/error_log")
    assert re.fullmatch(r"  \(\d+ columns left out: see --full\)", narrow[-1])
    assert not any("see --full" in line for line in show(vmcore, f"{name}/error_log").splitlines())


def test_vmcore_without_device_dumps(tmp_path: Path) -> None:
    vmcore = Core(note(1, b"registers")).write(tmp_path / "vmcore")
    result = run("show", vmcore)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"vmcoredd: {vmcore}: has no device dumps\n"


def test_content_takes_no_command_of_the_terminal(tmp_path: Path) -> None:
    dumps = {"text": ESCAPES, "archive": archive({"log": ESCAPES}), "\x1b[31m": b"named"}
    vmcore = vmcore_of(tmp_path, dumps)
    for arguments in ([], ["*"]):
        text = show(vmcore, *arguments)
        assert all(letter.isprintable() for letter in text.replace("\n", ""))
    assert r"\x1b[31mred" in show(vmcore, "text")


def test_decoder_of_a_collector(tmp_path: Path) -> None:
    program = shell_program(tmp_path / "decode", "echo 'Acme HBA'; echo '<3>queue 7 stalled'; tr a-z A-Z")
    directory = tmp_path / "collectors.d"
    directory.mkdir()
    (directory / "hba.conf").write_text(f"[Collector]\nExec=true\nDecode={program}\n")
    (directory / "broken.conf").write_text("[Collector]\nColour=red\n")
    vmcore = vmcore_of(tmp_path, {"hba_0000:03:00.0": b"firmware"})
    config = tmp_path / "vmcoredd.conf"
    assert "Acme HBA, queue 7 stalled" in show(vmcore, "--config", config)
    assert "FIRMWARE" in show(vmcore, "hba*", "--config", config)


def test_stock_tool_where_it_says_more(tmp_path: Path) -> None:
    require("lspci")
    device = "00:1f.0 ISA bridge\n00: 86 80 18 29 07 01 00 02 02 00 01 06 00 00 80 00\n\n"
    (tmp_path / "pci").write_text(device)
    vmcore = vmcore_of(tmp_path, {"other": b""})
    assert run("attach", vmcore, f"pci={tmp_path}/pci").returncode == 0
    text = show(vmcore, "pci")
    assert "lspci -nnvvv" in text
    assert "Intel Corporation" in text
    nothing = subprocess.run(
        ["env", "PATH=/nonexistent", *run.__globals__["VMCOREDD"], "show", str(vmcore), "pci"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Intel Corporation" not in nothing.stdout
    assert "8086" in nothing.stdout

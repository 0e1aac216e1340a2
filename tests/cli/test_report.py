# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd report: the command, and its page in a real browser."""

import gzip
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.decoders.builtin import test_nvme as nvme
from tests.lib.browser import browser
from tests.lib.elf_writer import Core, device_dump
from tests.lib.html_page import parse
from tests.lib.reports import DECODED, report
from tests.lib.tools import require
from tests.lib.vmcore_dumps import DATA, DUMP
from tests.lib.vmcoredd import VMCOREDD, run
from tests.picture import write_vmcore
from vmcoredd_daemon.cli.report.page import page
from vmcoredd_daemon.decoders.decoded import Section, Text
from vmcoredd_daemon.manifest import MANIFEST_NAME, Manifest, ManifestMachine

TAB, ENTER = "\ue004", "\ue007"
"""Keys, as WebDriver has them."""

LOG = b"[ 1.0] Hardware name: ACME Server, BIOS 1\n[ 2.0] Kernel panic - not syncing: <b>Fatal</b>\n"


def text_of(vmcore: Path, *options: str) -> str:
    result = run("report", vmcore, *options)
    assert (result.returncode, result.stderr) == (0, "")
    return parse(result.stdout).text


def with_manifest(path: Path, manifest: Manifest, **dumps: bytes) -> Path:
    notes = [device_dump(name.encode(), data) for name, data in dumps.items()]
    return Core(b"".join([*notes, device_dump(MANIFEST_NAME.encode(), manifest.dump())])).write(path)


def test_page_is_a_file_of_its_owner(vmcore: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    output.write_text("old")
    result = run("report", vmcore, "-o", output)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert output.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "vmcore"]
    text = parse(output.read_text()).text
    for said in (
        "vmcore, 20.0K, elf",
        "Written1970-01-01 00:00:00 UTC by vmcoredd 0",
        "Failedwifi\\x1blate",
        "nic5.0K",
    ):
        assert said in text
    assert run("report", "--output=-", vmcore).stdout == output.read_text()


def test_log_beside_the_vmcore_is_in_the_page(vmcore: Path) -> None:
    vmcore.with_name("vmcore-dmesg.txt").write_bytes(LOG)
    text = text_of(vmcore)
    assert "Crash reportKernel panic - not syncing: <b>Fatal</b>" in text
    assert "HardwareACME Server, BIOS 1" in text
    assert "[ 2.0] Kernel panic - not syncing: <b>Fatal</b>" in text


def test_altered_device_dump_comes_first(altered: Path) -> None:
    text = text_of(altered)
    assert "Alterednicthe data are not those that were collected" in text
    assert text.index("nic5.0Kaltered") < text.index("kernel3.9K")


def test_real_vmcore(source_vmcore: Path) -> None:
    text = text_of(source_vmcore)
    for said in ("Died2026-11-23 20:05:21 UTC", "Kernel6.1.0-56-cloud-amd64, x86_64", "191.4M, 58.6M in the file"):
        assert said in text


def test_compressed_vmcore(vmcore: Path, tmp_path: Path) -> None:
    packed = tmp_path / "vmcore.gz"
    packed.write_bytes(gzip.compress(vmcore.read_bytes()))
    assert "vmcore.gz, 20.0K, elf" in text_of(packed)
    refused = run("report", packed, "-o", packed)
    assert (refused.returncode, refused.stderr) == (2, f"vmcoredd: {packed}: is the vmcore itself\n")


def test_commands_in_the_page_extract(vmcore: Path) -> None:
    text = text_of(vmcore)
    found = re.findall(r"vmcoredd extract vmcore (nic|0|kernel) -o (?:nic|kernel)", text)
    assert sorted(found) == ["kernel", "nic"]
    for name in found:
        words = shlex.split(f"extract vmcore {name} -o {name}")
        subprocess.run([*VMCOREDD, *words], cwd=vmcore.parent, check=True)
    assert vmcore.with_name("nic").read_bytes() == DATA


def test_host_is_that_of_the_manifest_or_of_the_directory(tmp_path: Path) -> None:
    machine = ManifestMachine(host="db-07", vendor="ACME", product="Server", bios="1.2", serial="SN0815-4711")
    known = with_manifest(tmp_path / "vmcore", Manifest("x", 1, (), machine=machine))
    text = text_of(known)
    assert "Crash of db-07" in text
    assert "HardwareACME Server, BIOS 1.2" in text
    for name, host in (
        ("web-1-2026-11-24-10:20:30", "web-1"),
        ("web-1-2026-11-24-10-20-30.2", "web-1"),
        ("127.0.0.1-2026-11-24-10:20:30", None),
        ("web-1", None),
    ):
        directory = tmp_path / name
        directory.mkdir()
        text = text_of(with_manifest(directory / "vmcore", Manifest("x", 1, ())))
        assert (f"Crash of {host}" if host else "Crash report") in text


def test_redacted_page_has_no_serial_number(tmp_path: Path) -> None:
    name, archive = nvme.samples()[1]
    entry = replace(DUMP, name=name, size=len(archive), collector="nvme: x", error=f"{nvme.SERIAL} on db-07")
    machine = ManifestMachine(host="db-07", serial="SN0815-4711", machine_id="0123456789abcdef" * 2)
    manifest = Manifest("vmcoredd on db-07", 3, (replace(entry, state="truncated"),), machine=machine)
    vmcore = with_manifest(tmp_path / "vmcore", manifest, **{name: archive})
    vmcore.with_name("vmcore-dmesg.txt").write_bytes(b"nvme0: SN0815-4711 " + nvme.SERIAL.encode() + b" db-07\n")
    plain, redacted = (run("report", vmcore, *option).stdout for option in ([], ["--redact"]))
    for secret in (nvme.SERIAL, "SN0815-4711", "db-07"):
        assert secret in plain
        assert secret.lower() not in redacted.lower()
    assert "Samsung SSD 980 PRO 1TB" in redacted
    assert "[redacted]" in redacted


def test_vmcore_of_the_picture(tmp_path: Path) -> None:
    vmcore = write_vmcore(tmp_path)
    plain, redacted = (text_of(vmcore, *option) for option in ([], ["--redact"]))
    for said in (
        *("Failedipmi0/dev/ipmi0: no answer within 5 s", "Truncateddevlink_0000:02:00.0it had more than 1.0M"),
        *("Findingnvme_0000:03:00.083 C (warning from 82 C), 2 media errors", "Findingpci1 link below its width"),
        *("Dell Inc. PowerEdge R750/0JM3W2, BIOS 2.14.2", "pmtno such device"),
    ):
        assert said in plain
        assert said in redacted
    for secret in (nvme.SERIAL, "db-07", "52:54:00:12:34:56", "33221100-5544-7766-8899-aabbccddeeff"):
        assert secret in plain
        assert secret.lower() not in redacted.lower()


def test_page_is_not_for_a_terminal(vmcore: Path) -> None:
    master, terminal = pty.openpty()
    try:
        result = run("report", vmcore, stdout=terminal)
    finally:
        os.close(terminal)
        os.close(master)
    assert result.returncode == 2
    assert result.stderr == "vmcoredd: this is not for a terminal: redirect the output, or use -o FILE\n"


def test_vmcore_is_not_replaced(vmcore: Path) -> None:
    before = vmcore.read_bytes()
    (link := vmcore.with_name("link")).symlink_to(vmcore)
    for output in (vmcore, link):
        result = run("report", vmcore, "-o", output)
        assert (result.returncode, result.stderr) == (2, f"vmcoredd: {output}: is the vmcore itself\n")
    assert vmcore.read_bytes() == before


def test_link_keeps_leading_to_its_target(vmcore: Path) -> None:
    target = vmcore.with_name("target.html")
    target.write_text("old")
    (link := vmcore.with_name("link.html")).symlink_to(target)
    assert run("report", vmcore, "-o", link).returncode == 0
    assert link.is_symlink()
    assert target.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("missing/report.html", "No such file or directory"),
        (".", "Is a directory"),
        ("/dev/full", "No space left on device"),
    ],
)
def test_output_that_cannot_be_written(vmcore: Path, output: str, reason: str) -> None:
    path = vmcore.parent / output
    result = run("report", vmcore, "-o", path)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"vmcoredd: {path}: {reason}\n")
    assert list(vmcore.parent.iterdir()) == [vmcore]


def test_reader_that_is_gone(vmcore: Path) -> None:
    command = shlex.join([sys.executable, "-m", "vmcoredd_daemon.cli", "report", str(vmcore)])
    shell = f"{command} | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    # It may have written all before.
    assert result.returncode in {0, 141}
    assert result.stderr == ""


def test_file_that_is_no_vmcore_leaves_no_page(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    result = run("report", tmp_path / "text", "-o", tmp_path / "report.html")
    assert result.returncode == 1
    assert result.stderr.startswith(f"vmcoredd: {tmp_path / 'text'}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_several_vmcores_have_several_pages(vmcore: Path, tmp_path: Path) -> None:
    crashes = tmp_path / "crashes"
    for name in ("db7-2026-11-23-20:05:21", "db8-2026-11-24-10:00:00"):
        (crashes / name).mkdir(parents=True)
        shutil.copy(vmcore, crashes / name / "vmcore")
    (crashes / "db9-2026-11-25-11:00:00").mkdir()
    broken = crashes / "db9-2026-11-25-11:00:00" / "vmcore"
    broken.write_bytes(vmcore.read_bytes()[:100])
    pages = tmp_path / "pages"
    result = run("report", crashes, "-C", pages)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert str(broken) in result.stderr
    names = ["db7-2026-11-23-20:05:21.html", "db8-2026-11-24-10:00:00.html"]
    assert result.stdout.splitlines() == [f"{pages}/{name}: {crashes}/{name[:-5]}/vmcore" for name in names]
    assert sorted(os.listdir(pages)) == names
    assert "db8" in (pages / names[1]).read_text()
    broken.unlink()
    assert run("report", crashes, vmcore, "--redact", "-C", tmp_path / "redacted").returncode == 0
    assert sorted(os.listdir(tmp_path / "redacted")) == ["crash-0.html", "crash-1.html", "crash-2.html"]
    result = run("report", crashes)
    assert (result.returncode, result.stdout) == (2, "")
    assert "name a directory for them, with -C DIR" in result.stderr
    # A directory with one of them is as good as its name.
    assert run("report", crashes / names[0][:-5], "-o", tmp_path / "one.html").returncode == 0


def test_pages_replace_files_only(vmcore: Path, tmp_path: Path) -> None:
    """The directory may be /tmp, with links of other users."""
    crashes, pages, victim = tmp_path / "crashes", tmp_path / "pages", tmp_path / "victim"
    victim.write_text("precious")
    pages.mkdir()
    for name in ("a" * 200, "fifo", "link", "z"):
        (crashes / name).mkdir(parents=True)
        shutil.copy(vmcore, crashes / name / "vmcore")
    os.mkfifo(pages / "fifo.html")
    (pages / "link.html").symlink_to(victim)
    result = run("report", crashes, "-C", pages)
    assert result.returncode == 1
    assert [line.partition(": is not")[2] for line in result.stderr.splitlines()] == [
        " a regular file, and is not replaced"
    ] * 2
    assert victim.read_text() == "precious"
    assert len(result.stdout.splitlines()) == 2
    assert (pages / "z.html").exists()


def test_page_in_a_browser(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=document.title='hacked'><script>document.title='hacked'</script>\u202e" * 9
    sections = (*DECODED.sections, Section(hostile, (Text(hostile, f"{hostile}\n" * 99),)))
    path = tmp_path / "report.html"
    path.write_text("".join(page(report(64, replace(DECODED, sections=sections)))))
    with browser(tmp_path) as chromium:
        chromium.open(path)
        assert chromium.evaluate("document.title") == "Crash of db-07.example.com 2026-11-23 20:05:21 UTC"
        assert chromium.evaluate("document.scripts.length + document.images.length") == 0
        assert chromium.evaluate("performance.getEntriesByType('resource').length") == 0
        assert chromium.evaluate("document.compatMode") == "CSS1Compat"

        # The keyboard: the first key leads to the content, others to what is folded.
        chromium.press(TAB)
        assert chromium.evaluate("document.activeElement.textContent") == "Skip to the content"
        assert chromium.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
        chromium.press(ENTER)
        assert chromium.evaluate("location.hash") == "#content"
        assert chromium.evaluate("document.querySelectorAll('details[open]').length") == 0
        for _ in range(200):
            chromium.press(TAB)
            if chromium.evaluate("document.activeElement.tagName") == "SUMMARY":
                break
        assert chromium.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        chromium.press(ENTER)
        assert chromium.evaluate("document.querySelectorAll('details[open]').length") == 1
        assert chromium.evaluate("document.activeElement.parentElement.open")

        # Colours as the reader prefers them.
        paper = "getComputedStyle(document.documentElement).backgroundColor"
        assert chromium.evaluate(paper) == "rgb(255, 255, 255)"
        chromium.emulate(prefers_color_scheme="dark")
        assert chromium.evaluate(paper) == "rgb(18, 22, 28)"

        # Nothing is wider than a narrow screen, but what scrolls in itself; not even what is unfolded.
        chromium.resize(320, 600)
        chromium.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert chromium.evaluate("document.documentElement.scrollWidth") == 320
        assert chromium.evaluate("document.title").startswith("Crash of")
        assert chromium.messages() == []


def test_paper_has_what_is_folded(tmp_path: Path) -> None:
    require("pdftotext")
    path = tmp_path / "report.html"
    path.write_text("".join(page(report())))
    with browser(tmp_path) as chromium:
        chromium.open(path)
        (tmp_path / "report.pdf").write_bytes(chromium.pdf())
    made = subprocess.run(["pdftotext", "-layout", tmp_path / "report.pdf", "-"], capture_output=True, check=True)
    text = made.stdout.decode()
    for folded in ("line 0", "5B2QGXA7", "52:54:00:12:34:57", "second on db-07.example.com"):
        assert folded in text

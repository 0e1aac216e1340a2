# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd crashes: which files in a directory are vmcores, and what is said of each."""

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.lib.attaching import attach_data
from tests.lib.elf_writer import Core, Load, device_dump, note
from tests.lib.flattened_writer import flatten
from tests.lib.kdump_writer import Kdump, notes
from tests.lib.tools import require
from tests.lib.vmcore_dumps import MANIFEST
from tests.lib.vmcoredd import VMCOREDD, run, run_in_terminal
from vmcoredd_daemon.cli import crashes
from vmcoredd_daemon.cli.arguments import parse
from vmcoredd_daemon.manifest import MANIFEST_NAME

LOG = "[1.0] Kernel panic - not syncing: Fatal exception\n"


def elf(release: str, crash_time: int, *dumps: bytes) -> bytes:
    """Return notes: device dumps and VMCOREINFO."""
    info = f"OSRELEASE={release}\nCRASHTIME={crash_time}\n".encode()
    return b"".join(dumps) + note(0, info, b"VMCOREINFO\0")


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """What our service, kdump-utils and kdump-tools leave, from the oldest to the newest by their crashes."""
    target = tmp_path / "crash"
    ours = target / "node1-2026-11-24-10:20:30"
    ours.mkdir(parents=True)
    dumps = [device_dump(b"nic", b"n"), device_dump(b"nvme_0000:03:00.0", b"d")]
    Core(
        elf("6.1.0", seconds("2026-11-24 10:20:00"), *dumps, device_dump(MANIFEST_NAME.encode(), MANIFEST))
    ).write(ours / "vmcore")
    (ours / "vmcore-dmesg.txt").write_text(LOG)
    (ours / "vmcoredd-journal.json").write_text("{}\n")
    fedora = target / "127.0.0.1-2026-11-25-00:00:01"
    fedora.mkdir()
    Kdump(notes()).write(fedora / "vmcore")
    (fedora / "vmcore-dmesg.txt").write_text("nothing\n")
    (fedora / "kexec-dmesg.log").write_text(LOG)
    debian = target / "202611260102"
    debian.mkdir()
    inner = Kdump(notes("little", device_dump(b"hba", b"h"))).pack()
    packed = flatten([(0, inner)])
    (debian / "dump.202611260102").write_bytes(packed)
    (debian / "dmesg.202611260102").write_text(LOG)
    spool = target / ".vmcoredd-spool" / "vmcore"
    spool.parent.mkdir()
    Core(elf("6.1.0", 5)).write(spool)
    return target


def listed(*arguments: object) -> list[dict[str, Any]]:
    """In this process: a start of the program takes longer than all else here."""
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        status = crashes.run(parse(["crashes", "--json=lines", *map(str, arguments)]))
    assert (status, errors.getvalue()) == (0, "")
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_table_of_what_all_three_leave(target: Path) -> None:
    result = run("crashes", target)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.replace(f"{target}/", "") == (
        "TIME                 HOST   KERNEL  PANIC            DUMPS  FAILED  FILE\n"
        "2026-11-24 10:20:00  node1  6.1.0   Fatal exception      2       1  node1-2026-11-24-10:20:30/vmcore\n"
        "2026-11-25 00:00:01  host   6.1.0   -                    0       -  "
        "127.0.0.1-2026-11-25-00:00:01/vmcore\n"
        "2026-11-26 01:02:00  host   6.1.0   Fatal exception      1       -  202611260102/dump.202611260102\n"
    )


def test_json(target: Path) -> None:
    first, second, third = listed(target)
    path = target / "node1-2026-11-24-10:20:30" / "vmcore"
    assert first == {
        "path": str(path),
        "size": path.stat().st_size,
        "crash_usec": seconds("2026-11-24 10:20:00") * 10**6,
        "host": "node1",
        "kernel_release": "6.1.0",
        "panic": "Kernel panic - not syncing: Fatal exception",
        "format": "elf",
        "machine": "x86_64",
        "file_compression": None,
        "incomplete": False,
        "device_dumps": [{"name": "nic"}, {"name": "nvme_0000:03:00.0"}],
        "failures": [{"name": "wifi\x1b"}],
        "error": None,
    }
    assert (second["format"], second["device_dumps"], second["failures"]) == ("kdump", [], None)
    assert (third["format"], third["device_dumps"]) == ("flattened", [{"name": "hba"}])
    assert json.loads(run("crashes", "--json", target).stdout) == [first, second, third]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["node1", "127.0.0.1", "202611260102"]),
        (["-r"], ["202611260102", "127.0.0.1", "node1"]),
        (["--reverse"], ["202611260102", "127.0.0.1", "node1"]),
        (["-1"], ["202611260102"]),
        (["-1r"], ["202611260102"]),
        (["--since=2026-11-25"], ["127.0.0.1", "202611260102"]),
        (["--since", "2026-11-25 00:00:01"], ["127.0.0.1", "202611260102"]),
        (["--since", "2026-11-25 00:00:02"], ["202611260102"]),
        (["--until=2026-11-25"], ["node1"]),
        (["--since=2026-11-24", "--until=2026-11-25T12:00", "-1"], ["127.0.0.1"]),
        (["--host=node?"], ["node1"]),
        (["--dump=nvme*"], ["node1"]),
        (["--dump=[nh]*"], ["node1", "202611260102"]),
        (["--host", "node1", "--dump", "nic"], ["node1"]),
    ],
)
def test_which_are_asked_for(target: Path, options: list[str], expected: list[str]) -> None:
    rows = listed(target, *options)
    assert [Path(row["path"]).parent.name.partition("-")[0] for row in rows] == expected


@pytest.mark.parametrize(
    "options", [["--host=nobody"], ["--dump=vmcoredd_manifest"], ["--since=2100-01-01"], ["--host="]]
)
def test_none_is_found(target: Path, options: list[str]) -> None:
    result = run("crashes", target, *options)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"vmcoredd: no vmcore that matches is found in {target}\n"
    assert run("crashes", "--json", target, *options).stdout == "[]\n"


def test_target_of_the_configuration(target: Path, tmp_path: Path) -> None:
    config = tmp_path / "vmcoredd.conf"
    config.write_text(f"[Vmcoredd]\nTarget={target}\n")
    assert listed("--config", config) == listed(target)
    config.write_text("[Vmcoredd]\nTarget=nowhere\n")
    result = run("crashes", "--config", config)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)


@pytest.mark.parametrize("options", [["--since", "soon"], ["--until=2026-02-30"], ["--since="]])
def test_what_is_no_time(options: list[str]) -> None:
    result = run("crashes", *options)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert " is not a time, as 2026-11-24 10:20, today, -2h or '2 days ago' (see " in result.stderr


def test_other_files_are_skipped_unless_they_are_named(target: Path) -> None:
    before = listed(target)
    other = target / "other"
    other.mkdir()
    for name in ("vmcore", "dump.1", "vmcore.flat", "vmcore-dmesg-incomplete.txt"):
        (other / name).write_text("hello")
    (other / "vmcore-empty").touch()
    shutil.copy("/bin/true", other / "dump")
    os.mkfifo(other / "vmcore.pipe")
    (other / "vmcore.link").symlink_to("nowhere")
    (other / "vmcore.loop").symlink_to("vmcore.loop")
    (other / "vmcore-dmesg.txt.gz").write_bytes(gzip.compress(LOG.encode()))
    (other / "vmcore-dmesg.txt.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    # What a process leaves is called otherwise.
    shutil.copy(before[0]["path"], other / "core")
    result = run("crashes", "--json=lines", target)
    # A loop of links is an error of the file system.
    assert result.stderr == f"vmcoredd: {other}/vmcore.loop: Too many levels of symbolic links\n"
    assert [json.loads(line) for line in result.stdout.splitlines()] == before
    (other / "vmcore.loop").unlink()
    assert listed(target) == before
    result = run(
        "crashes", "--json=lines", other / "vmcore", *(row["path"] for row in before), other / "vmcore.pipe"
    )
    assert [json.loads(line) for line in result.stdout.splitlines()] == before
    assert result.returncode == 1
    assert result.stderr == (
        f"vmcoredd: {other}/vmcore: is neither ELF, kdump-compressed nor flattened\n"
        f"vmcoredd: {other}/vmcore.pipe: is neither a regular file nor a block device\n"
    )


def test_deep_directories_and_links_that_lead_back(target: Path) -> None:
    before = listed(target)
    (target / "again").symlink_to(".")
    (target / "node1-2026-11-24-10:20:30" / "up").symlink_to("..")
    assert listed(target) == before
    below = target.parent / "a" / "b"
    below.mkdir(parents=True)
    target.rename(below / "crash")
    assert len(listed(target.parent)) == 3
    for name in "cdef":
        (target.parent / name).mkdir()
        (target.parent / "a").rename(target.parent / name / "a")
        (target.parent / name).rename(target.parent / "a")
    result = run("crashes", target.parent)
    assert (result.returncode, result.stderr) == (
        1,
        f"vmcoredd: {target.parent}: is a directory without a vmcore\n",
    )


def test_what_may_not_be_read_is_said(target: Path) -> None:
    secret = target / "127.0.0.1-2026-11-25-00:00:01"
    secret.chmod(0)
    (target / "202611260102" / "dump.202611260102").chmod(0)
    unprivileged = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    require(*unprivileged[:1])
    command = [*unprivileged, *VMCOREDD, "crashes", str(target)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == f"vmcoredd: {secret}: Permission denied; and 1 more\n"
    assert len(result.stdout.splitlines()) == 2
    secret.chmod(0o700)


def test_what_is_incomplete_or_damaged_has_a_state(target: Path) -> None:
    whole = target / "node1-2026-11-24-10:20:30" / "vmcore"
    cut = target / "node2-2026-12-01-10:20:30"
    cut.mkdir()
    (cut / "vmcore").write_bytes(whole.read_bytes()[:0x1800])
    (cut / "vmcore-incomplete").touch()
    (target / "202611260102" / "dump-incomplete").write_bytes(bytes(5000))
    no_memory = Core(elf("6.1.0", seconds("2026-12-02")), (Load(0x1000, b"x" * 9000),)).write(cut / "vmcore.1")
    os.truncate(no_memory, no_memory.stat().st_size - 8192)
    Kdump(notes(), status=8).write(cut / "vmcore.2")
    result = run("crashes", "--no-legend", target)
    assert (result.returncode, result.stderr) == (0, "")
    states = {Path(line.split()[-1]).name: line.split()[-2] for line in result.stdout.splitlines()}
    assert states == {
        "vmcore": "damaged",
        "vmcore-incomplete": "incomplete",
        "vmcore.1": "incomplete",
        "vmcore.2": "incomplete",
        "dump-incomplete": "incomplete",
        "dump.202611260102": "-",
    }
    row = next(row for row in listed(target) if row["path"] == str(cut / "vmcore"))
    assert (row["host"], row["kernel_release"], row["device_dumps"], row["incomplete"]) == (
        "node2",
        None,
        None,
        False,
    )
    assert row["crash_usec"] == seconds("2026-12-01 10:20:30") * 10**6
    assert row["error"].startswith("PT_NOTE ends at ")
    result = run("crashes", "--json", cut / "vmcore")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"vmcoredd: {cut}/vmcore: PT_NOTE ends at ")


@pytest.mark.parametrize(
    ("directory", "host", "moment"),
    [
        ("node-1.example.org-2026-11-24-10:20:30", "node-1.example.org", "2026-11-24 10:20:30"),
        ("node1-2026-11-24-10-20-30", "node1", "2026-11-24 10:20:30"),
        ("node1-2026-11-24-10:20:30.1", "node1", "2026-11-24 10:20:30"),
        ("127.0.0.1-2026-11-24-10:20:30", None, "2026-11-24 10:20:30"),
        ("192.0.2.7-2026-11-24-10:20:30", "192.0.2.7", "2026-11-24 10:20:30"),
        ("202611241020", None, "2026-11-24 10:20:00"),
        ("node1-202611241020", "node1", "2026-11-24 10:20:00"),
        ("2026-11-24-10:20", None, "2026-11-24 10:20:00"),
        ("node1-2026-13-24-10:20:30", None, "2001-09-09 01:46:40"),
        ("elsewhere", None, "2001-09-09 01:46:40"),
    ],
)
def test_host_and_time_in_the_name_of_the_directory(
    tmp_path: Path, directory: str, host: str, moment: str
) -> None:
    (tmp_path / directory).mkdir()
    path = Core(note(1, b"registers")).write(tmp_path / directory / "vmcore")
    os.utime(path, (10**9, 10**9))
    (row,) = listed(path)
    assert (row["host"], row["crash_usec"]) == (host, seconds(moment) * 10**6)
    assert json.loads(run("crashes", "--json", "vmcore", cwd=path.parent).stdout) == [{**row, "path": "vmcore"}]


def test_host_that_the_kernel_had_is_believed_before_the_directory(tmp_path: Path) -> None:
    (tmp_path / "localhost-2026-11-24-10:20:30").mkdir()
    vmcore = bytearray(Kdump(notes()).pack())
    vmcore[12:17] = b"Linux"
    vmcore[77:142] = b"node9".ljust(65, b"\0")
    path = tmp_path / "localhost-2026-11-24-10:20:30" / "vmcore"
    path.write_bytes(vmcore)
    assert listed(path)[0]["host"] == "node9"
    vmcore[77:142] = b"(none)".ljust(65, b"\0")
    path.write_bytes(vmcore)
    assert listed(path)[0]["host"] is None


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
@pytest.mark.parametrize("flat", [False, True])
def test_compressed(target: Path, suffix: str, compress: Callable[[bytes], bytes], flat: bool) -> None:
    whole = target / "202611260102" / "dump.202611260102"
    if not flat:
        Kdump(notes("little", device_dump(b"hba", b"h"))).write(whole)
    (before,) = listed(whole)
    packed = whole.with_name(whole.name + suffix)
    # What comes behind the notes is not looked at, and may be damaged.
    packed.write_bytes(compress(whole.read_bytes() + os.urandom(1 << 20))[:-20])
    whole.unlink()
    (row,) = listed(packed.parent)
    compression = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz"}[suffix]
    assert row == {**before, "path": str(packed), "size": packed.stat().st_size, "file_compression": compression}
    assert "  compressed  " in run("crashes", packed).stdout


@pytest.mark.parametrize(("suffix", "magic"), [(".lz4", b"\x04\x22\x4d\x18"), (".zst", b"\x28\xb5\x2f\xfd")])
def test_compressed_by_what_python_cannot_read(target: Path, suffix: str, magic: bytes) -> None:
    packed = target / "202611260102" / f"dump.202611260102{suffix}"
    packed.write_bytes(magic)
    (row,) = (row for row in listed(target) if row["path"] == str(packed))
    assert (row["panic"], row["kernel_release"], row["device_dumps"]) == (LOG[6:].strip(), None, None)
    assert row["crash_usec"] == seconds("2026-11-26 01:02") * 10**6


def test_device_dumps_of_a_compressed_file_that_lie_behind_are_not_known(target: Path) -> None:
    path = target / "node1-2026-11-24-10:20:30" / "vmcore"
    Core(elf("6.1.0", 5, device_dump(b"big", bytes(1 << 20)))).write(path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    (row,) = listed(path)
    assert (row["device_dumps"], row["file_compression"], row["host"]) == (None, "gzip", "node1")


def test_hostile_names(tmp_path: Path) -> None:
    directory = tmp_path / "\x1b[2J-2026-11-24-10:20:30"
    directory.mkdir()
    info = note(0, b"OSRELEASE=\x1b]0;owned\x07\nCRASHTIME=99999999999\n", b"VMCOREINFO\0")
    Core(device_dump(b"\x1b[31m", b"x") + info).write(directory / "vmcore.\n")
    (directory / "vmcore-dmesg.txt").write_bytes(b"BUG: \x1b[2J\xff\n")
    result = run("crashes", tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    assert result.stdout.count("\n") == 2
    (row,) = listed(tmp_path)
    assert (row["device_dumps"], row["host"]) == ([{"name": "\x1b[31m"}], "\x1b[2J")


def test_table_fits_a_terminal(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = run_in_terminal(80, "crashes", "crash")
    assert max(map(len, lines)) <= 80
    # What the next command needs stays as it is.
    assert lines[1].endswith("crash/node1-2026-11-24-10:20:30/vmcore")
    assert lines[0].split() == ["TIME", "PANIC", "FILE"]


def test_no_other_program_is_started_and_time_and_memory_are_small(source_vmcore: Path, tmp_path: Path) -> None:
    """A vmcore of any size: only its headers are read."""
    large = tmp_path / "vmcore"
    Core(elf("6.1.0", 5), (Load(0x1000, b"x", filesz=1 << 40),)).write(large)
    paths = [large]
    for number in range(20):
        directory = tmp_path / f"node{number}-2026-11-24-10:20:30"
        directory.mkdir()
        os.link(source_vmcore, directory / "vmcore")
        paths.append(directory / "vmcore")
    program = (
        "import sys; from pathlib import Path; from vmcoredd_daemon.cli.main import main;"
        "import subprocess; subprocess.Popen = None;"
        "status = main(sys.argv[1:]);"
        "sys.stderr.write(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]);"
        "sys.exit(status or bool({'asyncio', 'dbus_next'} & set(sys.modules)) * 100)"
    )
    started = time.monotonic()
    command = [sys.executable, "-c", program, "crashes", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert time.monotonic() - started < 20
    assert len(result.stdout.splitlines()) == 22
    assert result.returncode == 0
    assert int(result.stderr) < 64 << 10


def test_real_vmcore_in_every_format(source_vmcore: Path, tmp_path: Path) -> None:
    require("makedumpfile")
    shutil.copy(source_vmcore, tmp_path / "vmcore")
    attach_data(tmp_path / "vmcore", nic=b"registers")
    for options, name in ((["-l", "-d", "31"], "vmcore.kdump"), (["-F", "-l", "-d", "31"], "vmcore.flat")):
        with (tmp_path / name).open("wb") as out:
            command = ["makedumpfile", "--non-mmap", *options, tmp_path / "vmcore"]
            if "-F" not in options:
                command.append(tmp_path / name)
                (tmp_path / name).unlink()
            subprocess.run(command, stdout=out, stderr=subprocess.DEVNULL, check=True)
    rows = listed(tmp_path)
    assert {row["format"] for row in rows} == {"elf", "kdump", "flattened"}
    for row in rows:
        assert (row["crash_usec"], row["kernel_release"]) == (1795464321 * 10**6, "6.1.0-56-cloud-amd64")
        assert (row["device_dumps"], row["failures"]) == ([{"name": "nic"}], [])


@pytest.mark.timeout(30)
def test_hole_behind_a_compressed_file_takes_no_time(tmp_path: Path) -> None:
    """GzipFile would skip its zeros one by one."""
    path = tmp_path / "vmcore.gz"
    path.write_bytes(gzip.compress(b"no vmcore"))
    os.truncate(path, 1 << 40)
    result = run("crashes", tmp_path)
    assert (result.returncode, result.stdout) == (1, "")

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compressed vmcores, as the programs write them that kdump-tools runs, and zstd."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lib.elf_writer import Core, device_dump
from tests.lib.flattened_writer import makedumpfile_flat
from tests.lib.resources import tmpfs
from tests.lib.tools import require
from tests.lib.vmcore_dumps import DATA
from tests.lib.vmcoredd import VMCOREDD, run
from tests.lib.waiting import wait_until

PROGRAMS = {"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "lz4": ".lz4", "zstd": ".zst"}
OF_THE_LIBRARY = ("gzip", "bzip2", "xz")


def compress(program: str, *paths: Path, options: tuple[str, ...] = ()) -> Path:
    """Return a file with all of *paths*, one stream after the other."""
    require(program)
    packed = paths[0].with_name(paths[0].name + PROGRAMS[program])
    with packed.open("wb") as out:
        for path in paths:
            subprocess.run([program, *options, "-c", path], stdout=out, stderr=subprocess.DEVNULL, check=True)
    return packed


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_reader_reads_it_as_the_file_that_it_was(vmcore: Path, program: str, tmp_path: Path) -> None:
    packed = compress(program, vmcore)
    known = json.loads(run("inspect", "--json", vmcore).stdout)
    result = run("inspect", "--json", packed)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {**known, "path": str(packed)}
    for words in (["inspect"], ["inspect", "--map"], ["verify"]):
        mine, plain = run(*words, packed), run(*words, vmcore)
        assert mine.stdout == plain.stdout.replace(str(vmcore), str(packed))
        assert mine.returncode == plain.returncode
    assert run("extract", packed, "nic", text=False).stdout == DATA
    assert run("extract", packed, "--all", tmp_path / "out").returncode == 0
    assert (tmp_path / "out" / "nic").read_bytes() == DATA


@pytest.mark.parametrize("program", PROGRAMS)
def test_dump_of_kdump_tools(source_vmcore: Path, tmp_path: Path, program: str) -> None:
    flat = makedumpfile_flat(source_vmcore, tmp_path / "dump.202611232005", "-l", "-d", "31")
    (tmp_path / "dmesg.202611232005").write_text("Kernel panic - not syncing: of the log\n")
    known = json.loads(run("inspect", "--json", flat).stdout)
    packed = compress(program, flat, options=("-1",))
    assert json.loads(run("inspect", "--json", packed).stdout) == {**known, "path": str(packed)}
    assert known["panic"] == "Kernel panic - not syncing: of the log"


def test_panic_is_read_in_what_it_was(source_vmcore: Path, tmp_path: Path) -> None:
    require("makedumpfile")
    packed = compress("gzip", Path(shutil.copy(source_vmcore, tmp_path / "vmcore")), options=("-1",))
    found = json.loads(run("inspect", "--json", packed).stdout)
    assert found["panic"] == "Kernel panic - not syncing: sysrq triggered crash"


@pytest.mark.parametrize("program", PROGRAMS)
def test_many_streams(vmcore: Path, program: str, tmp_path: Path) -> None:
    """pigz, pbzip2, pixz and split(1) make such files."""
    whole, parts = vmcore.read_bytes(), [tmp_path / f"part{number}" for number in range(3)]
    for number, part in enumerate(parts):
        part.write_bytes(whole[number * 7000 : (number + 1) * 7000])
    packed = compress(program, *parts)
    if program == "xz":
        # Stream Padding, a multiple of four bytes.
        packed.write_bytes(packed.read_bytes() + bytes(8))
    assert run("extract", packed, "nic", text=False).stdout == DATA


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("command", [["inspect"], ["verify"], ["extract", "0"]])
def test_what_is_cut_off(tmp_path: Path, program: str, command: list[str]) -> None:
    vmcore = Core(device_dump(b"nic", os.urandom(300_000))).write(tmp_path / "vmcore")
    packed = compress(program, vmcore)
    os.truncate(packed, packed.stat().st_size - 3000)
    result = run(command[0], packed, *command[1:])
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"vmcoredd: {packed}: its {program} data are damaged: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("program", OF_THE_LIBRARY)
def test_damage_everywhere(vmcore: Path, program: str) -> None:
    packed = compress(program, vmcore)
    whole = packed.read_bytes()
    places = [*range(8, 30), *range(30, len(whole), len(whole) // 8), *range(len(whole) - 12, len(whole))]
    program_text = (
        "import sys; from vmcoredd_daemon.cli.main import main; from pathlib import Path\n"
        "path, whole = Path(sys.argv[1]), Path(sys.argv[1]).read_bytes()\n"
        "for place in map(int, sys.argv[2:]):\n"
        "    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1:])\n"
        "    print('status', main(['verify', str(path)]))\n"
    )
    command = [sys.executable, "-c", program_text, packed, *map(str, places)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    # A name or a time in the header of gzip is nothing that anyone checks.
    assert result.stdout.count("status 1\n") >= len(places) - (8 if program == "gzip" else 0)
    assert "internal error" not in result.stderr
    for line in result.stderr.splitlines():
        assert line.startswith(f"vmcoredd: {packed}: ")


@pytest.mark.parametrize("program", ["lz4", "zstd"])
def test_no_program_that_unpacks_it(vmcore: Path, program: str) -> None:
    packed = compress(program, vmcore)
    result = run("inspect", packed, env={**os.environ, "PATH": "/nowhere"})
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"vmcoredd: {packed}: is compressed by {program}, which cannot be run (No such file or directory): "
        f"unpack it by {program} -d\n"
    )


def test_other_files_that_are_compressed(tmp_path: Path) -> None:
    path = tmp_path / "vmcore.gz"
    path.write_bytes(gzip.compress(b"hello"))
    result = run("inspect", path)
    assert result.stderr == f"vmcoredd: {path}: is neither ELF, kdump-compressed nor flattened\n"
    # One level only: a forged file could nest them without end.
    path.write_bytes(gzip.compress(gzip.compress(b"hello")))
    assert run("inspect", path).stderr == result.stderr


def with_zeros(program: str, vmcore: Path, megabytes: int) -> Path:
    """Return a compressed file with that many zeros behind the vmcore."""
    zeros = vmcore.with_name("zeros")
    zeros.write_bytes(bytes(1 << 24))
    packed_zeros = compress(program, zeros, options=("-1",)).read_bytes()
    packed = compress(program, vmcore)
    with packed.open("ab") as file:
        for _ in range(megabytes // 16):
            file.write(packed_zeros)
    return packed


def test_zeros_take_no_space_and_no_memory(vmcore: Path) -> None:
    packed = with_zeros("gzip", vmcore, 256)
    program = (
        "import os, sys; from pathlib import Path; from vmcoredd_daemon.cli.operands import open_vmcore\n"
        "with open_vmcore(sys.argv[1]) as fd:\n"
        "    print(os.fstat(fd).st_size, os.fstat(fd).st_blocks * 512, os.fstat(fd).st_nlink)\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, packed], capture_output=True, text=True, check=True)
    size, blocks, links, memory_used = map(int, done.stdout.split())
    assert size == vmcore.stat().st_size + (256 << 20)
    assert blocks < 1 << 20
    assert links == 0
    assert memory_used < 64 << 10


def test_no_space(tmp_path: Path) -> None:
    vmcore = Core(device_dump(b"nic", os.urandom(32 << 20))).write(tmp_path / "vmcore")
    packed = compress("gzip", vmcore, options=("-1",))
    with tmpfs(tmp_path / "small", 40 << 20) as small:
        result = run("inspect", packed, env={**os.environ, "TMPDIR": str(small)})
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith(f"vmcoredd: {packed}: is compressed by gzip, and {small} has only ")
    assert result.stderr.endswith(
        "M left to unpack it: set TMPDIR to a directory with more space, or unpack it with gzip -d\n"
    )


def test_disk_that_takes_no_more(tmp_path: Path) -> None:
    packed = compress("gzip", Core(device_dump(b"nic", os.urandom(1 << 20))).write(tmp_path / "vmcore"))
    limited = ["bash", "-c", 'ulimit -f 100; trap "" XFSZ; exec "$@"', "-", *VMCOREDD, "inspect", packed]
    result = subprocess.run(
        limited, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}, check=False
    )
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith(f"vmcoredd: {tmp_path}: cannot unpack {packed} there: set TMPDIR to ")
    assert result.stderr.endswith(": File too large\n")


@pytest.mark.parametrize("program", ["gzip", "zstd"])
def test_stopped_in_the_middle_it_leaves_nothing(vmcore: Path, tmp_path: Path, program: str) -> None:
    packed = with_zeros(program, vmcore, 32 << 10)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [*VMCOREDD, "inspect", packed]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        wait_until(lambda: any(f"{temporary}/" in name for name in opened(process.pid)))
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (-signal.SIGTERM, b"", b"")
    assert os.listdir(temporary) == []


def opened(pid: int) -> list[str]:
    names = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            names.append(os.readlink(fd))
        except OSError:
            continue
    return names


@pytest.mark.parametrize("program", PROGRAMS)
def test_attach_refuses_it(vmcore: Path, tmp_path: Path, program: str) -> None:
    packed = compress(program, vmcore)
    (tmp_path / "data").write_bytes(DATA)
    before = packed.read_bytes()
    result = run("attach", packed, f"new={tmp_path}/data")
    assert (result.returncode, result.stdout) == (1, "")
    reason = f"is compressed by {program}: unpack it with {program} -d, and compress it afterwards"
    assert result.stderr == f"vmcoredd: {packed}: {reason}\n"
    assert packed.read_bytes() == before


def test_extract_never_replaces_the_compressed_vmcore(vmcore: Path, tmp_path: Path) -> None:
    packed = compress("gzip", vmcore)
    before = packed.read_bytes()
    os.link(packed, tmp_path / "same")
    for path in (packed, tmp_path / "same"):
        result = run("extract", packed, "nic", "-o", path)
        assert (result.returncode, result.stderr) == (2, f"vmcoredd: {path}: is the vmcore itself\n")
    assert packed.read_bytes() == before

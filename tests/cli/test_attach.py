# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd attach, as a process."""

import contextlib
import hashlib
import json
import os
import random
import re
import shlex
import signal
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lib.elf_writer import Core, Load, device_dump
from tests.lib.flattened_writer import flatten
from tests.lib.kdump_writer import Kdump, notes
from tests.lib.loops import run_coroutine
from tests.lib.paths import DATA_DIRECTORY
from tests.lib.vmcoredd import VMCOREDD, run
from tests.lib.waiting import wait_until
from vmcoredd_daemon.dumps.commit import Commit
from vmcoredd_daemon.dumps.spool import Spool
from vmcoredd_daemon.manifest import ManifestDump
from vmcoredd_daemon.note import ByteOrder


@pytest.fixture
def vmcore(tmp_path: Path) -> Path:
    return Kdump(notes()).write(tmp_path / "vmcore")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(b"registers")
    return path


def test_attach_inspect_and_extract(vmcore: Path, data: Path) -> None:
    assert run("attach", vmcore, f"nic={data}", "input=-", input="text").returncode == 0
    found = json.loads(run("inspect", "--json", vmcore).stdout)
    assert (found["format"], found["machine"]) == ("kdump", "x86_64")
    dumps = [(dump["name"], dump["size"], dump["verified"]) for dump in found["device_dumps"][:-1]]
    assert dumps == [("nic", 9, True), ("input", 4, True)]
    assert run("extract", vmcore, "nic").stdout == "registers"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The spool of a service that was not stopped, with two device dumps; the note of disk keeps its size."""
    return run_coroutine(spooled(tmp_path / "spool", {"nic": b"registers", "disk": bytes(5000)}))


async def spooled(path: Path, dumps: dict[str, bytes]) -> Path:
    spool = Spool.open(path, 4096, ByteOrder.LITTLE, 0)
    for number, (name, data) in enumerate(dumps.items(), 1):
        buffer = await spool.create(name, 1 << 16)
        os.pwrite(buffer.fd, data, buffer.offset)

        def describe(sha256: str, name: str = name, data: bytes = data) -> ManifestDump:
            assert sha256 == hashlib.sha256(data).hexdigest()
            return ManifestDump(name, len(data), 1 << 16, sha256, "helper", "truncated", 1, 2, "more")

        os.close((await spool.commit(Commit(number, buffer, len(data), describe, name == "disk"))).fd)
    spool.close()
    (directory,) = path.iterdir()
    return directory


@pytest.mark.parametrize("stream", [False, True])
def test_files_of_the_spool(vmcore: Path, spool: Path, stream: bool) -> None:
    files = sorted(spool.iterdir())
    before = [file.read_bytes() for file in files]
    if stream:
        flat = flatten([(0, vmcore.read_bytes())])
        vmcore.write_bytes(run("attach", "--stream", *files, input=flat, text=False).stdout)
    else:
        assert run("attach", vmcore, *files, "more=-", input="text").stderr == ""
    found = json.loads(run("inspect", "--json", vmcore).stdout)["device_dumps"]
    keys = ("name", "size", "verified", "collector", "state", "started_usec", "finished_usec")
    assert [[dump[key] for key in keys] for dump in found[:2]] == [
        ["nic", 9, True, "helper", "truncated", 1, 2],
        ["disk", 5000, True, "helper", "truncated", 1, 2],
    ]
    assert [dump["buffer_size"] + 64 for dump in found[:2]] == [4096, (1 << 16) + 4096]
    assert run("extract", vmcore, "nic").stdout == "registers"
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: os.truncate(file, 100), "the note at offset 0x0 ends at 0x1000, beyond its segment"),
        (lambda file: os.truncate(file, 0), "does not begin with an NT_VMCOREDD note"),
        (
            lambda file: file.write_bytes(file.read_bytes().replace(b"regis", b"REGIS")),
            "no longer matches its SHA-256",
        ),
        (lambda file: file.write_bytes(b"text"), "does not begin with an NT_VMCOREDD note"),
        (lambda file: file.unlink(), "No such file or directory"),
        (lambda file: (file.unlink(), file.mkdir()), "Is a directory"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "does not begin with an NT_VMCOREDD note"),
    ],
)
def test_damaged_files_of_the_spool(
    vmcore: Path, spool: Path, damage: Callable[[Path], object], message: str, stream: bool
) -> None:
    damage(spool / "000001.note")
    before = flatten([(0, vmcore.read_bytes())]) if stream else vmcore.read_bytes()
    options = ["--stream"] if stream else [vmcore]
    result = run("attach", *options, *sorted(spool.iterdir()), spool / "000001.note", input=before, text=False)
    assert result.returncode == 1
    assert result.stderr.decode().startswith(f"vmcoredd: {spool / '000001.note'}: ")
    assert message in result.stderr.decode()
    assert result.stderr.count(b"\n") == 1
    assert (result.stdout if stream else vmcore.read_bytes()) == before


@pytest.mark.parametrize("stream", [False, True])
def test_file_of_the_spool_of_another_machine(vmcore: Path, stream: bool) -> None:
    """It was written by a capture kernel with pages of 16 KiB; those of the vmcore have 4 KiB."""
    note = DATA_DIRECTORY / "arm64-16k.note"
    if stream:
        flat = flatten([(0, vmcore.read_bytes())])
        vmcore.write_bytes(run("attach", "--stream", note, input=flat, text=False).stdout)
    else:
        assert run("attach", vmcore, note).stderr == ""
    dump, _ = json.loads(run("inspect", "--json", vmcore).stdout)["device_dumps"]
    assert dump["verified"]
    assert dump["buffer_size"] + 64 == 4096


def test_file_of_the_spool_of_the_other_byte_order(vmcore: Path, spool: Path) -> None:
    note = spool / "000001.note"
    data = note.read_bytes()
    note.write_bytes(struct.pack(">III", *struct.unpack_from("<III", data)) + data[12:])
    assert run("attach", vmcore, note).stderr == ""
    assert run("extract", vmcore, "nic").stdout == "registers"


def test_name_and_file_with_equals_signs(vmcore: Path, tmp_path: Path) -> None:
    (tmp_path / "a=b").write_bytes(b"x")
    result = run("attach", vmcore, f"nic={tmp_path}/a=b")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "the following arguments are required: NAME=FILE or SPOOL.note (see vmcoredd attach --help)"),
        (["nic"], 2, "'nic' is not NAME=FILE"),
        (["nic="], 2, "'nic=' is not NAME=FILE"),
        (["a=-", "b=-"], 2, "standard input can be only one device dump"),
        (["=FILE"], 1, "the dump name is empty"),
        (["nic=missing"], 1, "missing: No such file or directory"),
        (["nic=/"], 1, "/: is a directory"),
        (["nic=/dev/null"], 1, "device dump nic: /dev/null has no bytes"),
        (["nic=vmcore"], 1, "vmcore: is the vmcore itself"),
        (["nic=FILE", "nic=FILE"], 1, "dump name nic is given twice"),
        (["vmcoredd_manifest=FILE"], 1, "dump name vmcoredd_manifest is reserved for the manifest"),
        (["\x1b=FILE"], 1, r"dump name '\x1b' has characters other than printable ASCII"),
    ],
)
def test_wrong_arguments(vmcore: Path, tmp_path: Path, arguments: list[str], status: int, message: str) -> None:
    (tmp_path / "FILE").write_bytes(b"x")
    before = vmcore.read_bytes()
    result = run("attach", "vmcore", *arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (status, "", f"vmcoredd: {message}\n")
    assert vmcore.read_bytes() == before


@pytest.mark.parametrize("stream", [False, True])
def test_fifo_is_refused(vmcore: Path, tmp_path: Path, stream: bool) -> None:
    """It has no writer, and may never get one."""
    os.mkfifo(tmp_path / "fifo")
    where = ["--stream"] if stream else [vmcore]
    flattened = flatten([(0, vmcore.read_bytes())]) if stream else b""
    result = run("attach", *where, f"nic={tmp_path}/fifo", timeout=20, input=flattened, text=False)
    assert result.returncode == 1
    assert f"{tmp_path}/fifo: is a FIFO, give its data on standard input" in result.stderr.decode()


def test_pipe_of_a_shell(vmcore: Path) -> None:
    command = ["bash", "-c", f"{shlex.join(VMCOREDD)} attach {vmcore} nic=<(sleep 0.3; echo slow)"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert run("extract", vmcore, "nic").stdout == "slow\n"


def test_warning_of_an_incomplete_file(tmp_path: Path, data: Path) -> None:
    vmcore = Kdump(notes(), status=9).write(tmp_path / "vmcore")
    result = run("attach", vmcore, f"nic={data}")
    assert result.returncode == 0
    assert result.stderr == f"vmcoredd: {vmcore}: is incomplete: makedumpfile had no space for all of the memory\n"


def test_file_that_was_cut_off(tmp_path: Path, data: Path) -> None:
    vmcore = Kdump(notes()).write(tmp_path / "vmcore")
    os.truncate(vmcore, vmcore.stat().st_size - 1)
    result = run("attach", vmcore, f"nic={data}")
    assert result.returncode == 1
    assert re.fullmatch(
        rf"vmcoredd: {vmcore}: is cut off: its page data end at 0x\w+, before the last page; "
        "attach --force attaches anyway\n",
        result.stderr,
    )
    assert run("attach", "--force", vmcore, f"nic={data}").returncode == 0
    assert run("verify", vmcore).returncode == 1
    assert run("attach", "--stream", "--force", f"nic={data}").returncode == 2


def test_dev_full_is_no_place_for_messages(vmcore: Path, data: Path) -> None:
    with open("/dev/full", "w") as full:
        assert run("attach", vmcore, f"nic={data}", stdout=full, stderr=full).returncode == 0
        assert run("attach", vmcore, "nic=/", stdout=full, stderr=full).returncode == 1


def has_open(pid: int, path: Path) -> bool:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        # The starting interpreter opens and closes files all the time.
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/{pid}/fd/{fd}") == str(path):
                return True
    return False


@pytest.mark.parametrize("flattened", [False, True])
def test_interrupted_while_it_reads(vmcore: Path, tmp_path: Path, flattened: bool) -> None:
    if flattened:
        vmcore.write_bytes(flatten([(0, vmcore.read_bytes())]))
    before = vmcore.read_bytes()
    # In the background of a shell, it is ignored.
    command = [*VMCOREDD, "attach", str(vmcore), "nic=-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        # It has the lock as soon as it waits for its input.
        wait_until(lambda: has_open(process.pid, vmcore))
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (-signal.SIGINT, "")
    assert vmcore.read_bytes() == before
    assert os.listdir(tmp_path) == ["vmcore"]


# ru_maxrss would be that of pytest, from which the process was forked.
LIMITED = (
    "import re, sys; from vmcoredd_daemon.cli.main import main; status = main(sys.argv[1:]);"
    "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]); sys.exit(status)"
)


@pytest.mark.parametrize("seed", range(4))
def test_broken_files_need_no_memory_and_stay_as_they_are(tmp_path: Path, data: Path, seed: int) -> None:
    chance = random.Random(seed)
    huge = {"offset_note": 8192, "size_note": (20 << 30) - 8192} if seed == 0 else {"bitmap_blocks": 0x7FFFFFFF}
    vmcore = Kdump(notes("little", device_dump(b"kernel", b"k"))).but(**huge).write(tmp_path / "vmcore")
    if seed > 1:
        broken = bytearray(vmcore.read_bytes())
        for _ in range(20):
            broken[chance.randrange(4096, 8192)] ^= 1 << chance.randrange(8)
        vmcore.write_bytes(broken[: chance.randrange(4000, len(broken))])
    before, size = vmcore.read_bytes(), 20 << 30
    if seed < 2:
        os.truncate(vmcore, size)
    command = [*VMCOREDD[:1], "-c", LIMITED, "attach", str(vmcore), f"nic={data}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if seed != 0 or result.returncode:
        assert result.returncode == 1
        assert result.stderr.startswith(f"vmcoredd: {vmcore}: ")
        assert result.stderr.count("\n") == 1
        with vmcore.open("rb") as file:
            assert file.read(len(before)) == before
    assert int(result.stdout) < 64 << 10


def test_flattened(vmcore: Path, tmp_path: Path, data: Path) -> None:
    vmcore.write_bytes(flatten([(0, vmcore.read_bytes())]))
    result = run("attach", vmcore, f"nic={data}", "input=-", input="text")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    found = json.loads(run("inspect", "--json", vmcore).stdout)
    assert (found["format"], [dump["size"] for dump in found["device_dumps"][:-1]]) == ("flattened", [9, 4])
    assert run("extract", vmcore, "nic").stdout == "registers"
    before = vmcore.read_bytes()
    result = run("attach", vmcore, f"nic={vmcore}")
    assert (result.returncode, result.stderr) == (1, f"vmcoredd: {vmcore}: is the vmcore itself\n")
    os.truncate(vmcore, len(before) - 1)
    result = run("attach", vmcore, f"nic={data}")
    end = len(before) - 1
    message = f"vmcoredd: {vmcore}: is truncated: it ends at offset {end:#x}, without an end mark\n"
    assert (result.returncode, result.stderr) == (1, message)
    assert vmcore.read_bytes() == before[:-1]
    assert sorted(os.listdir(tmp_path)) == ["data", "vmcore"]


def test_elf(tmp_path: Path, data: Path) -> None:
    vmcore = Core(notes(), (Load(0x1000, b"memory"),)).write(tmp_path / "vmcore")
    assert run("attach", vmcore, f"nic={data}").returncode == 0
    assert run("extract", vmcore, "nic").stdout == "registers"

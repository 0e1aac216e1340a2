# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd extract, on files of every kind."""

import errno
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lib.elf_writer import Core, device_dump, note
from tests.lib.vmcore_dumps import DATA, GOLDEN, MANIFEST
from tests.lib.vmcoredd import VMCOREDD, run
from vmcoredd_daemon.manifest import MANIFEST_NAME


@pytest.mark.parametrize("wanted", ["nic", "1"])
def test_extract_writes_the_true_bytes(vmcore: Path, tmp_path: Path, wanted: str) -> None:
    output = tmp_path / "out" / "nic.bin"
    output.parent.mkdir()
    result = run("extract", vmcore, wanted, "-o", output)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert output.read_bytes() == DATA
    assert os.listdir(output.parent) == ["nic.bin"]
    assert output.stat().st_mode & 0o777 == 0o600


def test_extract_to_standard_output(vmcore: Path) -> None:
    for more in ([], ["-o", "-"]):
        result = run("extract", vmcore, "nic", *more, text=False)
        assert (result.returncode, result.stdout, result.stderr) == (0, DATA, b"")


def test_extract_all_bytes_where_the_true_size_is_not_known() -> None:
    result = run("extract", GOLDEN, "golden_b", text=False)
    assert result.stdout == bytes((i * 7 + 3) & 0xFF for i in range(4032))
    result = run("extract", GOLDEN, "golden_c", text=False)
    assert result.stdout == bytes((i * 7 + 3) & 0xFF for i in range(4033)).ljust(8128, b"\0")


def test_extract_by_a_name_that_two_have() -> None:
    result = run("extract", GOLDEN, "golden_a")
    assert result.returncode == 1
    assert result.stderr.endswith("several device dumps are named golden_a, choose by index: 0, 5\n")
    assert run("extract", GOLDEN, "5", text=False).stdout[:8192] == bytes((i * 7 + 3) & 0xFF for i in range(8192))


def test_extract_altered_data_writes_it_and_fails(altered: Path, tmp_path: Path) -> None:
    result = run("extract", altered, "nic", "-o", tmp_path / "nic")
    assert result.returncode == 1
    reason = "device dump nic is extracted, but its SHA-256 differs from the manifest"
    assert result.stderr == f"vmcoredd: {altered}: {reason}\n"
    assert (tmp_path / "nic").read_bytes() == b"!" + DATA[1:]


def test_extract_replaces_a_file_behind_a_link(vmcore: Path, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "link").symlink_to("old")
    assert run("extract", vmcore, "nic", "-o", tmp_path / "link").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "old").read_bytes() == DATA


def test_extract_into_a_device_leaves_it_a_device(vmcore: Path) -> None:
    assert run("extract", vmcore, "nic", "-o", "/dev/null").returncode == 0
    assert Path("/dev/null").is_char_device()
    result = run("extract", vmcore, "nic", "-o", "/dev/full")
    assert (result.returncode, result.stderr) == (1, f"vmcoredd: /dev/full: {os.strerror(errno.ENOSPC)}\n")


def test_extract_never_replaces_its_own_vmcore(vmcore: Path, tmp_path: Path) -> None:
    before = vmcore.read_bytes()
    os.link(vmcore, tmp_path / "same")
    result = run("extract", vmcore, "nic", "-o", tmp_path / "same")
    assert (result.returncode, result.stderr) == (2, f"vmcoredd: {tmp_path}/same: is the vmcore itself\n")
    assert vmcore.read_bytes() == before


def test_extract_leaves_no_part_of_a_file(vmcore: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "nic"
    output.parent.mkdir()
    output.write_bytes(b"old")
    # Files may have 1000 bytes at most: the write fails in its middle.
    limited = ["bash", "-c", 'ulimit -f 1; trap "" XFSZ; exec "$@"', "-", *VMCOREDD]
    result = subprocess.run([*limited, "extract", vmcore, "nic", "-o", output], capture_output=True, check=False)
    assert result.returncode == 1
    assert result.stderr.decode() == f"vmcoredd: {output}: {os.strerror(errno.EFBIG)}\n"
    assert output.read_bytes() == b"old"
    assert os.listdir(output.parent) == ["nic"]


def test_extract_refuses_a_terminal(vmcore: Path) -> None:
    controller, terminal = os.openpty()
    try:
        result = run("extract", vmcore, "nic", stdout=terminal)
    finally:
        os.close(controller)
        os.close(terminal)
    assert result.returncode == 2
    assert result.stderr == "vmcoredd: a device dump is not for a terminal: redirect the output, or use -o FILE\n"


def test_extract_takes_little_memory_and_no_bus(tmp_path: Path) -> None:
    path, size = tmp_path / "vmcore", 512 << 20
    Core(device_dump(b"large", b"x")).write(path)
    with path.open("r+b") as file:
        file.seek(64 + 32)
        file.write(struct.pack("<QQ", size, size))
        file.seek(4096 + 4)
        file.write(struct.pack("<I", size - 64 + 44))
        file.truncate(4096 + size)
    program = (
        "import sys; from pathlib import Path; from vmcoredd_daemon.cli.main import main;"
        "status = main(sys.argv[1:]);"
        "sys.stderr.write(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]);"
        "sys.exit(status or bool({'asyncio', 'dbus_next'} & set(sys.modules)) * 100)"
    )
    command = [sys.executable, "-c", program, "extract", str(path), "large"]
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 0
    assert int(result.stderr) < 64 << 10


def test_extract_all(vmcore: Path, tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    result = run("extract", vmcore, "--all", directory)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert files == {"kernel": b"k".ljust(4032, b"\0"), "nic": DATA, MANIFEST_NAME: MANIFEST}


def test_extract_all_of_nothing(tmp_path: Path) -> None:
    path = Core(note(1, b"r" * 336)).write(tmp_path / "vmcore")
    result = run("extract", path, "--all", tmp_path / "out")
    assert (result.returncode, result.stderr) == (1, f"vmcoredd: {path}: has no device dumps\n")
    assert not (tmp_path / "out").exists()


def test_extract_all_of_names_that_are_no_file_names(tmp_path: Path) -> None:
    names = [b"a/b", b"..", b"", b"\x1b\n", b"same", b"same"]
    path = Core(b"".join(device_dump(name, b"x") for name in names)).write(tmp_path / "vmcore")
    assert run("extract", path, "--all", tmp_path / "out").returncode == 0
    expected = [r"a\x2fb", r"\x2e.", "device_dump", r"\x1b\n", "same", "same.5"]
    assert sorted(os.listdir(tmp_path / "out")) == sorted(expected)


def test_extract_all_of_names_that_meet(tmp_path: Path) -> None:
    """The name that is made for the second one may be that of another."""
    names = [b"a", b"a.2", b"a", b"a.2.2", b"b/", rb"b\x2f"]
    path = Core(b"".join(device_dump(name, b"%d" % index) for index, name in enumerate(names))).write(
        tmp_path / "vmcore"
    )
    assert run("extract", path, "--all", tmp_path / "out").returncode == 0
    files = {file.name: file.read_bytes()[:1] for file in (tmp_path / "out").iterdir()}
    assert files == {
        "a": b"0",
        "a.2": b"1",
        "a.2.2": b"2",
        "a.2.2.3": b"3",
        r"b\x2f": b"4",
        r"b\x2f.5": b"5",
    }


def test_extract_all_replaces_files_only(vmcore: Path, tmp_path: Path) -> None:
    """In /tmp, another user's link could lead elsewhere, and the writer of a FIFO waits for ever."""
    (tmp_path / "elsewhere").write_bytes(b"old")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kernel").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "out" / "nic")
    (tmp_path / "out" / MANIFEST_NAME).write_bytes(b"old")
    result = run("extract", vmcore, "--all", tmp_path / "out", timeout=20)
    reason = "is not a regular file, and is not replaced"
    assert (result.returncode, result.stderr) == (
        1,
        f"vmcoredd: {tmp_path}/out/kernel: {reason}\nvmcoredd: {tmp_path}/out/nic: {reason}\n",
    )
    assert (tmp_path / "elsewhere").read_bytes() == b"old"
    assert (tmp_path / "out" / "kernel").is_symlink()
    assert (tmp_path / "out" / "nic").is_fifo()
    assert (tmp_path / "out" / MANIFEST_NAME).read_bytes() == MANIFEST


@pytest.mark.skipif(
    os.geteuid() != 0 or Path("/proc/sys/fs/protected_symlinks").read_text() != "1\n",
    reason="needs root, and fs.protected_symlinks",
)
def test_extract_follows_no_link_that_the_kernel_would_not(vmcore: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    (tmp_path / "tmp" / "link").symlink_to(tmp_path / "elsewhere")
    os.lchown(tmp_path / "tmp" / "link", 65534, 65534)
    result = run("extract", vmcore, "nic", "-o", tmp_path / "tmp" / "link")
    assert (result.returncode, result.stderr) == (1, f"vmcoredd: {tmp_path}/tmp/link: Permission denied\n")
    assert not (tmp_path / "elsewhere").exists()


def test_extract_all_goes_on_where_one_is_altered(altered: Path, tmp_path: Path) -> None:
    result = run("extract", altered, "--all", tmp_path / "out")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "device dump nic is extracted, but" in result.stderr
    assert len(os.listdir(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "the following arguments are required: NAME|INDEX or --all DIR (see vmcoredd extract --help)"),
        (["nic", "--all", "out"], "argument --all: not allowed with NAME|INDEX"),
        (
            ["-o", "x", "--all", "out"],
            "argument --all: not allowed with argument -o/--output (see vmcoredd extract --help)",
        ),
    ],
)
def test_extract_one_or_all(vmcore: Path, arguments: list[str], reason: str) -> None:
    result = run("extract", vmcore, *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"vmcoredd: {reason}\n")


def test_extract_all_without_room_leaves_no_directory(vmcore: Path, tmp_path: Path) -> None:
    # Files may have 1024 bytes at most: the first device dump has more.
    limited = ["bash", "-c", 'ulimit -f 1; trap "" XFSZ; exec "$@"', "-", *VMCOREDD]
    command = [*limited, "extract", vmcore, "--all", tmp_path / "out"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (
        1,
        f"vmcoredd: {tmp_path}/out/kernel: {os.strerror(errno.EFBIG)}\n",
    )
    assert os.listdir(tmp_path) == ["vmcore"]
    (tmp_path / "out").mkdir()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
    assert os.listdir(tmp_path / "out") == []


def test_long_name_that_is_not_there(vmcore: Path) -> None:
    assert run("extract", vmcore, "x" * 3000).stderr == f"vmcoredd: {vmcore}: has no device dump {'x' * 80}\n"


def test_extract_all_into_a_file(vmcore: Path) -> None:
    result = run("extract", vmcore, "--all", vmcore)
    assert (result.returncode, result.stderr) == (1, f"vmcoredd: {vmcore}: {os.strerror(errno.EEXIST)}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_in_the_middle_it_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    path, size = tmp_path / "vmcore", 4 << 30
    Core(device_dump(b"large", b"x")).write(path)
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), struct.pack("<QQ", size - 4096, size - 4096), 64 + 32)
        os.pwrite(file.fileno(), struct.pack("<I", size - 4096 - 64 + 44), 4096 + 4)
        file.truncate(size)
    output = tmp_path / "out" / "large"
    output.parent.mkdir()
    command = [*VMCOREDD, "extract", path, "large"]
    # A shell starts its background jobs with SIGINT ignored, and these tests may be in one.
    with subprocess.Popen([*command, "-o", output], stderr=subprocess.PIPE) as process:
        while not os.listdir(output.parent):
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait(60) == -number
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert os.listdir(output.parent) == []

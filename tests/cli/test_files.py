# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd inspect and extract, on files of every kind."""

import errno
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import VMCOREDD, run
from tests.elf_writer import Core, device_dump
from tests.service import Service
from tests.tools import require
from vmcoredd_daemon import __version__
from vmcoredd_daemon.manifest import MANIFEST_NAME, Failure, Manifest, ManifestDump

GOLDEN = Path(__file__).parent.parent / "data" / "proc-vmcore-prefix.bin"
DATA = bytes(range(256)) * 20
SHA256 = hashlib.sha256(DATA).hexdigest()
DUMP = ManifestDump("nic", len(DATA), 8192, SHA256, ":1.5/nic", "complete", 1, 2)
FAILURE = Failure("wifi\x1b", ":1.9/wifi", "org.vmcoredd1.Error.TimedOut", "late", 5)
MANIFEST = Manifest("vmcoredd 0", 3, (DUMP,), (FAILURE,)).dump()


@pytest.fixture
def vmcore(tmp_path: Path) -> Path:
    """A kernel's device dump, one of ours and the manifest."""
    notes = [
        device_dump(b"kernel", b"k"),
        device_dump(b"nic", DATA),
        device_dump(MANIFEST_NAME.encode(), MANIFEST),
    ]
    return Core(b"".join(notes)).write(tmp_path / "vmcore")


@pytest.fixture
def altered(vmcore: Path) -> Path:
    with vmcore.open("r+b") as file:
        file.seek(vmcore.read_bytes().index(DATA))
        file.write(b"!")
    return vmcore


def test_inspect_prints_a_table(vmcore: Path) -> None:
    result = run("inspect", vmcore)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "elf, 64 bits, little endian, x86_64, 3 device dumps\n"
        "\n"
        "INDEX  OFFSET  SIZE  BYTES  VERIFIED  NAME\n"
        "    0  0x1040  4032      -  -         kernel\n"
        "    1  0x2040  8128   5120  yes       nic\n"
        f"    2  0x4040  4032  {len(MANIFEST):5}  -         vmcoredd_manifest\n"
        "\n"
        "FAILED    COLLECTOR  MESSAGE\n"
        "wifi\\x1b  :1.9/wifi  late\n"
    )


def test_inspect_prints_json(vmcore: Path) -> None:
    result = run("inspect", "--json", vmcore)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {
        "format": "elf",
        "class": 64,
        "endian": "little",
        "machine": "x86_64",
        "device_dumps": [
            _dump(0, "kernel", 0x1040, 4032, None, None, None),
            _dump(1, "nic", 0x2040, 8128, 5120, SHA256, True),
            _dump(2, MANIFEST_NAME, 0x4040, 4032, len(MANIFEST), None, None),
        ],
        "failures": [
            {
                "name": "wifi\x1b",
                "collector": ":1.9/wifi",
                "error": "org.vmcoredd1.Error.TimedOut",
                "message": "late",
                "time_usec": 5,
            }
        ],
    }


def _dump(
    index: int, name: str, offset: int, size: int, true_size: int | None, sha256: str | None, verified: bool | None
) -> dict[str, object]:
    values = {"index": index, "name": name, "offset": offset, "size": size}
    return values | {"bytes": true_size, "sha256": sha256, "verified": verified}


def test_inspect_vmcore_of_the_kernel() -> None:
    result = run("inspect", "--json", GOLDEN)
    assert [dump["name"] for dump in json.loads(result.stdout)["device_dumps"]][:2] == ["golden_a", "golden_b"]


def test_inspect_real_vmcore_without_device_dumps(source_vmcore: Path) -> None:
    result = run("inspect", source_vmcore)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "elf, 64 bits, little endian, x86_64, 0 device dumps\n"


def test_inspect_warns_of_altered_data(altered: Path) -> None:
    result = run("inspect", "--json", altered)
    assert result.returncode == 0
    warning = f"vmcoredd: {altered}: device dump nic does not have the SHA-256 that its manifest says\n"
    assert result.stderr == warning
    assert json.loads(result.stdout)["device_dumps"][1]["verified"] is False


def test_inspect_warns_of_damaged_manifest(tmp_path: Path) -> None:
    notes = device_dump(b"nic", DATA) + device_dump(MANIFEST_NAME.encode(), MANIFEST[:-9])
    result = run("inspect", "--json", Core(notes).write(tmp_path / "vmcore"))
    assert result.returncode == 0
    assert result.stderr.startswith(f"vmcoredd: {tmp_path}/vmcore: vmcoredd_manifest: not JSON")
    assert result.stderr.count("\n") == 1
    assert json.loads(result.stdout)["device_dumps"][0]["verified"] is None


def test_hostile_names_never_reach_the_terminal(tmp_path: Path) -> None:
    path = Core(device_dump(b"\x1b]0;owned\x07\x9b\n", b"x")).write(tmp_path / "vm\ncore\x1b")
    table = run("inspect", path)
    assert table.stdout.splitlines()[-1].endswith(r"-  -         \x1b]0;owned\x07\x9b\n")
    assert "\x1b" not in run("inspect", "--json", path).stdout
    missing = run("extract", path, "\x1b[2J")
    assert missing.stderr == f"vmcoredd: {tmp_path}/vm\\ncore\\x1b: has no device dump \\x1b[2J\n"


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
    assert result.stderr.endswith("several device dumps are called golden_a, choose by index: 0, 5\n")
    assert run("extract", GOLDEN, "5", text=False).stdout[:8192] == bytes((i * 7 + 3) & 0xFF for i in range(8192))


def test_extract_altered_data_writes_it_and_fails(altered: Path, tmp_path: Path) -> None:
    result = run("extract", altered, "nic", "-o", tmp_path / "nic")
    assert result.returncode == 1
    reason = "device dump nic is extracted, but it does not have the SHA-256 of its manifest"
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
        "import sys; from pathlib import Path; from vmcoredd_daemon.cli import main; status = main(sys.argv[1:]);"
        "sys.stderr.write(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]);"
        "sys.exit(status or bool({'asyncio', 'dbus_next'} & set(sys.modules)) * 100)"
    )
    command = [sys.executable, "-c", program, "extract", str(path), "large"]
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 0
    assert int(result.stderr) < 64 << 10


@pytest.mark.parametrize("command", [["inspect"], ["extract", "0"]])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, os.strerror(errno.ENOENT)),
        (lambda path: path.touch(), "the file is empty"),
        (lambda path: path.mkdir(), "is a directory, not a vmcore"),
        (os.mkfifo, "is neither a regular file nor a block device"),
        (lambda path: path.write_text("hello"), "not an ELF vmcore: Magic number does not match"),
        (lambda path: path.write_bytes(GOLDEN.read_bytes()[:100]), "the file ends at offset 0x64, inside the"),
        (lambda path: path.write_bytes(GOLDEN.read_bytes()[:0x2000]), "PT_NOTE ends at"),
        (lambda path: path.symlink_to(path), os.strerror(errno.ELOOP)),
    ],
)
def test_file_that_is_no_vmcore(
    tmp_path: Path, command: list[str], make: Callable[[Path], object], reason: str
) -> None:
    path = tmp_path / "vmcore"
    make(path)
    result = run(command[0], path, *command[1:])
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"vmcoredd: {path}: {reason}")
    assert result.stderr.count("\n") == 1


def test_no_permission(vmcore: Path) -> None:
    vmcore.chmod(0)
    # Root has to give up what lets it read any file.
    unprivileged = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    require(*unprivileged[:1])
    command = [*unprivileged, *VMCOREDD, "inspect", str(vmcore)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, f"vmcoredd: {vmcore}: {os.strerror(errno.EACCES)}\n")


@pytest.mark.parametrize("command", [["inspect", GOLDEN], ["extract", GOLDEN, "3"], ["--help"], ["--version"]])
def test_standard_output_that_is_full(command: list[object]) -> None:
    with open("/dev/full", "wb") as full:
        result = run(*command, stdout=full)
    assert (result.returncode, result.stderr) == (1, "vmcoredd: standard output: No space left on device\n")


@pytest.mark.parametrize("command", [["inspect", GOLDEN], ["extract", GOLDEN, "3"]])
def test_standard_output_that_nobody_reads(command: list[object]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = run(*command, stdout=writer)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("command", ["inspect", "extract"])
def test_standard_output_that_is_closed(command: str) -> None:
    arguments = [*VMCOREDD, command, str(GOLDEN), *(["3"] if command == "extract" else [])]
    closed = ["bash", "-c", 'exec "$@" >&-', "-", *arguments]
    result = subprocess.run(closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "vmcoredd: standard output is closed\n")


def test_message_that_the_locale_has_no_characters_for(vmcore: Path) -> None:
    path = vmcore.rename(vmcore.with_name("vmcore-ä"))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = run("extract", path, "x", env=environment)
    assert result.stderr == f"vmcoredd: {path.parent}/vmcore-\\xe4: has no device dump x\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "the following arguments are required: COMMAND (see vmcoredd --help)"),
        (["inspect"], "the following arguments are required: VMCORE (see vmcoredd inspect --help)"),
        (["inspect", "x", "--jso"], "unrecognized arguments: --jso (see vmcoredd --help)"),
        (["inspect", "x", "\x1b"], r"unrecognized arguments: \x1b (see vmcoredd --help)"),
    ],
)
def test_wrong_usage(arguments: list[str], reason: str) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"vmcoredd: {reason}\n")


def test_help_and_version() -> None:
    assert run("--version").stdout == f"vmcoredd {__version__}\n"
    for arguments in ([], ["inspect"], ["extract"], ["add"], ["list"], ["status"], ["write"], ["remove"]):
        result = run(*arguments, "--help")
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith(" ".join(["usage: vmcoredd", *arguments]))


def test_vmcore_of_the_daemon(daemon: Service, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(DATA)
    assert run("add", "--bus-address", daemon.address, "nic", data).returncode == 0
    assert daemon.stop() == 0
    nic, manifest = json.loads(run("inspect", "--json", daemon.vmcore()).stdout)["device_dumps"]
    assert (nic["name"], nic["bytes"], nic["sha256"], nic["verified"]) == ("nic", len(DATA), SHA256, True)
    assert (manifest["name"], manifest["verified"]) == (MANIFEST_NAME, None)
    assert run("extract", daemon.vmcore(), "nic", text=False).stdout == DATA
    text = run("extract", daemon.vmcore(), MANIFEST_NAME).stdout
    assert json.loads(text)["device_dumps"][0]["name"] == "nic"
    assert manifest["bytes"] == len(text)

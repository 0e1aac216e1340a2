# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd extract of several device dumps, and --unpack: archives of every kind, against GNU tar."""

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lib.attaching import attach_data
from tests.lib.elf_writer import Core, device_dump
from tests.lib.resources import tmpfs
from tests.lib.sample import small_source
from tests.lib.tools import require
from tests.lib.vmcore_dumps import DATA, MANIFEST
from tests.lib.vmcoredd import VMCOREDD, run
from vmcoredd_daemon.collectors.builtin.archive import Archive
from vmcoredd_daemon.manifest import MANIFEST_NAME

FILES = {"0000:00:1f.0/config": bytes(range(256)), "0000:00:1f.0/driver": b"", "log": b"line\n" * 30_000}
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def archive(*members: tuple[str, bytes] | tarfile.TarInfo, form: int = tarfile.GNU_FORMAT) -> bytes:
    """Return an archive of files, and of other members."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size, info.mtime, info.mode = len(member[1]), 10**9, 0o666
                tar.addfile(info, io.BytesIO(member[1]))
    return data.getvalue()


def holding(path: Path, **dumps: bytes) -> Path:
    return Core(b"".join(device_dump(name.encode(), data) for name, data in dumps.items())).write(path)


def tree(directory: Path) -> dict[str, bytes | None]:
    """Return all files below by their names; of anything else None."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in directory.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def refused(result: "subprocess.CompletedProcess[str]", vmcore: Path, first: str, others: int = 0) -> None:
    more = f"; and {others} more" if others else ""
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"vmcoredd: {vmcore}: not all of device dump a is unpacked: {first}{more}\n"


def test_several_names_and_globs(vmcore: Path, tmp_path: Path) -> None:
    cases = [
        (["nic", "kernel"], {"nic", "kernel"}),
        (["n*"], {"nic"}),
        (["[kn]*", "nic", "1"], {"nic", "kernel"}),
        (["0", "vmcoredd_?anifest"], {"kernel", MANIFEST_NAME}),
        (["*"], {"nic", "kernel", MANIFEST_NAME}),
        (["nic"], {"nic"}),
    ]
    for number, (names, expected) in enumerate(cases):
        directory = tmp_path / f"out{number}" / "below"
        result = run("extract", vmcore, *names, "-C", directory)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        assert set(os.listdir(directory)) == expected
    assert (directory / "nic").read_bytes() == DATA
    assert run("extract", vmcore, "n?c", text=False).stdout == DATA


def test_name_that_looks_like_a_glob(tmp_path: Path) -> None:
    vmcore = holding(tmp_path / "vmcore", **{"a*": b"1", "ab": b"2", "[x]": b"3", "x": b"4"})
    for name, first in (("a*", b"1"), ("ab", b"2"), ("[x]", b"3"), ("?", b"4")):
        assert run("extract", vmcore, name, text=False).stdout[:1] == first


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["nic", "kernel"], 2, "2 device dumps are asked for: name a directory for them, with -C DIR"),
        (["*"], 2, "3 device dumps are asked for: name a directory for them, with -C DIR"),
        (
            ["nic", "kernel", "-o", "file"],
            2,
            "2 device dumps are asked for: name a directory for them, with -C DIR",
        ),
        (["-C", "out"], 2, "the following arguments are required: NAME|INDEX or --all DIR "),
        (["nic", "-C", "out", "-o", "x"], 2, "argument -o/--output: not allowed with argument -C/--directory "),
        (["nic", "-C", ""], 2, "argument -C/--directory: the path is empty "),
        (["nic", "--unpack"], 2, "--unpack needs -C DIR or --all DIR"),
        (["nic", "--no-colons", "-o", "x"], 2, "--no-colons needs -C DIR or --all DIR"),
        (["nic", "wifi*", "-C", "out"], 1, "VMCORE: has no device dump wifi*"),
        (["nic", "9", "-C", "out"], 1, "VMCORE: has no device dump 9"),
    ],
)
def test_wrong_usage(vmcore: Path, tmp_path: Path, arguments: list[str], status: int, reason: str) -> None:
    result = run("extract", vmcore, *arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (status, "", 1)
    assert result.stderr.startswith(f"vmcoredd: {reason.replace('VMCORE', str(vmcore))}")
    assert os.listdir(tmp_path) == ["vmcore"]


def test_one_name_of_several_device_dumps(tmp_path: Path) -> None:
    notes = b"".join(device_dump(b"same", b"%d" % number) for number in range(3))
    vmcore = Core(notes).write(tmp_path / "vmcore")
    assert run("extract", vmcore, "same", "-C", tmp_path / "out").returncode == 0
    assert {name: data and data[:1] for name, data in tree(tmp_path / "out").items()} == {
        "same": b"0",
        "same.1": b"1",
        "same.2": b"2",
    }
    result = run("extract", vmcore, "same")
    assert result.stderr.endswith("several device dumps are named same, choose by index: 0, 1, 2\n")


@pytest.mark.parametrize("form", FORMATS)
def test_archive_becomes_a_directory_as_by_gnu_tar(tmp_path: Path, form: str) -> None:
    """With its names, contents and times; permissions are the user's alone."""
    require("tar")
    vmcore = holding(tmp_path / "vmcore", pci=archive(*FILES.items(), form=FORMATS[form]), nic=DATA)
    result = run("extract", vmcore, "--all", tmp_path / "out", "--unpack")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert run("extract", vmcore, "pci", "-o", tmp_path / "pci.tar").returncode == 0
    (tmp_path / "theirs").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "theirs", "-xf", tmp_path / "pci.tar"], check=True)
    assert tree(tmp_path / "out" / "pci") == tree(tmp_path / "theirs") == FILES
    assert (tmp_path / "out" / "nic").read_bytes()[: len(DATA)] == DATA
    for path in (tmp_path / "out").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    for name in FILES:
        assert (tmp_path / "out" / "pci" / name).stat().st_mtime == 10**9
    assert sorted(os.listdir(tmp_path / "out")) == ["nic", "pci"]


def test_archive_of_our_collectors_with_its_checksum(tmp_path: Path) -> None:
    data = io.BytesIO()
    made = Archive(data)
    for name, content in FILES.items():
        made.add(name, len(content), [content])
    made.finish()
    vmcore = small_source(tmp_path)
    attach_data(vmcore, nvme=data.getvalue())
    result = run("extract", vmcore, "nvme", "--unpack", "-C", tmp_path / "out")
    assert (result.returncode, result.stderr) == (0, "")
    assert tree(tmp_path / "out" / "nvme") == FILES
    with vmcore.open("r+b") as file:
        file.seek(vmcore.read_bytes().index(b"line\n"))
        file.write(b"!")
    result = run("extract", vmcore, "nvme", "--unpack", "-C", tmp_path / "again")
    assert result.returncode == 1
    reason = "device dump nvme is extracted, but its SHA-256 differs from the manifest"
    assert result.stderr == f"vmcoredd: {vmcore}: {reason}\n"
    assert tree(tmp_path / "again" / "nvme")["log"] == b"!" + FILES["log"][1:]


def test_names_without_colons(tmp_path: Path) -> None:
    names = {"pci_0000:00:1f.0": archive(*FILES.items()), "pci_0000-00-1f.0": DATA}
    vmcore = holding(tmp_path / "vmcore", **names)
    assert run("extract", vmcore, "--all", tmp_path / "out", "--unpack", "--no-colons").returncode == 0
    found = tree(tmp_path / "out")
    assert not any(":" in name for name in found)
    assert found["pci_0000-00-1f.0/0000-00-1f.0/config"] == FILES["0000:00:1f.0/config"]
    assert (found["pci_0000-00-1f.0.1"] or b"")[: len(DATA)] == DATA
    assert run("extract", vmcore, "0", "-C", tmp_path / "files", "--no-colons").returncode == 0
    # tar takes what is before a colon for a host.
    require("tar")
    subprocess.run(["tar", "tf", "pci_0000-00-1f.0"], cwd=tmp_path / "files", check=True, capture_output=True)


def test_directories_are_never_replaced(tmp_path: Path) -> None:
    vmcore = holding(tmp_path / "vmcore", pci=archive(("a", b"1")))
    out = tmp_path / "out"
    for _ in range(3):
        assert run("extract", vmcore, "--all", out, "--unpack").returncode == 0
    assert tree(out) == {"pci/a": b"1", "pci.1/a": b"1", "pci.2/a": b"1"}
    other = tmp_path / "other"
    other.mkdir()
    (other / "pci").symlink_to(tmp_path / "out")
    (other / "pci.1").write_bytes(b"mine")
    os.mkfifo(other / "pci.2")
    assert run("extract", vmcore, "--all", other, "--unpack").returncode == 0
    assert (other / "pci.3" / "a").read_bytes() == b"1"
    assert len(tree(out)) == 3
    assert (other / "pci.1").read_bytes() == b"mine"


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


LONG = "/".join(["d" * 100] * 40)
HOSTILE: dict[str, tuple[tuple[str, bytes] | tarfile.TarInfo, str]] = {
    "absolute": (("/tmp/x", b"!"), "/tmp/x: its name is absolute"),
    "above": (("../x", b"!"), "../x: its name leads out of the archive"),
    "above from below": (("a/../../x", b"!"), "a/../../x: its name leads out of the archive"),
    "dots": (("..", b"!"), "..: its name leads out of the archive"),
    "no name": (("./.", b"!"), "./.: it has no name"),
    "deep": ((LONG, b"!"), f"{LONG}: its name is too long"),
    "long": (("x" * 300, b"!"), f"{'x' * 300}: its name is too long"),
    "symbolic link": (link("x", "/etc/passwd"), "x: is no regular file"),
    "link that others follow": (link("d", ".."), "d: is no regular file"),
    "hard link": (link("x", "/etc/passwd", tarfile.LNKTYPE), "x: is no regular file"),
    "device": (link("x", "", tarfile.BLKTYPE), "x: is no regular file"),
    "FIFO": (link("x", "", tarfile.FIFOTYPE), "x: is no regular file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members_are_left_out(tmp_path: Path, name: str) -> None:
    member, reason = HOSTILE[name]
    content = archive(("first", b"1"), member, ("d/last", b"2"), form=tarfile.PAX_FORMAT)
    vmcore = holding(tmp_path / "vmcore", a=content)
    (tmp_path / "x").write_bytes(b"mine")
    result = run("extract", vmcore, "--all", tmp_path / "out", "--unpack")
    refused(result, vmcore, reason)
    assert tree(tmp_path / "out") == {"a/first": b"1", "a/d/last": b"2"}
    assert sorted(os.listdir(tmp_path)) == ["out", "vmcore", "x"]
    assert (tmp_path / "x").read_bytes() == b"mine"


def test_all_that_is_left_out_is_one_line(tmp_path: Path) -> None:
    members = [member for member, _ in HOSTILE.values()]
    vmcore = holding(tmp_path / "vmcore", a=archive(*members, ("x", b"2"), form=tarfile.PAX_FORMAT))
    result = run("extract", vmcore, "--all", tmp_path / "out", "--unpack")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith(f"; and {len(members) - 1} more\n")
    assert tree(tmp_path / "out") == {"a/x": b"2"}


def test_names_that_meet_get_numbers(tmp_path: Path) -> None:
    members = [("a", b"1"), ("./a", b"2"), ("a/b", b"3"), ("b\n", b"4"), ("b\\n", b"5"), (".hidden", b"6")]
    members += [("a//b", b"7"), (".vmcoredd-0123456789abcdef/c", b"8")]
    vmcore = holding(tmp_path / "vmcore", a=archive(*members))
    result = run("extract", vmcore, "--all", tmp_path / "out", "--unpack")
    assert (result.returncode, result.stderr) == (0, "")
    found = tree(tmp_path / "out" / "a")
    assert sorted(found.values()) == [content for _, content in members]  # type: ignore[type-var]
    assert {name: found[name] for name in ("a", "a.1", "a.2/b", "a.2/b.1", ".hidden")} == {
        "a": b"1",
        "a.1": b"2",
        "a.2/b": b"3",
        "a.2/b.1": b"7",
        ".hidden": b"6",
    }
    assert {"b\\n", "b\\n.1"} <= set(found)


def test_many_members_of_one_name_take_no_time(tmp_path: Path) -> None:
    vmcore = holding(tmp_path / "vmcore", a=archive(*((f"{'./' * number}a", b"x") for number in range(1500))))
    result = run("extract", vmcore, "--all", tmp_path / "out", "--unpack", timeout=30)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(os.listdir(tmp_path / "out" / "a")) == 1500


def test_archive_that_is_cut_off(tmp_path: Path) -> None:
    whole = archive(("first", b"1" * 5000), ("second", b"2" * 9000), ("third", b"3"))
    vmcore = small_source(tmp_path)
    attach_data(vmcore, a=whole[: 512 + 5120 + 512 + 4000])
    result = run("extract", vmcore, "a", "-C", tmp_path / "out", "--unpack")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "not all of device dump a is unpacked: " in result.stderr
    found = tree(tmp_path / "out" / "a")
    assert found["first"] == b"1" * 5000
    assert found.get("second", b"2" * 4000) == b"2" * 4000


def test_what_is_no_archive_is_a_file(vmcore: Path, tmp_path: Path) -> None:
    assert run("extract", vmcore, "--all", tmp_path / "out", "--unpack").returncode == 0
    assert tree(tmp_path / "out") == {"kernel": b"k".ljust(4032, b"\0"), "nic": DATA, MANIFEST_NAME: MANIFEST}
    # What only begins as one is kept as it is.
    bad = bytes(257) + b"ustar\0" + b"\xff" * 4000
    other = small_source(tmp_path)
    attach_data(other, a=bad)
    result = run("extract", other, "a", "-C", tmp_path / "bad", "--unpack")
    assert result.stderr.startswith(f"vmcoredd: {other}: device dump a is not unpacked: no archive: ")
    assert result.stderr.count("\n") == 1
    assert tree(tmp_path / "bad") == {"a": bad}


def test_no_space_leaves_nothing_of_it(tmp_path: Path) -> None:
    vmcore = holding(tmp_path / "vmcore", a=archive(("small", b"1"), ("big", bytes(3 << 20))), nic=DATA)
    with tmpfs(tmp_path / "small", 2 << 20) as small:
        result = run("extract", vmcore, "--all", small / "out", "--unpack")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f"vmcoredd: {small}/out/a: No space left on device\n"
        assert list(small.rglob("*")) == []


def test_terminated_it_leaves_nothing_of_it(tmp_path: Path) -> None:
    """Every member is small, so that it is in the middle of them."""
    vmcore = holding(tmp_path / "vmcore", a=archive(*((f"d{number}/f", b"x") for number in range(6000))))
    out = tmp_path / "out"
    with subprocess.Popen([*VMCOREDD, "extract", vmcore, "--all", out, "--unpack"]) as process:
        while not (out.exists() and os.listdir(out)):
            assert process.poll() is None
        assert os.listdir(out)[0].startswith(".vmcoredd-")
        process.terminate()
        assert process.wait(60) == -15
    assert not out.exists()


@pytest.mark.parametrize("make", [lambda data: data * 3, lambda data: data[:-512] + data])
def test_what_comes_behind_the_end_is_not_looked_at(tmp_path: Path, make: Callable[[bytes], bytes]) -> None:
    vmcore = holding(tmp_path / "vmcore", a=make(archive(("a", b"1"))))
    assert run("extract", vmcore, "--all", tmp_path / "out", "--unpack").returncode == 0
    assert tree(tmp_path / "out") == {"a/a": b"1"}

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What makedumpfile has written, and how the device dumps get into it; crash and makedumpfile are the judges."""

import logging
import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.lib import external_tools as judges
from tests.lib.collectors import Fills
from tests.lib.fuse import fuse_source
from tests.lib.resources import tmpfs
from tests.lib.shell_program import shell_program
from tests.lib.vmcore_dumps import manifest
from vmcoredd_daemon.config.limits import Limits
from vmcoredd_daemon.config.vmcore_format import Compression, Format, Output
from vmcoredd_daemon.dumps.dump_list import DumpList
from vmcoredd_daemon.dumps.spool import Spool
from vmcoredd_daemon.manifest import MANIFEST_NAME
from vmcoredd_daemon.note import ByteOrder
from vmcoredd_daemon.vmcore.attach import kdump as attach_kdump
from vmcoredd_daemon.vmcore.copy.source import TimedCalls
from vmcoredd_daemon.vmcore.inspect.inspect import find, inspect
from vmcoredd_daemon.writer import kdump as write_kdump
from vmcoredd_daemon.writer import writer
from vmcoredd_daemon.writer.result import DEVICE_DUMPS_ONLY, VMCORE, WriteResult
from vmcoredd_daemon.writer.writer import VmcoreWriter

PAGE = 4096
KDUMP = Output(Format.KDUMP)
INSTEAD = "The vmcore is written in ELF format: "
MIB = 1 << 20

pytestmark = pytest.mark.usefixtures("tools")


async def write(
    dumps: DumpList, source: Path, target: Path, output: Output = KDUMP, count: int = 2
) -> WriteResult:
    for number in range(count):
        await dumps.add_device_dump(f"nic{number}", 9, Fills(b"registers"), timeout=5)
    return await VmcoreWriter(dumps, source, target, output).write()


def own_names(vmcore: Path) -> list[str]:
    """Without VMCOREINFO crash goes no further, having listed everything."""
    with vmcore.open("rb") as file:
        return [dump.name for dump in find(file.fileno(), str(vmcore)).device_dumps]


def dmesg(vmcore: Path, directory: Path) -> bytes:
    return judges.makedumpfile(vmcore, directory / "dmesg", "--dump-dmesg", "-f").read_bytes()


@pytest.mark.parametrize("compression", [Compression.LZO, Compression.ZLIB, Compression.NONE])
async def test_filtered_vmcore(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, compression: Compression
) -> None:
    written = await write(dumps, source_vmcore, tmp_path, Output(Format.KDUMP, 31, compression))
    assert (written.path.name, written.device_dumps, written.error, written.fallback) == (VMCORE, 2, "", "")
    assert judges.crash_names(written.path) == ["nic0", "nic1", MANIFEST_NAME]
    assert judges.osrelease(written.path) == judges.osrelease(source_vmcore)
    assert dmesg(written.path, tmp_path) == dmesg(source_vmcore, tmp_path)
    assert written.size == written.path.stat().st_size < source_vmcore.stat().st_size / 2
    with written.path.open("rb") as file:
        inspection = inspect(file.fileno(), "FILE")
    assert (inspection.format, inspection.problems) == ("kdump", ())
    assert [dump.verified for dump in inspection.device_dumps] == [True, True, None]
    assert sorted(path.name for path in written.path.parent.iterdir()) == [VMCORE, "vmcore-dmesg.txt"]


async def test_spool_that_hangs(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory is written, and the device dump that hangs costs itself."""
    monkeypatch.setattr(writer, "TimedCalls", partial(TimedCalls, timeout=1.0, retry_timeout=0.5))
    (tmp_path / "target").mkdir()
    for name in ("hangs", "nic"):
        await dumps.add_device_dump(name, 9, Fills(b"registers"), timeout=5)
    note = dumps.complete[0].note
    assert note is not None
    (tmp_path / "note").write_bytes(os.pread(note.fd, note.note_size, 0))
    with fuse_source(tmp_path / "note", tmp_path / "fuse") as spool:
        spool.read = lambda offset, size: None
        hanging = os.open(spool.path, os.O_RDONLY)
        os.dup2(hanging, note.fd, inheritable=False)
        os.close(hanging)
        written = await VmcoreWriter(dumps, source_vmcore, tmp_path / "target", KDUMP).write()
        assert len(spool.hanging) == 2
        spool.answer_late(b"x")
    apart = written.path.with_name(DEVICE_DUMPS_ONLY)
    assert (written.path.name, own_names(written.path), own_names(apart)) == (
        VMCORE,
        [],
        ["hangs", "nic", MANIFEST_NAME],
    )
    assert f"the device dumps are in {DEVICE_DUMPS_ONLY}: " in written.error
    with apart.open("rb") as file:
        assert [dump.verified for dump in inspect(file.fileno(), "FILE").device_dumps] == [False, True, None]


async def test_progress(dumps: DumpList, source_vmcore: Path, tmp_path: Path) -> None:
    writer = VmcoreWriter(dumps, source_vmcore, tmp_path, KDUMP)
    await writer.write()
    assert writer.progress.done == writer.progress.total == source_vmcore.stat().st_size


async def test_progress_while_nothing_is_copied(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    for progress in ("", r"\rExcluding unnecessary pages : [ 10.0 %%] |"):
        shell_program(tmp_path / "makedumpfile", f"printf '{progress}'\nexit 1")
        with monkeypatch.context() as patched:
            patched.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
            writer = VmcoreWriter(dumps, source_vmcore, tmp_path, KDUMP)
            await writer.write()
        steps.append(writer.progress.steps)
    assert steps[1] == steps[0] + 1


@pytest.mark.parametrize(("kind", "level"), [(Format.AUTO, logging.INFO), (Format.KDUMP, logging.WARNING)])
async def test_without_makedumpfile_the_source_is_copied(
    dumps: DumpList,
    source_vmcore: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: Format,
    level: int,
) -> None:
    caplog.set_level(logging.INFO)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        written = await write(dumps, source_vmcore, tmp_path, Output(kind))
    assert (written.path.name, written.error) == (VMCORE, "")
    assert written.fallback == f"{INSTEAD}makedumpfile is not installed"
    assert judges.same_memory(written.path, source_vmcore)
    assert manifest(written.path).source.fallback == written.fallback
    assert [entry.levelno for entry in caplog.records if entry.message == written.fallback] == [level]


async def test_as_many_threads_as_the_processors_allow(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("makedumpfile")
    program = shell_program(tmp_path / "bin/makedumpfile", f'echo "$@" >> {tmp_path}/run\nexec {real} "$@"')
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    alone = await write(dumps, source_vmcore, tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(5))
    written = await VmcoreWriter(dumps, source_vmcore, tmp_path, KDUMP).write()
    options = [line for line in (tmp_path / "run").read_text().splitlines() if "--dump-dmesg" not in line]
    assert ["--num-threads=3 -d 31" in line for line in options] == [False, True]
    assert (written.error, written.fallback) == ("", "")
    # All of it but the headers, and the device dumps at the end: the manifest has the time.
    one, several = (each.path.read_bytes()[4 * PAGE : -4 * PAGE] for each in (alone, written))
    assert several == one


async def test_makedumpfile_that_fails(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = shell_program(
        tmp_path / "bin/makedumpfile",
        "for last; do :; done\necho half > \"$last\"\necho 'Can not do it.' >&2\nexit 2",
    )
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{broken.parent}:{Path(shutil.which('sh') or '/bin/sh').parent}")
        written = await write(dumps, source_vmcore, tmp_path)
    assert written.fallback == f"{INSTEAD}{source_vmcore}: makedumpfile failed with status 2: Can not do it."
    assert judges.same_memory(written.path, source_vmcore)
    assert [path.name for path in written.path.parent.iterdir()] == [VMCORE]


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        # As the kernel does when the memory of the capture kernel runs out.
        ('truncate -s -1M "$last"; kill -KILL $$', "makedumpfile failed with status -9: "),
        ('echo no > "$last"; exit 0', "makedumpfile left no vmcore: "),
        ('rm "$last"; exit 0', "makedumpfile left no vmcore: "),
        ('truncate -s -1M "$last"; exit 0', "makedumpfile left a file that was cut off: "),
        ('truncate -s -1 "$last"; exit 0', "makedumpfile left a file that was cut off: 1 of "),
    ],
)
async def test_makedumpfile_that_leaves_no_vmcore(
    dumps: DumpList,
    source_vmcore: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    reason: str,
) -> None:
    real = shutil.which("makedumpfile")
    broken = shell_program(tmp_path / "bin/makedumpfile", f'for last; do :; done\n{real} "$@"\n{ending}')
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
        written = await write(dumps, source_vmcore, tmp_path)
    assert (written.path.name, written.error) == (VMCORE, "")
    assert written.fallback.startswith(f"{INSTEAD}{source_vmcore}: {reason}")
    assert judges.same_memory(written.path, source_vmcore)
    assert judges.crash_names(written.path) == ["nic0", "nic1", MANIFEST_NAME]


async def test_makedumpfile_that_falls_over_its_mappings(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("makedumpfile")
    program = shell_program(
        tmp_path / "bin/makedumpfile", f'[ "$1" = --non-mmap ] || kill -SEGV $$\nexec {real} "$@"'
    )
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        written = await write(dumps, source_vmcore, tmp_path)
    assert (written.path.name, written.error, written.fallback) == (VMCORE, "", "")
    assert judges.crash_names(written.path) == ["nic0", "nic1", MANIFEST_NAME]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MemoryError(), "not enough memory to filter it"), (KeyError(), "unexpected error: KeyError")],
)
async def test_unexpected_error_leaves_the_memory(
    dumps: DumpList,
    source_vmcore: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(write_kdump, "attach", fail)
    written = await write(dumps, source_vmcore, tmp_path)
    assert written.fallback == f"{INSTEAD}{source_vmcore}: {reason}"
    assert judges.same_memory(written.path, source_vmcore)
    assert own_names(written.path) == ["nic0", "nic1", MANIFEST_NAME]


async def test_filtered_vmcore_that_cannot_get_its_name_stays(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path
) -> None:
    writer = VmcoreWriter(dumps, source_vmcore, tmp_path, KDUMP)
    vmcore = (await writer.write()).path
    vmcore.unlink()
    vmcore.mkdir()
    await dumps.add_device_dump("nic0", 9, Fills(b"registers"), timeout=5)
    written = await writer.write()
    assert (written.path.name, written.fallback) == ("vmcore-incomplete", "")
    assert written.error == "it may not be on disk: Is a directory"
    assert writer.outdated
    assert judges.crash_names(written.path) == ["nic0", MANIFEST_NAME]


async def test_source_that_cannot_be_read(dumps: DumpList, tmp_path: Path) -> None:
    written = await write(dumps, tmp_path / "nothing", tmp_path)
    assert written.path.name == DEVICE_DUMPS_ONLY
    assert own_names(written.path) == ["nic0", "nic1", MANIFEST_NAME]


@pytest.mark.parametrize("output", [Output(kind, 1) for kind in (Format.AUTO, Format.KDUMP, Format.ELF)])
async def test_target_with_room_for_the_hardest_dump_level_only(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, output: Output
) -> None:
    levels = [
        judges.makedumpfile(source_vmcore, tmp_path / level, "-l", "-d", level).stat().st_size
        for level in ("1", "31")
    ]
    # What is kept free for the notes and for the journal, and the log of the kernel.
    room = 2 * MIB + len(dmesg(source_vmcore, tmp_path)) + 8 * PAGE
    assert levels[0] > levels[1] + 32 * PAGE
    with tmpfs(tmp_path / "target", levels[1] + room + 16 * PAGE) as target:
        written = await write(dumps, source_vmcore, target, output)
        assert written.path.name == VMCORE
        assert written.error == "the target has no space for dump level 1, it was written with level 31"
        assert ("bytes are free, the source has" in written.fallback) == (output.format is Format.ELF)
        assert judges.crash_names(written.path) == ["nic0", "nic1", MANIFEST_NAME]
        assert dmesg(written.path, tmp_path) == dmesg(source_vmcore, tmp_path)
        assert manifest(written.path).source.error == written.error


async def test_target_with_room_for_device_dumps_and_a_part(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "target", 8 * MIB) as target:
        written = await write(dumps, source_vmcore, target)
        assert written.path.name == "vmcore-incomplete"
        assert written.error.startswith(
            "it is incomplete: makedumpfile failed with status 1: Can't write the dump"
        )
        assert judges.crash_names(written.path) == ["nic0", "nic1", MANIFEST_NAME]
        assert judges.osrelease(written.path) == judges.osrelease(source_vmcore)


async def test_target_without_room_for_makedumpfile_and_the_notes(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path
) -> None:
    # Less than what is kept free for both, and more than the notes take.
    with tmpfs(tmp_path / "target", 3 * MIB // 2) as target:
        written = await write(dumps, source_vmcore, target)
        assert written.path.name == "vmcore-incomplete"
        assert "the target has no space for" in written.error
        assert written.fallback.endswith("cannot write: No space left on device")
        assert judges.crash_names(written.path) == ["nic0", "nic1", MANIFEST_NAME]


async def test_more_notes_than_can_be_attached(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(attach_kdump, "MAX_NOTES_END", 3 * PAGE)
        written = await write(dumps, source_vmcore, tmp_path)
    assert written.path.name == VMCORE
    assert "the device dumps are in vmcore-device-dumps" in written.error
    assert own_names(written.path) == []
    assert own_names(written.path.with_name(DEVICE_DUMPS_ONLY)) == ["nic0", "nic1", MANIFEST_NAME]


async def test_device_dumps_that_cannot_be_attached_to_a_part(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, tmpfs(tmp_path / "target", 8 * MIB) as target:
        patched.setattr(attach_kdump, "MAX_NOTES_END", 3 * PAGE)
        written = await write(dumps, source_vmcore, target)
        assert (written.path.name, written.fallback) == ("vmcore-incomplete", "")
        assert "it is incomplete: makedumpfile failed" in written.error
        assert "the device dumps are in vmcore-device-dumps" in written.error
        assert own_names(written.path) == []
        assert own_names(written.path.with_name(DEVICE_DUMPS_ONLY)) == ["nic0", "nic1", MANIFEST_NAME]


async def test_more_device_dumps_than_crash_reads(source_vmcore: Path, tmp_path: Path) -> None:
    """MaxDumps= allows them, as in an ELF vmcore."""
    dumps = DumpList(Spool.in_memory(PAGE, ByteOrder.LITTLE), Limits(max_dumps=70))
    try:
        written = await write(dumps, source_vmcore, tmp_path, count=70)
    finally:
        dumps.close()
    assert (written.path.name, written.error, written.fallback) == (VMCORE, "", "")
    assert own_names(written.path) == [*(f"nic{number}" for number in range(70)), MANIFEST_NAME]
    assert judges.crash_names(written.path) == [f"nic{number}" for number in range(64)]


async def test_as_many_device_dumps_as_crash_reads(dumps: DumpList, source_vmcore: Path, tmp_path: Path) -> None:
    written = await write(dumps, source_vmcore, tmp_path, count=64)
    assert (written.error, written.device_dumps) == ("", 64)
    assert judges.crash_names(written.path)[:64] == [f"nic{number}" for number in range(64)]

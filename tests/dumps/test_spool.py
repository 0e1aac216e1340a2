# SPDX-License-Identifier: LGPL-2.1-or-later
import asyncio
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.lib.privileges import without_privileges
from tests.lib.resources import open_fds, remount_read_only, tmpfs
from tests.lib.waiting import eventually
from vmcoredd_daemon.dumps.buffer import Buffer
from vmcoredd_daemon.dumps.commit import Commit
from vmcoredd_daemon.dumps.recovery import SpooledDump, left_by_other_boots
from vmcoredd_daemon.dumps.spool import Spool
from vmcoredd_daemon.dumps.spool_directory import CRASH_DIRECTORY, HANDED_OVER, boot_id
from vmcoredd_daemon.errors import Busy, NoSpace, TooLarge, VmcoreddError, WriteFailed
from vmcoredd_daemon.manifest import ManifestDump
from vmcoredd_daemon.note import ByteOrder, DeviceDumpNote, note_size, pack_vmcoredd_header

PAGE = 4096
LITTLE = ByteOrder.LITTLE
NAME = "000001.note"


def open_spool(path: Path, keep_free: int = 0) -> Spool:
    return Spool.open(path, PAGE, LITTLE, keep_free)


def directory(path: Path) -> Path:
    return path / boot_id()


def record_of(name: str, data: bytes, limit: int, **others: Any) -> ManifestDump:
    digest = hashlib.sha256(data).hexdigest()
    return replace(ManifestDump(name, len(data), limit, digest, "test", "complete", 1, 2), **others)


def kept(record: ManifestDump) -> tuple[int, Callable[[str], ManifestDump]]:
    """Return what a buffer is told when it is to be kept as *record* says."""
    return record.size, lambda sha256: replace(record, sha256=sha256)


async def add(
    spool: Spool, number: int, name: str, data: bytes, limit: int = 0, *, keep_size: bool = False, **others: Any
) -> DeviceDumpNote:
    """Add a device dump as the dump list does."""
    limit = limit or len(data)
    buffer = await spool.create(name, limit)
    os.pwrite(buffer.fd, data, buffer.offset)
    return await spool.commit(Commit(number, buffer, *kept(record_of(name, data, limit, **others)), keep_size))


def damaged(name: str, error: Exception) -> None:
    pytest.fail(f"{name}: {error}")


def recover(spool: Spool) -> tuple[list[SpooledDump], list[str]]:
    problems: list[str] = []
    with ExitStack() as stack:
        found = list(spool.recover(lambda name, error: problems.append(f"{name}: {error}")))
        for dump in found:
            stack.callback(os.close, dump.note.fd)
    return found, problems


async def test_acknowledged_device_dump_survives(tmp_path: Path) -> None:
    before = open_fds()
    spool = open_spool(tmp_path / "spool")
    first = await add(spool, 1, "nic0", b"data" * 2000)
    second = await add(spool, 2, "nic1", b"x", limit=5000, state="truncated")
    os.close(first.fd)
    os.close(second.fd)
    spool.close()
    assert open_fds() == before

    spool = open_spool(tmp_path / "spool")
    dumps = list(spool.recover(damaged))
    assert [(dump.number, dump.record) for dump in dumps] == [
        (1, record_of("nic0", b"data" * 2000, 8000)),
        (2, record_of("nic1", b"x", 5000, state="truncated")),
    ]
    assert [replace(dump.note, fd=-1) for dump in dumps] == [replace(first, fd=-1), replace(second, fd=-1)]
    header = pack_vmcoredd_header(b"nic0", note_size(8000, PAGE), LITTLE)
    assert os.pread(dumps[0].note.fd, 8192, 0) == (header + b"data" * 2000).ljust(8192, b"\0")
    assert spool.next_number() == 3
    for dump in dumps:
        os.close(dump.note.fd)
    spool.close()
    assert open_fds() == before


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize(("keep_size", "note_bytes"), [(False, 2 * PAGE), (True, 5 * PAGE)])
async def test_note_has_the_true_size(tmp_path: Path, durable: bool, keep_size: bool, note_bytes: int) -> None:
    """The file keeps what was reserved, but no disk space for it."""
    spool = open_spool(tmp_path / "spool") if durable else Spool.in_memory(PAGE, LITTLE)
    note = await add(spool, 1, "nic0", b"x" * 5000, limit=4 * PAGE, keep_size=keep_size)
    assert (note.note_size, note.size) == (note_bytes, 5000)
    header = pack_vmcoredd_header(b"nic0", note_bytes, LITTLE)
    assert os.pread(note.fd, 5 * PAGE, 0) == (header + b"x" * 5000).ljust(5 * PAGE, b"\0")
    assert os.fstat(note.fd).st_blocks * 512 == (3 if durable else 2) * PAGE
    if durable:
        (found,), problems = recover(spool)
        assert (replace(found.note, fd=note.fd), problems) == (note, [])
        assert found.record == record_of("nic0", b"x" * 5000, 4 * PAGE)
    os.close(note.fd)
    spool.close()


async def test_data_that_fill_their_note(tmp_path: Path) -> None:
    """Only the separator says where the description begins."""
    spool = open_spool(tmp_path / "spool")
    data = b'"}' * ((PAGE - 64) // 2)
    os.close((await add(spool, 1, "nic0", data)).fd)
    assert [dump.record for dump in recover(spool)[0]] == [record_of("nic0", data, PAGE - 64)]
    spool.close()


async def test_note_of_an_older_version(tmp_path: Path) -> None:
    """In the spool it is as large as its buffer, in the vmcore it has its true size."""
    spool = open_spool(tmp_path / "spool")
    record = record_of("nic0", b"data", 4 * PAGE)
    header = pack_vmcoredd_header(b"nic0", 5 * PAGE, LITTLE)
    file = directory(tmp_path / "spool") / NAME
    file.write_bytes((header + b"data").ljust(5 * PAGE, b"\0") + record.dump())
    (found,), problems = recover(spool)
    assert (found.record, found.note.note_size, problems) == (record, PAGE, [])
    spool.close()


async def test_note_of_another_machine(tmp_path: Path) -> None:
    """Its byte order and its pages are those of the machine that wrote it, and so is its true size."""
    spool = open_spool(tmp_path / "spool")
    pages = 4 * PAGE
    record = record_of("nic0", b"data", 4 * pages - 64)
    header = pack_vmcoredd_header(b"nic0", pages, ByteOrder.BIG)
    file = directory(tmp_path / "spool") / NAME
    file.write_bytes((header + b"data").ljust(4 * pages, b"\0") + b"\0" + record.dump())
    (found,), problems = recover(spool)
    assert (found.record, found.note.note_size, problems) == (record, pages, [])
    spool.close()


LATE_COLLECTOR = """
import mmap, sys
with mmap.mmap(int(sys.argv[1]), int(sys.argv[2])) as mapped:
    print("mapped", flush=True)
    for _ in range(int(sys.argv[3])):
        mapped[-4:] = b"late"
"""


@pytest.mark.parametrize("durable", [False, True])
async def test_mapping_of_a_late_collector_does_not_end(tmp_path: Path, durable: bool) -> None:
    """It writes while its device dump is made durable, and beyond what counts: that must not kill it."""
    spool = open_spool(tmp_path / "spool") if durable else Spool.in_memory(PAGE, LITTLE)
    for number in range(1, 11):
        buffer = await spool.create(f"nic{number}", 100_000)
        arguments = [str(value) for value in (buffer.fd, buffer.reserved, 200_000)]
        late = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LATE_COLLECTOR, *arguments), pass_fds=[buffer.fd], stdout=subprocess.PIPE
        )
        assert late.stdout is not None
        assert await late.stdout.readline() == b"mapped\n"
        await asyncio.sleep(0.001)
        note = await spool.commit(Commit(number, buffer, *kept(record_of(f"nic{number}", b"", 100_000))))
        assert await late.wait() == 0
        assert note.note_size == PAGE
        os.close(note.fd)
    if durable:
        assert (len(recover(spool)[0]), recover(spool)[1]) == (10, [])
    spool.close()


async def test_directory_is_for_root_and_for_this_boot(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "spool")
    note = await add(spool, 1, "nic0", b"data")
    for path in (tmp_path / "spool", directory(tmp_path / "spool")):
        assert path.stat().st_mode & 0o777 == 0o700
    file = directory(tmp_path / "spool") / NAME
    assert file.stat().st_mode & 0o777 == 0o600
    os.close(note.fd)
    spool.close()
    file.parent.rename(tmp_path / "spool" / "another-boot")
    spool = open_spool(tmp_path / "spool")
    assert recover(spool) == ([], [])
    assert spool.next_number() == 1
    spool.close()


async def test_directory_above_stays_as_it_is(tmp_path: Path) -> None:
    """It may be /var/tmp; it is made if it is missing, in a directory that is there."""
    above = tmp_path / "tmp"
    above.mkdir()
    above.chmod(0o1777)
    (above / "empty").mkdir()
    open_spool(above / "spool").close()
    assert left_by_other_boots(above / "spool") == []
    assert above.stat().st_mode & 0o7777 == 0o1777
    assert {path.name for path in above.iterdir()} == {"empty", "spool"}
    open_spool(tmp_path / "new" / "spool").close()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


async def test_what_an_older_version_has_left_above(tmp_path: Path) -> None:
    """It made this boot's directory beside ours, with the same files in it."""
    spool = open_spool(tmp_path / "tmp" / "older")
    os.close((await add(spool, 1, "nic0", b"data")).fd)
    spool.close()
    (directory(tmp_path / "tmp" / "older")).rename(directory(tmp_path / "tmp"))
    (tmp_path / "tmp").chmod(0o755)
    spool = open_spool(tmp_path / "tmp" / "spool")
    assert [dump.record.name for dump in recover(spool)[0]] == ["nic0"]
    os.close((await add(spool, spool.next_number(), "nic1", b"data")).fd)
    with pytest.raises(Busy):
        open_spool(tmp_path / "tmp" / "spool")
    spool.close()
    assert sorted(os.listdir(directory(tmp_path / "tmp"))) == [NAME, "000002.note"]
    assert (tmp_path / "tmp").stat().st_mode & 0o777 == 0o755
    # Another boot.
    another = tmp_path / "tmp" / "0f9a21b4-3c33-4c38-9d0e-0123456789ab"
    directory(tmp_path / "tmp").rename(another)
    spool = open_spool(tmp_path / "tmp" / "spool")
    assert recover(spool) == ([], [])
    assert left_by_other_boots(tmp_path / "tmp" / "spool") == [another]
    spool.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="files of others need root")
async def test_another_user_cannot_pose_as_an_older_version(tmp_path: Path) -> None:
    directory(tmp_path).mkdir()
    os.chown(directory(tmp_path), 65534, 65534)
    spool = open_spool(tmp_path / "spool")
    os.close((await add(spool, 1, "nic0", b"data")).fd)
    spool.close()
    assert os.listdir(directory(tmp_path)) == []
    assert os.listdir(directory(tmp_path / "spool")) == [NAME]


def test_directory_of_another_boot_that_tells_only_where_it_wrote(tmp_path: Path) -> None:
    open_spool(tmp_path / "spool").close()
    for boot in ("empty", "unfinished", "left"):
        (tmp_path / "spool" / boot).mkdir()
    for boot in ("unfinished", "left"):
        (tmp_path / "spool" / boot / CRASH_DIRECTORY).symlink_to("host-time")
        (tmp_path / "spool" / boot / HANDED_OVER).write_text("[]")
    (tmp_path / "spool" / "left" / NAME).touch()
    assert left_by_other_boots(tmp_path / "spool") == [tmp_path / "spool" / "left"]
    assert {path.name for path in (tmp_path / "spool" / "left").iterdir()} == {CRASH_DIRECTORY, HANDED_OVER, NAME}
    assert len(list((tmp_path / "spool").iterdir())) == 2


def test_directory_of_another_boot_that_cannot_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    open_spool(spool).close()
    (spool / "left").mkdir()
    (spool / "left" / NAME).touch()
    # It can be listed, and no more.
    spool.chmod(0o744)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    with without_privileges():
        assert left_by_other_boots(Path("spool")) == [Path("spool/left")]


async def test_what_was_not_committed_is_not_there(tmp_path: Path) -> None:
    before = open_fds()
    spool = open_spool(tmp_path / "spool")
    buffer = await spool.create("nic0", 5000)
    os.pwrite(buffer.fd, b"data", buffer.offset)
    assert os.listdir(directory(tmp_path / "spool")) == []
    closing = buffer.close()
    assert closing is not None
    await closing
    assert buffer.close() is None
    spool.close()
    assert open_fds() == before
    assert os.listdir(directory(tmp_path / "spool")) == []


def flip(offset: int, bit: int = 1) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            (byte,) = os.pread(file.fileno(), 1, offset)
            os.pwrite(file.fileno(), bytes([byte ^ bit]), offset)

    return damage


def describe(**values: object) -> Callable[[Path], object]:
    """Change the description behind the note."""

    def damage(path: Path) -> None:
        data = path.read_bytes()
        content = json.loads(data[8193:]) | values
        path.write_bytes(data[:8193] + json.dumps(content).encode())

    return damage


def become_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def become_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


NOT_IN_THE_SPOOL = "has a description that the spool does not write"
DAMAGES = {
    "data": (flip(64 + 100), "device dump nic0 no longer matches its SHA-256"),
    "last byte": (flip(64 + 4999), "no longer matches its SHA-256"),
    "n_namesz": (flip(0), "not JSON"),
    "n_descsz": (flip(4), "not JSON"),
    "n_descsz, small": (flip(5, 16), "header that does not match"),
    "n_descsz, large": (flip(7, 128), "beyond its segment"),
    "n_type": (flip(8), "does not begin with an NT_VMCOREDD note"),
    "note name": (flip(12), "device dump nic0 has a header that does not match its description"),
    "dump_name": (flip(20), "header that does not match"),
    "behind dump_name": (flip(63), "header that does not match"),
    "separator": (flip(8192), "not JSON"),
    "description": (flip(8193), "not JSON"),
    "empty": (lambda path: os.truncate(path, 0), "does not begin with an NT_VMCOREDD note"),
    "in the header": (lambda path: os.truncate(path, 40), "beyond its segment"),
    "in the data": (lambda path: os.truncate(path, 8000), "beyond its segment"),
    "no description": (lambda path: os.truncate(path, 8192), "not JSON"),
    "in the description": (lambda path: os.truncate(path, 8192 + 30), "not JSON"),
    "garbage": (
        lambda path: path.write_bytes(b"\xde\xad\xbe\xef" * 3000),
        "does not begin with an NT_VMCOREDD note",
    ),
    "garbage JSON": (
        lambda path: path.write_bytes(path.read_bytes()[:8193] + b"[1]"),
        "holds list, not an object",
    ),
    "endless JSON": (lambda path: path.write_bytes(path.read_bytes()[:8193] + b"[" * (2 << 20)), "not JSON"),
    "no sha256": (describe(sha256=None), "sha256 is not of type str"),
    "name": (describe(name="nic1"), "header that does not match"),
    "name that is none": (describe(name="nic\n0"), "has characters other than printable ASCII"),
    "name beyond ASCII": (describe(name="nicü"), "has characters other than printable ASCII"),
    "state": (describe(state="collecting"), NOT_IN_THE_SPOOL),
    "unknown state": (describe(state="odd"), NOT_IN_THE_SPOOL),
    "size": (describe(size=4999), "no longer matches its SHA-256"),
    "large size": (describe(size=5001), NOT_IN_THE_SPOOL),
    "size below 0": (describe(size=-1), NOT_IN_THE_SPOOL),
    "limit": (describe(limit=2**40), "does not fit n_descsz"),
    "another limit": (describe(limit=9000), "header that does not match"),
    "directory": (become_directory, "cannot be read: Is a directory"),
    "FIFO that nobody writes": (become_fifo, "does not begin with an NT_VMCOREDD note"),
    "link": (become_link, "cannot be opened: Too many levels of symbolic links"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_what_is_damaged_is_set_aside(tmp_path: Path, damage: str) -> None:
    spool = open_spool(tmp_path / "spool")
    os.close((await add(spool, 1, "nic0", b"data" * 1250)).fd)
    os.close((await add(spool, 2, "nic2", b"whole")).fd)
    spool.close()
    file = directory(tmp_path / "spool") / NAME
    inflict, problem = DAMAGES[damage]
    inflict(file)

    spool = open_spool(tmp_path / "spool")
    before = open_fds()
    dumps, problems = recover(spool)
    assert open_fds() == before
    assert [dump.record.name for dump in dumps] == ["nic2"]
    (reported,) = problems
    assert reported.startswith(f"{NAME}: ")
    assert problem in reported
    assert reported.isprintable()
    assert not file.exists()
    assert file.with_name(f"{NAME}.damaged").lstat()
    # Its number is not given again, and the next daemon does not forget it.
    assert recover(spool)[1] == [f"{NAME}.damaged: was damaged, and set aside by an earlier daemon"]
    assert spool.next_number() == 3
    os.close((await add(spool, 3, "nic0", b"data")).fd)
    await spool.remove(dump.number for dump in recover(spool)[0])
    assert file.with_name(f"{NAME}.damaged").lstat()
    spool.close()


@pytest.mark.parametrize(
    "name",
    [
        "1.note",
        "0000001.note",
        "garbage.note",
        "-00001.note",
        "\u0660\u0660\u0660\u0660\u0660\u0661.note",
        "\xb2.note",
    ],
)
async def test_name_that_the_spool_does_not_give(tmp_path: Path, name: str) -> None:
    spool = open_spool(tmp_path / "spool")
    os.close((await add(spool, 1, "nic0", b"data")).fd)
    place = directory(tmp_path / "spool")
    (place / NAME).rename(place / name)
    dumps, problems = recover(spool)
    assert dumps == []
    assert problems == [f"{name}: the spool gives no file this name"]
    assert os.listdir(place) == [f"{name}.damaged"]
    assert spool.next_number() in (1, 2)
    spool.close()


async def test_of_two_with_one_name_the_later_is_taken(tmp_path: Path) -> None:
    """The earlier one failed at the very end, and its caller has added it again."""
    spool = open_spool(tmp_path / "spool")
    os.close((await add(spool, 1, "nic0", b"failed")).fd)
    os.close((await add(spool, 2, "nic0", b"acknowledged")).fd)
    dumps, problems = recover(spool)
    assert [(dump.number, dump.record.size) for dump in dumps] == [(2, 12)]
    assert problems == [f"{NAME}: a later device dump nic0 replaces it"]
    assert sorted(os.listdir(directory(tmp_path / "spool"))) == [f"{NAME}.superseded", "000002.note"]
    # It is no loss.
    assert recover(spool)[1] == []
    spool.close()


async def test_other_files_are_left_alone(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "spool")
    (directory(tmp_path / "spool") / "README").write_text("hands off")
    assert recover(spool) == ([], [])
    await spool.remove(dump.number for dump in recover(spool)[0])
    assert os.listdir(directory(tmp_path / "spool")) == ["README"]
    spool.close()


async def test_spool_has_one_user(tmp_path: Path) -> None:
    before = open_fds()
    spool = open_spool(tmp_path / "spool")
    with pytest.raises(Busy, match="another daemon uses this spool directory"):
        open_spool(tmp_path / "spool")
    spool.close()
    spool.close()
    open_spool(tmp_path / "spool").close()
    assert open_fds() == before


@pytest.mark.parametrize("path", ["missing/above/spool", "file/spool", "file"])
async def test_directory_that_cannot_be_used(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    before = open_fds()
    with pytest.raises(WriteFailed, match="cannot use the spool directory: "):
        open_spool(tmp_path / path)
    assert open_fds() == before


async def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mount", 1 << 20) as mount:
        open_spool(mount / "spool").close()
        remount_read_only(mount)
        before = open_fds()
        with pytest.raises(WriteFailed, match="cannot write to the spool directory: Read-only file system"):
            open_spool(mount / "spool")
        assert open_fds() == before


async def test_link_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    directory(tmp_path / "spool").symlink_to(tmp_path)
    with pytest.raises(WriteFailed, match="cannot use the spool directory: "):
        open_spool(tmp_path / "spool")


async def test_link_in_place_of_the_spool(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "spool").symlink_to("elsewhere")
    before = open_fds()
    with pytest.raises(WriteFailed, match="cannot use the spool directory: Not a directory"):
        open_spool(tmp_path / "spool")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert open_fds() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="files of others need root")
@pytest.mark.parametrize("inner", [False, True])
async def test_spool_of_another_user(tmp_path: Path, inner: bool) -> None:
    directory(tmp_path / "spool").mkdir(parents=True)
    os.chown(directory(tmp_path / "spool") if inner else tmp_path / "spool", 65534, 65534)
    before = open_fds()
    with pytest.raises(WriteFailed, match="cannot use the spool directory: it belongs to user 65534"):
        open_spool(tmp_path / "spool")
    assert open_fds() == before


async def test_spool_that_others_may_write_to(tmp_path: Path) -> None:
    directory(tmp_path / "spool").mkdir(parents=True)
    for path in (tmp_path / "spool", directory(tmp_path / "spool")):
        path.chmod(0o777)
    open_spool(tmp_path / "spool").close()
    for path in (tmp_path / "spool", directory(tmp_path / "spool")):
        assert path.stat().st_mode & 0o777 == 0o700


async def test_remove_and_clear(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "spool")
    for number in (1, 2, 3):
        os.close((await add(spool, number, f"nic{number}", b"data")).fd)
    await spool.remove([2])
    assert [dump.record.name for dump in recover(spool)[0]] == ["nic1", "nic3"]
    # Another program may have done it.
    await spool.remove([2, 3])
    assert [dump.record.name for dump in recover(spool)[0]] == ["nic1"]
    await spool.remove(dump.number for dump in recover(spool)[0])
    assert recover(spool) == ([], [])
    assert spool.next_number() == 1
    spool.close()


async def test_number_that_is_in_use(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "spool")
    os.close((await add(spool, 1, "nic0", b"data")).fd)
    buffer = await spool.create("nic1", 10)
    with pytest.raises(WriteFailed, match="nic1: cannot be kept in the spool: File exists"):
        await spool.commit(Commit(1, buffer, *kept(record_of("nic1", b"", 10))))
    buffer.close()
    spool.close()


async def test_no_space(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mount", 64 << 10) as mount:
        spool = open_spool(mount / "spool")
        before = open_fds()
        with pytest.raises(
            NoSpace, match=r"^device dump nic0: cannot be kept in the spool: No space left on device$"
        ):
            await spool.create("nic0", 100_000)
        assert open_fds() == before
        # Room that a collector was promised is there, whatever else happens.
        buffer = await spool.create("nic0", 40_000)
        with pytest.raises(NoSpace):
            await spool.create("nic1", 40_000)
        os.pwrite(buffer.fd, b"x" * 40_000, buffer.offset)
        os.close((await spool.commit(Commit(1, buffer, *kept(record_of("nic0", b"x" * 40_000, 40_000))))).fd)
        spool.close()


async def test_no_space_for_the_description(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mount", 64 << 10) as mount:
        spool = open_spool(mount / "spool")
        free = os.statvfs(mount).f_bavail * PAGE
        buffer = await spool.create("nic0", free - 64)
        data = b"x" * buffer.size
        os.pwrite(buffer.fd, data, buffer.offset)
        with pytest.raises(NoSpace):
            await spool.commit(Commit(1, buffer, *kept(record_of("nic0", data, len(data)))))
        closing = buffer.close()
        assert closing is not None
        await closing
        assert recover(spool) == ([], [])
        os.close((await add(spool, 1, "nic0", b"data")).fd)
        spool.close()


async def test_free_space_is_kept(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mount", 1 << 20) as mount:
        spool = open_spool(mount / "spool", keep_free=512 << 10)
        closing = (await spool.create("nic0", 400 << 10)).close()
        assert closing is not None
        await closing
        with pytest.raises(NoSpace):
            await spool.create("nic0", 600 << 10)
        spool.close()


async def test_room_is_not_taken_twice(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mount", 64 << 20) as mount:
        spool = open_spool(mount / "spool", keep_free=40 << 20)
        for _ in range(20):
            tries = (spool.create(f"nic{number}", 20 << 20) for number in range(8))
            made = await asyncio.gather(*tries, return_exceptions=True)
            assert sorted(type(one).__name__ for one in made) == ["Buffer", *["NoSpace"] * 7]
            for buffer in made:
                if isinstance(buffer, Buffer) and (closing := buffer.close()):
                    await closing
        spool.close()


async def test_order_beyond_six_digits(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "spool")
    for number in (1_000_000, 999_999, 2):
        os.close((await add(spool, number, f"nic{number}", b"data")).fd)
    os.close((await add(spool, 1_000_001, "nic999999", b"again")).fd)
    dumps, problems = recover(spool)
    assert [dump.number for dump in dumps] == [2, 1_000_000, 1_000_001]
    assert problems == ["999999.note: a later device dump nic999999 replaces it"]
    spool.close()
    spool = open_spool(tmp_path / "spool")
    assert spool.next_number() == 1_000_002
    spool.close()


async def test_spool_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mount", 1 << 20) as mount:
        spool = open_spool(mount / "spool")
        os.close((await add(spool, 1, "nic0", b"data")).fd)
        spool.close()
        remount_read_only(mount)
        before = open_fds()
        spool = Spool.lock(mount / "spool", PAGE, LITTLE, 0)
        assert [dump.record.name for dump in recover(spool)[0]] == ["nic0"]
        with pytest.raises(WriteFailed, match=r"^cannot write to the spool directory: Read-only file system$"):
            spool.check_writable()
        with pytest.raises(Busy):
            Spool.lock(mount / "spool", PAGE, LITTLE, 0)
        spool.keep_in_memory()
        note = await add(spool, 2, "nic1", b"data")
        assert fcntl.fcntl(note.fd, fcntl.F_GET_SEALS)
        os.close(note.fd)
        # The one is in memory, the other cannot be removed.
        await spool.remove([2])
        with pytest.raises(WriteFailed, match="Read-only file system"):
            await spool.remove([1])
        spool.refuse(WriteFailed("it is read-only"))
        for _ in range(2):
            with pytest.raises(WriteFailed, match=r"^device dump nic2: it is read-only$"):
                await spool.create("nic2", 100)
        spool.close()
        assert open_fds() == before


async def test_too_large_for_a_note(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "spool")
    with pytest.raises(TooLarge):
        await spool.create("nic0", 1 << 32)
    spool.close()


@pytest.mark.parametrize("durable", [False, True])
async def test_zeros_behind_the_true_size(tmp_path: Path, durable: bool) -> None:
    spool = open_spool(tmp_path / "spool") if durable else Spool.in_memory(PAGE, LITTLE)
    buffer = await spool.create("nic0", 5000)
    os.pwrite(buffer.fd, b"\xee" * buffer.reserved, 0)
    note = await spool.commit(Commit(1, buffer, *kept(record_of("nic0", b"\xee" * 10, 5000))))
    header = pack_vmcoredd_header(b"nic0", PAGE, LITTLE)
    assert os.pread(note.fd, 8192, 0) == (header + b"\xee" * 10).ljust(8192, b"\0")
    os.close(note.fd)
    spool.close()


async def test_memory() -> None:
    before = open_fds()
    spool = Spool.in_memory(PAGE, LITTLE)
    note = await add(spool, 1, "nic0", b"data")
    assert os.pread(note.fd, 4, 64) == b"data"
    assert os.fstat(note.fd).st_size == note.note_size
    assert recover(spool) == ([], [])
    assert spool.next_number() == 1
    await spool.remove([1])
    await spool.remove(dump.number for dump in recover(spool)[0])
    os.close(note.fd)
    spool.close()
    assert open_fds() == before


@pytest.mark.parametrize("full", [False, True], ids=["space", "full"])
async def test_temporary_spool(tmp_path: Path, full: bool) -> None:
    before = open_fds()
    with tmpfs(tmp_path / "disk", 64 * PAGE) as disk:
        if full:
            with (disk / "file").open("wb", buffering=0) as file:
                assert file.write(bytes(128 * PAGE)) < 128 * PAGE
        found = os.listdir(disk)
        spool = Spool.temporary(disk, PAGE, LITTLE)
        # One that the disk has no space for does not send the others into memory.
        large = await add(spool, 1, "large", b"data", 1 << 20)
        small = await add(spool, 2, "small", b"data")
        for note, in_memory in ((large, True), (small, full)):
            assert os.readlink(f"/proc/self/fd/{note.fd}").startswith("/memfd:") == in_memory
            header = pack_vmcoredd_header(note.dump_name.encode(), PAGE, LITTLE)
            assert os.pread(note.fd, PAGE, 0) == (header + b"data").ljust(PAGE, b"\0")
            os.close(note.fd)
        assert os.listdir(disk) == found
        spool.close()
    assert open_fds() == before


def test_what_outlives_the_service(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "spool")
    assert spool.keeps
    # Those that are there already are on the disk.
    spool.refuse(NoSpace("full"))
    assert spool.keeps
    spool.keep_in_memory()
    assert not spool.keeps
    spool.close()
    temporary = Spool.temporary(tmp_path, PAGE, LITTLE)
    assert not temporary.keeps
    temporary.close()


async def test_temporary_spool_without_a_directory(tmp_path: Path) -> None:
    note = await add(Spool.temporary(tmp_path / "missing", PAGE, LITTLE), 1, "nic0", b"data")
    assert os.pread(note.fd, 4, 64) == b"data"
    os.close(note.fd)


async def test_big_endian_spool(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool", PAGE, ByteOrder.BIG, 0)
    os.close((await add(spool, 1, "nic0", b"data")).fd)
    (dump,), problems = recover(spool)
    assert (dump.record.name, problems) == ("nic0", [])
    spool.close()


async def test_buffer_that_nobody_waits_for_any_more(tmp_path: Path) -> None:
    before = open_fds()
    spool = open_spool(tmp_path / "spool")
    go = Event()
    # The only thread is busy when the caller leaves; it makes the buffer later.
    executor = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(executor)
    executor.submit(go.wait)
    task = asyncio.create_task(spool.create("nic0", 100))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    await asyncio.to_thread(lambda: None)
    spool.close()
    await eventually(lambda: open_fds() == before)


async def test_errors_are_of_the_family(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "spool")
    buffer = await spool.create("nic0", 100)
    os.close(buffer.fd)
    with pytest.raises(VmcoreddError, match="nic0: cannot be kept in the spool: Bad file descriptor"):
        await spool.commit(Commit(1, buffer, *kept(record_of("nic0", b"", 100))))
    buffer.fd = -1
    spool.close()

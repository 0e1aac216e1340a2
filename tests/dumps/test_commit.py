# SPDX-License-Identifier: LGPL-2.1-or-later
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.resources import tmpfs
from vmcoredd_daemon.dumps.buffer import Buffer
from vmcoredd_daemon.dumps.commit import Commit, commit_to_disk, commit_without_name
from vmcoredd_daemon.dumps.recovery import load_note
from vmcoredd_daemon.dumps.transfer import Transfers
from vmcoredd_daemon.errors import CollectorFailed
from vmcoredd_daemon.manifest import ManifestDump
from vmcoredd_daemon.note import ByteOrder, DeviceDumpNote

PAGE = 4096
LITTLE = ByteOrder.LITTLE
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


class Rig:
    """A directory, and device dumps without a byte for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.directory = os.open(path, os.O_RDONLY)
        self.fds: list[int] = []

    def commit(self, number: int, error: Exception | None = None) -> Commit:
        fd = os.open(self.path, os.O_RDWR | os.O_TMPFILE)
        os.posix_fallocate(fd, 0, PAGE)
        self.fds.append(fd)
        name = f"nic{number}"

        def describe(sha256: str) -> ManifestDump:
            if error is not None:
                raise error
            return ManifestDump(name, 0, 100, sha256, "test", "complete", 1, 2)

        return Commit(number, Buffer(fd, name, 100, PAGE, Transfers()), 0, describe)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path))

    def close(self) -> None:
        for fd in (self.directory, *self.fds):
            os.close(fd)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def test_many_in_one_go(rig: Rig) -> None:
    notes = commit_to_disk(rig.directory, LITTLE, [rig.commit(number) for number in (3, 1, 2)])
    assert rig.names() == ["000001.note", "000002.note", "000003.note"]
    for number, note in zip((3, 1, 2), notes, strict=True):
        assert isinstance(note, DeviceDumpNote)
        record, loaded = load_note(note.fd)
        assert (record.name, loaded) == (f"nic{number}", note)
        assert os.path.samestat(os.fstat(note.fd), (rig.path / f"00000{number}.note").stat())


def test_each_fails_alone(rig: Rig) -> None:
    """One is refused by what describes it, one cannot be written, one has a name that is taken."""
    (rig.path / "000003.note").touch()
    refused = CollectorFailed("changed its size")
    commits = [rig.commit(1, refused), rig.commit(2), rig.commit(3), rig.commit(4)]
    reading = os.open(f"/proc/self/fd/{rig.fds[1]}", os.O_RDONLY)
    os.dup2(reading, rig.fds[1])
    os.close(reading)
    first, second, third, fourth = commit_to_disk(rig.directory, LITTLE, commits)
    assert first is refused
    assert isinstance(second, OSError)
    assert isinstance(third, FileExistsError)
    assert isinstance(fourth, DeviceDumpNote)
    assert rig.names() == ["000003.note", "000004.note"]


def test_no_room_for_one(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mount", 4 * PAGE) as mount:
        rig = Rig(mount)
        commits = [rig.commit(1), rig.commit(2)]
        # Room for the description of the first, and for no more.
        (mount / "hog").write_bytes(bytes((os.statvfs(mount).f_bavail - 1) * PAGE))
        first, second = commit_to_disk(rig.directory, LITTLE, commits)
        assert isinstance(first, DeviceDumpNote)
        assert isinstance(second, OSError)
        assert rig.names() == ["000001.note", "hog"]
        rig.close()


def test_directory_that_cannot_be_synced(rig: Rig) -> None:
    """No caller is told of what has its name then, so nothing has it in the end."""
    os.mkdir(rig.path / "kept")
    commits = [rig.commit(1), rig.commit(2, CollectorFailed("refused")), rig.commit(3)]
    # A descriptor by which files can be linked, and that fsync(2) refuses.
    directory = os.open(rig.path, os.O_PATH)
    outcomes = commit_to_disk(directory, LITTLE, commits)
    os.close(directory)
    assert [type(outcome) for outcome in outcomes] == [OSError, CollectorFailed, OSError]
    assert rig.names() == ["kept"]


def test_nothing_is_synced_where_nothing_is_to_be_kept(rig: Rig) -> None:
    refused = CollectorFailed("refused")
    assert commit_to_disk(-1, LITTLE, [rig.commit(1, refused)]) == [refused]


def test_memory_has_no_description() -> None:
    fd = os.memfd_create("nic0")
    record = ManifestDump("nic0", 0, 100, EMPTY, "test", "complete", 1, 2)
    os.ftruncate(fd, PAGE)
    buffer = Buffer(fd, "nic0", 100, PAGE, Transfers())
    note = commit_without_name(LITTLE, Commit(1, buffer, 0, lambda _: record))
    assert os.fstat(fd).st_size == note.note_size == PAGE
    os.close(fd)

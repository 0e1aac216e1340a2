# SPDX-License-Identifier: LGPL-2.1-or-later
"""Archives that would take a reader all its time or memory."""

import io
import tarfile

import pytest

from vmcoredd_daemon.decoders.members import MAX_HEADER, MAX_MEMBERS, read_members
from vmcoredd_daemon.errors import InvalidDump


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return a header with a size that tarfile would not write: in base 256, as GNU's."""
    info = tarfile.TarInfo(name)
    info.type = kind
    data = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    data[124:136] = (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


END = bytes(1024)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("size", [-512, -1024, -1, -(1 << 80)])
def test_size_below_zero_leads_to_no_header_again(size: int) -> None:
    found = read_members(io.BytesIO(header("first", 0) + header("second", size) * 3 + END))
    assert list(found.files) == ["first"]
    assert found.problems == (f"the archive is damaged: second: its size is {size}",)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE])
def test_long_name_takes_no_memory(kind: bytes) -> None:
    data = header("first", 0) + header("././@LongLink", MAX_HEADER + 1, kind) + bytes(MAX_HEADER + 512) + END
    found = read_members(io.BytesIO(data))
    assert list(found.files) == ["first"]
    assert len(found.problems) == 1


def test_number_of_members_and_problems_is_bounded() -> None:
    link = header("link", 0, tarfile.SYMTYPE)
    found = read_members(io.BytesIO(header("first", 0) + link * (MAX_MEMBERS + 10) + END))
    assert list(found.files) == ["first"]
    assert len(found.problems) == MAX_MEMBERS
    assert found.problems[-1] == f"only the first {MAX_MEMBERS} members are read"
    same = read_members(io.BytesIO(header("same", 0) * (MAX_MEMBERS + 10) + END))
    assert same.problems == (f"only the first {MAX_MEMBERS} members are read",)


def test_directories_are_no_problem() -> None:
    found = read_members(io.BytesIO(header("d/", 0, tarfile.DIRTYPE) + header("d/x", 0) + END))
    assert (list(found.files), found.problems) == (["d/x"], ())
    with pytest.raises(InvalidDump):
        read_members(io.BytesIO(header("d/", 0, tarfile.DIRTYPE) + END))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "body", [b"1" * 40_000, b"1" * 40_000 + b" ", b"12 path=xyz", b"999999 path=x\n", b"3 \n"]
)
def test_extended_header_that_is_none(body: bytes) -> None:
    """tarfile takes hours of the first (CVE-2024-6232)."""
    data = header("first", 0) + header("pax", len(body), tarfile.XHDTYPE) + body + bytes(-len(body) % 512) + END
    found = read_members(io.BytesIO(data))
    assert (list(found.files), len(found.problems)) == (["first"], 1)


@pytest.mark.timeout(20)
def test_global_headers_pile_up_nowhere() -> None:
    keys = b"".join(b"%d k%d=v\n" % (len(b"NN k%d=v\n" % number), number) for number in range(10_000, 14_000))
    pile = (header("g", len(keys), tarfile.XGLTYPE) + keys + bytes(-len(keys) % 512)) * 200
    found = read_members(io.BytesIO(pile + header("last", 0) + END))
    assert (list(found.files), found.problems) == (["last"], ())


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_every_kind(form: int) -> None:
    """As tarfile writes them: it is a judge of names, if not a reader of hostile ones."""
    names = ["short", "deep/" * 19 + "name", "d" * 80 + "/" + "n" * 90, "\u00fc"]
    if form != tarfile.USTAR_FORMAT:
        names += ["l" * 300, "long/" * 60 + "\u20ac"]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = number * 300, 1_700_000_000 + number
            archive.addfile(info, io.BytesIO(bytes([number]) * info.size))
    found = read_members(packed)
    assert (list(found.files), found.problems) == (names, ())
    for number, member in enumerate(found.files.values()):
        assert (member.read(), member.mtime) == (bytes([number]) * (number * 300), 1_700_000_000 + number)


def test_archive_that_is_cut_off() -> None:
    data = header("first", 600) + b"x" * 1024 + header("second", 600) + b"y" * 100
    found = read_members(io.BytesIO(data))
    assert {name: len(member.read()) for name, member in found.files.items()} == {"first": 600, "second": 100}
    assert found.problems == ("the archive is damaged: it ends inside second",)

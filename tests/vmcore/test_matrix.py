# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every vmcore that makedumpfile writes, every way to attach, and every reader."""

import io
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lib.attaching import attach_data, contents, other_notes
from tests.lib.elf_writer import PAGE
from tests.lib.external_tools import crash, makedumpfile, osrelease, readelf, same_memory
from tests.lib.flattened_writer import makedumpfile_flat, makedumpfile_restore, overlaps, split
from tests.lib.vmcore_rig import Rig
from vmcoredd_daemon.cli.attach import open_files
from vmcoredd_daemon.manifest import MANIFEST_NAME
from vmcoredd_daemon.note import note_size
from vmcoredd_daemon.vmcore.attach.dump_files import NamedFile
from vmcoredd_daemon.vmcore.attach.stream import attach_stream

KERNELS = {"kernel_a": b"a" * 5000, "kernel_b": b"b"}
FIRST = {"nic": bytes(range(256)) * 100, "disk": b"d"}
SECOND = {"nic": b"again", "wifi": b"w" * 9000}
RELEASE = "6.1.0-56-cloud-amd64"
# With mmap, makedumpfile 1.7.2 -E reads the wrong memory of a file that is filtered already and has its loads at
# pages: docs/kernel-parity.md.
FILTER = ["-d", "31", "--non-mmap"]


@pytest.fixture(scope="module")
def sources(source_vmcore: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, Path]]:
    """The sample without device dumps, and with those of a kernel, which no manifest describes."""
    with Rig(tmp_path_factory.mktemp("with_dumps")) as rig:
        rig.convert(source_vmcore, *(rig.dump(name, data) for name, data in KERNELS.items()))
        yield {False: source_vmcore, True: rig.vmcore}


def dmesg(vmcore: Path) -> bytes:
    log = vmcore.with_suffix(".dmesg")
    log.unlink(missing_ok=True)
    return makedumpfile(vmcore, log, "--dump-dmesg", "--non-mmap").read_bytes()


def listed(vmcore: Path) -> list[str]:
    return [dump.name for dump in crash(vmcore)]


def padded(dumps: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data.ljust(note_size(len(data), PAGE) - 64, b"\0") for name, data in dumps.items()}


def stream_data(flat: Path, **dumps: bytes) -> None:
    """Attach as attach --stream does."""
    files = []
    for name, data in dumps.items():
        path = flat.with_name(f"{flat.name}.{name}")
        path.write_bytes(data)
        files.append(NamedFile(name, str(path)))
    sink = io.BytesIO()
    with ExitStack() as stack, flat.open("rb") as source:
        additions, problems = open_files(files, stack)
        assert problems + attach_stream(source, sink, additions, "FILE") == []
    assert not overlaps(split(sink.getvalue()))
    flat.write_bytes(sink.getvalue())


def judge(vmcore: Path, names: list[str], log: bytes, others: list[tuple[bytes, bytes]]) -> None:
    """Let every reader of files that are in order read this one."""
    assert listed(vmcore) == [*names, MANIFEST_NAME]
    assert osrelease(vmcore) == RELEASE
    assert dmesg(vmcore) == log
    assert other_notes(vmcore) == others


@pytest.mark.parametrize("dumps_before", [False, True])
@pytest.mark.parametrize("option", ["ELF", "-E", "-c", "-l", "-z", "-p"])
def test_file(sources: dict[bool, Path], tmp_path: Path, option: str, dumps_before: bool) -> None:
    memory, vmcore = tmp_path / "before", tmp_path / "vmcore"
    if option == "ELF":
        shutil.copy(sources[dumps_before], memory)
    else:
        makedumpfile(sources[dumps_before], memory, option, *FILTER)
    log, others = dmesg(memory), other_notes(memory)
    assert log
    shutil.copy(memory, vmcore)
    before = padded(KERNELS) if dumps_before else {}

    attached = attach_data(vmcore, **FIRST)
    assert (attached.altered, attached.warnings) == ((), ())
    assert contents(vmcore) == before | FIRST
    judge(vmcore, [*before, *FIRST], log, others)

    attach_data(vmcore, **SECOND)
    names = [*before, "disk", *SECOND]
    assert list(contents(vmcore)) == names
    assert contents(vmcore) == before | FIRST | SECOND
    judge(vmcore, names, log, others)
    assert vmcore.stat().st_size < memory.stat().st_size + 64 * 1024

    if option in {"ELF", "-E"}:
        assert same_memory(vmcore, memory)
        assert [owner for owner, _ in readelf(vmcore)].count("LINUX") == len(names) + 1
    # No attach makes a file one that makedumpfile needs --non-mmap for.
    again = FILTER if (option, dumps_before) == ("ELF", True) else FILTER[:2]
    other = {"ELF": "-E", "-E": "-E", "-l": "-c"}.get(option, "-l")
    refiltered = makedumpfile(vmcore, tmp_path / "refiltered", other, *again)
    judge(refiltered, names, log, others)
    assert contents(refiltered) == contents(vmcore)


@pytest.mark.parametrize("dumps_before", [False, True])
@pytest.mark.parametrize(
    "options", [["-E"], ["-E", *FILTER], *([option, *FILTER] for option in ("-c", "-l", "-z", "-p"))]
)
def test_flattened(sources: dict[bool, Path], tmp_path: Path, options: list[str], dumps_before: bool) -> None:
    flat = makedumpfile_flat(sources[dumps_before], tmp_path / "flat", *options)
    memory = makedumpfile_restore(flat, tmp_path / "before")
    log, others = dmesg(memory), other_notes(flat)
    assert log
    before = padded(KERNELS) if dumps_before else {}

    stream_data(flat, **FIRST)
    assert contents(flat) == before | FIRST
    first = makedumpfile_restore(flat, tmp_path / "first")
    judge(first, [*before, *FIRST], log, others)

    attach_data(flat, **SECOND)
    names = [*before, "disk", *SECOND]
    assert list(contents(flat)) == names
    assert contents(flat) == before | FIRST | SECOND
    second = makedumpfile_restore(flat, tmp_path / "second")
    assert contents(second) == contents(flat)
    judge(second, names, log, others)
    if options[0] == "-E":
        assert same_memory(first, memory)
        assert same_memory(second, memory)
        assert [owner for owner, _ in readelf(second)].count("LINUX") == len(names) + 1
    refiltered = makedumpfile(second, tmp_path / "refiltered", "-c" if options[0] == "-l" else "-l", *FILTER[:2])
    judge(refiltered, names, log, others)
    assert contents(refiltered) == contents(flat)

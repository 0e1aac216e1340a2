# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd diff: device dumps by name, their data, and what the decoders make of these."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.lib.attaching import attach_data
from tests.lib.elf_writer import Core, device_dump
from tests.lib.sample import small_source
from tests.lib.vmcore_dumps import DATA
from tests.lib.vmcoredd import run
from vmcoredd_daemon.collectors.builtin.archive import Archive

SMART = "smart_log"


def smart_log(kelvins: int, media_errors: int) -> bytes:
    """Return an archive with the log page: Composite Temperature at 1, Media and Data Integrity Errors at 160."""
    page = bytearray(512)
    page[1:3] = kelvins.to_bytes(2, "little")
    page[3:6] = bytes((100, 10, 5))
    page[160:162] = media_errors.to_bytes(2, "little")
    data = io.BytesIO()
    made = Archive(data)
    made.add(SMART, len(page), [bytes(page)])
    made.finish()
    return data.getvalue()


def attached(directory: Path, **dumps: bytes) -> Path:
    directory.mkdir()
    vmcore = small_source(directory)
    attach_data(vmcore, **dumps)
    return vmcore


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return (
        attached(tmp_path / "a", nvme_1=smart_log(311, 0), gone=b"g" * 5000, same=DATA, log=b"one\ntwo\nthree\n"),
        attached(tmp_path / "b", nvme_1=smart_log(354, 2), same=DATA, new=b"n" * 3000, log=b"one\nzero\ntwo\n"),
    )


def compared(*arguments: object) -> list[dict[str, Any]]:
    result = run("diff", "--json", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_device_dumps_that_differ(two: tuple[Path, Path]) -> None:
    found = compared(*two)
    assert [(each["name"], each["change"]) for each in found] == [
        ("nvme_1", "changed"),
        ("gone", "removed"),
        ("same", "same"),
        ("log", "changed"),
        ("new", "added"),
    ]
    by_name = {each["name"]: each for each in found}
    assert (by_name["gone"]["before"]["size"], by_name["gone"]["after"]) == (5000, None)
    assert (by_name["new"]["before"], by_name["new"]["after"]["index"]) == (None, 2)
    assert by_name["same"]["before"]["sha256"] == by_name["same"]["after"]["sha256"]
    assert by_name["same"]["fields"] == by_name["gone"]["fields"] == []
    assert [(each["name"], each["change"]) for each in compared(*reversed(two))][-1] == ("gone", "added")


def test_decoded_fields_that_differ(two: tuple[Path, Path]) -> None:
    fields = compared(*two)[0]["fields"]
    by_name = {(each["part"], each["field"]): (each["before"], each["after"]) for each in fields}
    assert by_name[SMART, "Composite Temperature"] == (311, 354)
    assert by_name[SMART, "Media and Data Integrity Errors"] == (0, 2)
    assert "2 media errors" in by_name["", "Attention"][1]
    # What is the same is not there.
    assert (SMART, "Percentage Used") not in by_name
    assert len({part for part, _ in by_name}) == 2


def test_table(two: tuple[Path, Path]) -> None:
    result = run("diff", *two)
    assert (result.returncode, result.stderr) == (0, "")
    first, *others = result.stdout.split("\n\n")
    assert first.splitlines() == [
        "CHANGE   NAME    BEFORE  AFTER",
        "changed  nvme_1    2.0K   2.0K",
        "removed  gone      4.8K      -",
        "changed  log        14B    13B",
        "added    new          -   2.9K",
    ]
    assert [text.partition("\n")[0] for text in others] == ["nvme_1", "log"]
    assert "38 C" in others[0]
    assert "81 C" in others[0]


def test_line_that_is_inserted_in_a_text_moves_no_other(two: tuple[Path, Path]) -> None:
    (log,) = (each for each in compared(*two) if each["name"] == "log")
    changes = [(each["before"], each["after"]) for each in log["fields"] if each["field"] == "text"]
    assert changes == [("three", None), (None, "zero")]


def test_the_same(two: tuple[Path, Path], tmp_path: Path) -> None:
    assert run("diff", two[0], two[0]).stdout == "The 4 device dumps are the same.\n"
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(two[0].read_bytes()))
    assert run("diff", two[0], packed).stdout == "The 4 device dumps are the same.\n"
    one = Core(device_dump(b"one", b"1")).write(tmp_path / "one")
    assert run("diff", one, one).stdout == "The 1 device dump is the same.\n"
    none = small_source(tmp_path)
    assert run("diff", none, none).stdout == "No device dumps.\n"


def test_names_that_several_have_are_compared_in_their_order(tmp_path: Path) -> None:
    def core(name: str, *dumps: bytes) -> Path:
        return Core(b"".join(device_dump(b"x", dump) for dump in dumps)).write(tmp_path / name)

    found = compared(core("a", b"1", b"2"), core("b", b"1", b"3", b"4"))
    assert [each["change"] for each in found] == ["same", "changed", "added"]
    assert (found[1]["before"]["index"], found[1]["after"]["index"]) == (1, 1)


def test_data_that_were_altered_differ(two: tuple[Path, Path], tmp_path: Path) -> None:
    """The manifest still has the old checksum."""
    altered = tmp_path / "altered"
    altered.write_bytes(two[0].read_bytes().replace(DATA, b"!" + DATA[1:]))
    found = {each["name"]: each["change"] for each in compared(two[0], altered)}
    assert found == {"nvme_1": "same", "gone": "same", "same": "changed", "log": "same"}


def test_hostile_names_and_many_differences(tmp_path: Path) -> None:
    def core(name: str, first: int) -> Path:
        lines = "".join(f"\x1b[2J{number}\n" for number in range(first, first + 3000)).encode()
        return Core(device_dump(b"\x1b[31m", lines)).write(tmp_path / name)

    paths = core("a", 0), core("b", 5000)
    result = run("diff", *paths)
    assert result.returncode == 0
    assert "\x1b" not in result.stdout
    assert len(result.stdout.splitlines()) < 1020
    assert len(compared(*paths)[0]["fields"]) <= 1000


@pytest.mark.parametrize(
    ("names", "status", "reason"),
    [
        (["a"], 2, "the following arguments are required: VMCORE (see "),
        (["a", "b", "c"], 2, "unrecognized arguments: c (see "),
        (["nothing", "nothing"], 1, "nothing: No such file or directory"),
        (["-", "x"], 1, "-: No such file or directory"),
    ],
)
def test_wrong_usage(names: list[str], status: int, reason: str) -> None:
    result = run("diff", *names)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (status, "", 1)
    assert result.stderr.startswith(f"vmcoredd: {reason}")

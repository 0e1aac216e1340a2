# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files as Linux names and writes them: fs/pstore, drivers/firmware/efi/efi-pstore.c, drivers/acpi/apei/erst.c."""

from __future__ import annotations

import io
import struct
import zlib

import pytest

from tests.decoders.damage import endures
from vmcoredd_daemon.collectors.builtin.archive import Archive
from vmcoredd_daemon.decoders.builtin.pstore import MAX_TEXT, decode
from vmcoredd_daemon.decoders.decoded import Decoded, Field, Section, Text
from vmcoredd_daemon.errors import InvalidDump

NOON = 1777896000
"""2026-05-04 12:00:00 UTC."""

PANIC = "<0>[   12.345678] Kernel panic - not syncing: sysrq triggered crash"

Files = dict[str, tuple[int, bytes]]


def archived(files: Files) -> bytes:
    file = io.BytesIO()
    archive = Archive(file)
    for name, (time, content) in files.items():
        archive.add(name, len(content), [content], time)
    archive.finish()
    return file.getvalue()


def part(reason: str, count: int, number: int, *lines: str) -> bytes:
    return f"{reason}#{count} Part{number}\n".encode() + "".join(f"{line}\n" for line in lines).encode()


def efi(time: int, number: int, count: int) -> str:
    """The name of a part in EFI variables: generic_id() in efi-pstore.c."""
    return f"dmesg-efi-{(time * 100 + number) * 1000 + count}"


def efi_panic(time: int = NOON, count: int = 1) -> Files:
    """Three parts, the newest is Part 1; the clock goes on between them."""
    return {
        efi(time, 1, count): (time, part("Panic", count, 1, "fifth", PANIC)),
        efi(time, 2, count): (time, part("Panic", count, 2, "third", "fourth")),
        efi(time + 1, 3, count): (time + 1, part("Panic", count, 3, "first", "second")),
    }


def machine_check() -> bytes:
    status = 1 << 63 | 1 << 61 | 1 << 60 | 1 << 57 | 0x0108
    head = struct.pack("<7Q", status, 0, 0x1234000, 5, 0xFFFFFFFF81000000, 77, NOON)
    head += struct.pack("<BBBBIBBBBIII", 0, 0, 6, 0, 0x50657, 0x10, 9, 0, 1, 12, 1, 0x24)
    return head + struct.pack("<QQQQIQ", 0xF000C14, 0, 0, 0x1122334455667788, 0x5003604, 0)


def samples() -> list[tuple[str, bytes]]:
    return [
        ("pstore", archived(efi_panic() | efi_panic(NOON + 9000))),
        (
            "pstore",
            archived(
                {
                    f"dmesg-erst-{(NOON << 32) + 1}": (
                        NOON,
                        part("Oops", 1, 1, "BUG: unable to handle page fault"),
                    ),
                    f"mce-erst-{(NOON << 32) + 2}": (NOON, machine_check()),
                    "console-ramoops-0": (NOON, b"[    0.000000] Linux version\n" * 20),
                    "pmsg-ramoops-0": (NOON, b"from user\0space"),
                    "dmesg-efi-177789600001001.enc.z": (NOON, b"\x28\xb5\x2f\xfd packed"),
                }
            ),
        ),
    ]


def decoded(files: Files) -> Decoded:
    return decode("pstore", io.BytesIO(archived(files)))


def text(section: Section) -> str:
    return next(each.text for each in section.parts if isinstance(each, Text))


def fields(section: Section) -> dict[str, Field]:
    return {each.name: each for each in section.parts if isinstance(each, Field)}


def test_parts_are_put_together_from_the_oldest_line() -> None:
    of = decoded(efi_panic())
    assert len(of.sections) == 1
    assert text(of.sections[0]) == f"first\nsecond\nthird\nfourth\nfifth\n{PANIC}\n"
    assert fields(of.sections[0])["Reason"].value == "Panic"
    assert fields(of.sections[0])["Time"].text == "2026-05-04 12:00:00 UTC"
    assert str(fields(of.sections[0])["Files"].value).split() == [
        efi(NOON + 1, 3, 1),
        efi(NOON, 2, 1),
        efi(NOON, 1, 1),
    ]
    assert of.title == "pstore of EFI variables"
    assert of.findings == ("Kernel panic - not syncing: sysrq triggered crash",)
    assert of.facts == ("1 panic", "the last at 2026-05-04 12:00:00 UTC")
    assert of.problems == ()


def test_order_in_the_archive_does_not_matter() -> None:
    backwards = dict(reversed(efi_panic().items()))
    assert text(decoded(backwards).sections[0]) == text(decoded(efi_panic()).sections[0])


def test_boots_that_count_alike_are_apart() -> None:
    of = decoded(efi_panic() | efi_panic(NOON + 9000))
    assert [text(section).count("first") for section in of.sections] == [1, 1]
    assert [fields(section)["Time"].value for section in of.sections] == [NOON + 9000, NOON]
    assert of.findings == ("Kernel panic - not syncing: sysrq triggered crash (2 times)",)
    assert of.facts[0] == "2 panics"


def test_events_of_one_boot_are_apart() -> None:
    oops = {efi(NOON, 1, 1): (NOON, part("Oops", 1, 1, "BUG: kernel NULL pointer dereference, address: 0"))}
    of = decoded(oops | efi_panic(NOON + 5, 2))
    assert [section.name.split()[0] for section in of.sections] == ["Panic#2", "Oops#1"]
    assert of.findings == (
        "Kernel panic - not syncing: sysrq triggered crash",
        "BUG: kernel NULL pointer dereference, address: 0",
    )
    assert set(of.facts[:2]) == {"1 panic", "1 oops"}


def test_erst_numbers_records_in_the_order_of_writing() -> None:
    first = NOON << 32
    files = {
        f"dmesg-erst-{first + 1}": (NOON, part("Panic", 1, 1, "last")),
        f"dmesg-erst-{first + 2}": (NOON, part("Panic", 1, 2, "middle")),
        f"dmesg-erst-{first + 3}": (NOON, part("Panic", 1, 3, "oldest")),
        # Without a clock, times are those of the mount: the same count of the next boot.
        f"dmesg-erst-{first + (1 << 33) + 1}": (NOON, part("Panic", 1, 1, "of the next boot")),
    }
    of = decoded(files)
    assert {text(section) for section in of.sections} == {"oldest\nmiddle\nlast\n", "of the next boot\n"}
    assert of.title == "pstore of ACPI ERST"


def test_missing_part_is_said() -> None:
    files = efi_panic()
    del files[efi(NOON, 2, 1)]
    missing = fields(decoded(files).sections[0])["Missing parts"]
    assert (missing.value, missing.wrong) == ("2", True)


def test_ramoops() -> None:
    of = decoded(
        {
            "dmesg-ramoops-0": (NOON, part("Oops", 1, 1, "Oops: 0000 [#1] PREEMPT SMP")),
            "dmesg-ramoops-1": (NOON, part("Panic", 2, 1, PANIC)),
            "console-ramoops-0": (NOON, f"tail\n{PANIC}\n".encode()),
            "pmsg-ramoops-0": (NOON, b"\x00\x01binary"),
        }
    )
    assert of.title == "pstore of ramoops"
    assert of.findings == (
        "Kernel panic - not syncing: sysrq triggered crash",
        "Oops: 0000 [#1] PREEMPT SMP",
    )
    sections = {section.name: section for section in of.sections}
    assert text(sections["console-ramoops-0"]) == f"tail\n{PANIC}\n"
    assert text(sections["pmsg-ramoops-0"]) == "00000000: 0001 6269 6e61 7279                      ..binary\n"


def test_panic_that_only_the_console_has() -> None:
    assert decoded({"console-ramoops-0": (0, PANIC.encode())}).findings == (
        "Kernel panic - not syncing: sysrq triggered crash",
    )


def test_machine_check() -> None:
    of = decoded({f"mce-erst-{NOON << 32}": (NOON, machine_check())})
    assert of.findings == ("1 machine check",)
    check = fields(of.sections[0])
    assert check["status"].text == "0xb200000000000108 (VAL, UC, EN, PCC)"
    assert (check["bank"].value, check["extcpu"].value, check["apicid"].value) == (9, 12, 0x24)
    assert check["addr"].text == "0x0000000001234000"
    assert check["time"].text == "2026-05-04 12:00:00 UTC"
    assert (check["ppin"].value, check["ppin"].private) == (0x1122334455667788, True)
    assert check["microcode"].text == "0x05003604"


@pytest.mark.parametrize("window", [-15, 15])
def test_compressed_log_is_unpacked(window: int) -> None:
    packer = zlib.compressobj(wbits=window)
    packed = packer.compress(part("Panic", 1, 1, PANIC)) + packer.flush()
    of = decoded({f"{efi(NOON, 1, 1)}.enc.z": (NOON, packed)})
    assert text(of.sections[0]) == f"{PANIC}\n"
    assert of.problems == ()


def test_what_cannot_be_unpacked_is_named() -> None:
    name = f"{efi(NOON, 1, 1)}.enc.z"
    for content in (b"\x28\xb5\x2f\xfd of zstd", b"", zlib.compress(bytes(1 << 24))):
        of = decoded({name: (NOON, content)})
        assert of.problems == (f"{name}: is compressed, and could not be unpacked",)
        assert fields(of.sections[0])["Compressed"].text == f"{len(content)} bytes"


def test_only_the_end_of_a_long_log_is_shown() -> None:
    of = decoded({"console-ramoops-0": (0, b"x" * MAX_TEXT + b"end")})
    assert text(of.sections[0]).startswith("... 3 bytes before\nxxx")
    assert text(of.sections[0]).endswith("xend")
    many = {f"console-ramoops-{index}": (0, b"x" * MAX_TEXT) for index in range(18)}
    assert sum(len(text(section)) for section in decoded(many).sections) < (16 << 20) + 1000


def test_hostile_text_is_escaped() -> None:
    of = decoded(
        {
            efi(NOON, 1, 1): (
                NOON,
                part("Panic", 1, 1, "Kernel panic - not syncing: \x1b[2J<script>\x07", "a\tb\r"),
            ),
            "\x1b[31mname": (NOON, b"\xff\x9b\n\x1b]0;title\x07"),
        }
    )
    assert of.findings == ("Kernel panic - not syncing: \\x1b[2J<script>\\x07",)
    assert text(of.sections[0]) == "Kernel panic - not syncing: \\x1b[2J<script>\\x07\na       b\n"
    assert of.sections[1].name == "\\x1b[31mname"
    assert text(of.sections[1]) == "\\xff\\x9b\n\\x1b]0;title\\x07"


def test_long_panic_line_is_shortened() -> None:
    of = decoded({"console-ramoops-0": (0, b"Kernel panic - not syncing: " + b"x" * 5000)})
    assert len(of.findings[0]) == 120
    assert of.findings[0].endswith("x...")


def test_absurd_times_are_numbers() -> None:
    of = decoded({"console-ramoops-0": (0o77777777777, b"text")})
    assert fields(of.sections[0])["Time"].value == 0o77777777777


def test_no_archive() -> None:
    with pytest.raises(InvalidDump):
        decode("pstore", io.BytesIO(b"Panic#1 Part1\n"))


def test_damaged_archives_are_endured() -> None:
    endures(decode, samples(), cuts=150, flips=200)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd report --redact: what identifies a machine is not in the page, in whatever way it is written."""

import time
from dataclasses import replace

import pytest

from tests.lib.html_page import parse
from tests.lib.reports import HOST, MAC, SERIAL, found, report
from vmcoredd_daemon.cli.report.content import Entry, Report
from vmcoredd_daemon.cli.report.page import page
from vmcoredd_daemon.cli.report.redaction import Redaction, private_values
from vmcoredd_daemon.cli.report.report import redacted
from vmcoredd_daemon.decoders.decoded import Decoded, Field, Section, Table, Text
from vmcoredd_daemon.decoders.structure import hexadecimal
from vmcoredd_daemon.manifest import Failure


def text_of(content: Report) -> str:
    values = {value for entry in content.entries for value in private_values(entry.decoded)}
    left = redacted(replace(content, redacted=True), Redaction([HOST], values))
    return parse("".join(page(left))).text


def of(*parts: Field | Table | Text, **changes: object) -> Report:
    entry = Entry(dump=found(0, "nic"), decoded=Decoded(sections=(Section("", parts),)))
    return replace(report(), entries=(entry,), **changes)  # type: ignore[arg-type]


def test_private_values_are_left_out_wherever_they_are() -> None:
    changes = {
        "file_name": f"{HOST}-vmcore",
        "log": f"eth0: {MAC}, disk {SERIAL.lower()}, on DB-07",
        "panic": f"{SERIAL} died",
        "failures": (Failure(f"nvme_{SERIAL}", f"by {HOST}", "x", f"{SERIAL}: gone", 0),),
        "problems": (f"{HOST}: strange",),
    }
    entry = Entry(
        dump=replace(found(9, f"nvme_{SERIAL}"), verified=False),
        decoded=Decoded(f"disk {SERIAL}", (f"{SERIAL} is bad",), (HOST,), (), (f"{SERIAL}: short",)),
    )
    whole = replace(report(), **changes, entries=(*report().entries, entry))  # type: ignore[arg-type]
    plain = parse("".join(page(whole))).text
    text = text_of(whole)
    for secret in (SERIAL, MAC, "52:54:00:12:34:57", HOST, "db-07"):
        assert secret.lower() in plain.lower()
        assert secret.lower() not in text.lower()
    # What is not private stays, and the page says that something is missing.
    for kept in ("Samsung SSD 980 PRO 1TB", "5B2QGXA7", "[redacted] is bad", "Crash report", "with --redact"):
        assert kept in text.replace("report.html --redact", "with --redact"), kept
    assert "were left out of this page" in text
    assert "were left out of this page" not in plain


def test_device_dump_is_extracted_by_index_if_its_name_is_private() -> None:
    entry = Entry(dump=found(9, f"nvme_{SERIAL}"), decoded=report().entries[0].decoded)
    text = text_of(replace(report(), entries=(entry,)))
    assert "vmcoredd extract vmcore 9 -o 'nvme_[redacted]'" in text


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("S5GXNF0R", "S/N:s5gxnf0r."),
        ("S5GXNF0R", "xS5GXNF0Rx"),
        ("S5GXNF0R", "bytes 53 35 47 58 4e 46 30 52"),
        ("S5GXNF0R", "0x533547584E463052"),
        ("aabbccddeeff", "aa:bb:cc:dd:ee:ff"),
        ("AA:BB:CC:DD:EE:FF", "aa-bb-cc-dd-ee-ff"),
        ("aa-bb-cc-dd-ee-ff", "AABBCCDDEEFF"),
        ("00112233-4455-6677-8899-aabbccddeeff", "00112233445566778899aabbccddeeff"),
        ("ab1", "ab1: short"),
        ("a.b*c(d", "a.b*c(d"),
        ("éàöü1234", "ÉÀÖÜ1234"),
    ],
)
def test_other_ways_to_write_a_value(value: str, written: str) -> None:
    redacted_text = Redaction((), {value}).text(f"before {written} after")
    assert "[redacted]" in redacted_text
    assert redacted_text.startswith("before ")
    assert redacted_text.endswith(" after")
    assert value.lower() not in redacted_text.lower()


@pytest.mark.parametrize(
    "value", ["", "  ", "ab", "None", "Not Specified", "To Be Filled By O.E.M.", "00000000", "........"]
)
def test_what_identifies_nothing_is_not_looked_for(value: str) -> None:
    text = f"x{value}x {value} {value}"
    assert Redaction((), {value}).text(text) == text


def test_short_values_and_hosts_are_words() -> None:
    redaction = Redaction(["web.example.com"], {"A1B"})
    assert (
        redaction.text("web webcam cobweb web_1 A1B xA1B1")
        == "[redacted] webcam cobweb [redacted]_1 [redacted] xA1B1"
    )


def test_any_mac_address_is_left_out_but_no_pci_address() -> None:
    text = (
        "link 00:1b:21:AA:bb:cc up, 0000:03:00.0, 12:34:56, "
        + "ib0 80:00:02:08:fe:80:00:00:00:00:00:00:f4:52:14:03:00:7b:cb:a1"
    )
    assert Redaction((), ()).text(text) == "link [redacted] up, 0000:03:00.0, 12:34:56, ib0 [redacted]"


@pytest.mark.parametrize(
    "dump",
    [
        hexadecimal(b"S5GXNF0R123456 and more of it" * 9),
        "00: 86 80 53 54 07 04 10 00\n10: 00 00 00 00\n",
        "00000000  53 35 47 58 4e 46 30 52  31 32 33 34 35 36 20 20  |S5GXNF0R123456  |\n",
        "\t01 1B 08 01 53 35 47 58 4E\n",
    ],
)
def test_dumps_in_hexadecimal_are_left_out(dump: str) -> None:
    text = text_of(of(Text("Data", dump)))
    assert f"[{len(dump):,} bytes in hexadecimal are left out: they may have serial numbers]" in text
    assert dump.split("\n")[0] not in text


def test_private_numbers_and_short_values_are_left_out_of_their_fields() -> None:
    text = text_of(
        of(
            Field("A", 123456789, "123,456,789", private=True),
            Field("B", "x7", private=True),
            Field("C", None, private=True),
            Table("D", ("E", "F"), (("q9", 1), (2, 3)), ("E",)),
            Text("G", "number 123456789 and 123,456,789"),
        )
    )
    assert "A[redacted]B[redacted]C[redacted]" in text
    assert "[redacted]1[redacted]3" in text
    assert "number [redacted] and [redacted]" in text


def test_longer_replacements_stay_within_the_page() -> None:
    parts = [Field("Serial", "xy1", private=True), *(Text(f"{i}", "xy1 " * 60_000) for i in range(6))]
    text = text_of(of(*parts))
    assert "xy1" not in text
    assert len(text) < 1 << 21
    assert "bytes of what it says are left out of this page" in text


def test_thousands_of_values_are_found_fast() -> None:
    values = (
        {f"SN{i * 7919:08d}X" for i in range(10_000)}
        | {"a" * i for i in range(200)}
        | {"a" * i + "b" for i in range(99)}
    )
    redaction = Redaction((), values)
    began = time.monotonic()
    text = redaction.text(
        "SN00000000X " + "some words of a log, SN, SN0000 and more\n" * 25_000 + f"SN{9999 * 7919:08d}X"
    )
    assert time.monotonic() - began < 5
    assert text.startswith("[redacted] some words of a log, SN, SN0000 and")
    assert text.endswith("more\n[redacted]")


@pytest.mark.parametrize(
    "line",
    [
        "Capabilities: [140 v1] Device Serial Number 52-54-00-ff-ff-76-6d-02",
        "eth0: MAC 52-54-00-76-6d-02",
        "usb 1-1: SerialNumber: 1, Serial Number: ABC123456",
        "ata1: serial number=WD-4711",
        "eth0 52:54:00:12:34:56: link up",
        "peer 5254.0012.3456 seen",
    ],
)
def test_serial_numbers_that_a_log_names(line: str) -> None:
    """lspci and the kernel print them, and no decoder has read them."""
    text = Redaction([], []).text(line)
    assert not any(secret in text for secret in ("52-54", "52:54", "5254.", "ABC123456", "WD-4711"))
    assert text.startswith(line[:4])


def test_long_serial_number_has_no_end_left() -> None:
    serial = "SN-" + "0123456789" * 8
    assert "456789" not in Redaction([], [serial]).text(f"serial {serial} of it")


def test_domain_is_left_out_too() -> None:
    text = Redaction(["db-07.corp.example.com"], []).text("db-08.corp.example.com is the peer of db-07")
    assert "corp.example.com" not in text
    assert "db-07" not in text

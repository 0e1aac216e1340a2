# SPDX-License-Identifier: LGPL-2.1-or-later
import pytest

from vmcoredd_daemon.cli.table import fields, printable, table


def test_numbers_are_aligned_to_the_right_and_text_to_the_left() -> None:
    assert table(["N", "NAME", "BYTES"], [[0, "nic", 12], [10, "firmware", None]]) == (
        " N  NAME      BYTES\n 0  nic          12\n10  firmware      -\n"
    )


def test_no_line_ends_in_spaces() -> None:
    assert table(["NAME", "ERROR"], [["nic", ""], ["disk", "late"]]) == "NAME  ERROR\nnic\ndisk  late\n"


def test_table_without_rows_is_its_header() -> None:
    assert table(["NAME", "SIZE"], []) == "NAME  SIZE\n"


def test_fields_are_aligned_at_the_colon() -> None:
    assert fields({"State": "ready", "Device dumps": 3, "Vmcore": None}) == (
        "       State: ready\nDevice dumps: 3\n      Vmcore: -\n"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("eth0 müde", "eth0 müde"),
        ("\x1b[2Jnic", r"\x1b[2Jnic"),
        ("a\nb\r\t\0", r"a\nb\r\t\x00"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202etxt", r"\u202etxt"),
        ("\udc80", r"\udc80"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert table(["NAME"], [[text]]) == f"NAME\n{shown}\n"
    assert fields({"Name": text}) == f"Name: {shown}\n"

# SPDX-License-Identifier: LGPL-2.1-or-later

import json
from pathlib import Path

import pytest

from tests.lib.shell_program import shell_program
from tests.lib.vmcore_dumps import GOLDEN
from tests.lib.vmcoredd import run_in_terminal
from vmcoredd_daemon.progress import human_size
from vmcoredd_daemon.terminal.view import Mark, Size, View
from vmcoredd_daemon.text import printable, utc

VIEW = View()


def test_numbers_are_aligned_to_the_right_and_text_to_the_left() -> None:
    assert VIEW.table(["N", "NAME", "BYTES"], [[0, "nic", Size(12)], [10, "firmware", None]]) == (
        " N  NAME      BYTES\n 0  nic         12B\n10  firmware      -\n"
    )


def test_no_line_ends_in_spaces() -> None:
    assert VIEW.table(["NAME", "ERROR"], [["nic", ""], ["disk", "late"]]) == "NAME  ERROR\nnic\ndisk  late\n"


def test_table_without_rows_is_its_header() -> None:
    assert VIEW.table(["NAME", "SIZE"], []) == "NAME  SIZE\n"
    assert View(legend=False).table(["NAME", "SIZE"], []) == ""


def test_fields_are_aligned_at_the_colon() -> None:
    values = [("State", "ready"), ("Device dumps", 3), ("", "more"), ("Vmcore", None)]
    assert VIEW.fields(values) == "       State: ready\nDevice dumps: 3\n              more\n      Vmcore: -\n"


def test_value_goes_on_below_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [("Panic", "not syncing: forced after error"), ("Path", f"{'/long' * 9}.x (1.0M)"), ("State", "")]
    monkeypatch.setattr(View, "width", 32)
    assert VIEW.fields(values, 2).splitlines() == [
        "  Panic: not syncing: forced",
        "         after error",
        f"   Path: {'/long' * 9}.x",
        "         (1.0M)",
        "  State: ",
    ]
    # Names that take most of the line are not aligned; what does not fit beside them stands below.
    assert VIEW.fields([*values, ("Number of Sensors", Mark("2", False))], 2).splitlines() == [
        "  Panic:",
        "      not syncing: forced after",
        "      error",
        "  Path:",
        f"      {'/long' * 9}.x",
        "      (1.0M)",
        "  State: ",
        "  Number of Sensors: 2",
    ]


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.0K"),
        (90000, "87.8K"),
        ((1 << 20) - 1, "1023.9K"),
        (1 << 20, "1.0M"),
        (1536 << 20, "1.5G"),
        (3 << 40, "3.0T"),
        (1 << 63, "8.0E"),
        (1 << 74, "16384.0E"),
    ],
)
def test_sizes_are_cut_off_behind_one_decimal(size: int, shown: str) -> None:
    assert human_size(size) == shown
    assert View(exact=True).size(size) == f"{size} bytes"


@pytest.mark.parametrize(
    ("usec", "shown"), [(0, None), (-1, None), (1795464321000000, "2026-11-23 20:05:21"), (1 << 64, None)]
)
def test_times(usec: int, shown: str | None) -> None:
    assert utc(usec) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("eth0 müde", "eth0 müde"),
        ("\x1b[2Jnic", r"\x1b[2Jnic"),
        ("a\nb\r\t\0", r"a\nb\r\t\x00"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202etxt", r"\u202etxt"),
        ("/\udc80", r"/\x80"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown

    assert VIEW.table(["NAME"], [[text]]) == f"NAME\n{shown}\n"
    assert VIEW.table(["NAME"], [[Mark(text, good=True)]]) == f"NAME\n{shown}\n"
    assert VIEW.fields([("Name", text)]) == f"Name: {shown}\n"


def test_json_of_a_path_that_is_not_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    View(json="short").show_json([{"path": "/\udcff", "name": "\U0001f600\x1b"}])
    assert json.loads(capsys.readouterr().out) == [{"path": r"/\xff", "name": "\U0001f600\x1b"}]


def test_json_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    view = View(json="lines")
    assert view.as_json
    view.show_json([{"name": "nic\n", "size": 1}, {"name": "disk"}])
    view.show_json({"name": "one"})
    view.show_json([])
    assert capsys.readouterr().out == '{"name":"nic\\n","size":1}\n{"name":"disk"}\n{"name":"one"}\n'


def test_pager_where_the_terminal_can_do_more_than_print(tmp_path: Path) -> None:
    pager = shell_program(tmp_path / "pager", "echo paged; exec cat >/dev/null")
    for term, paged in (("linux", True), ("dumb", False), ("", False)):
        lines = run_in_terminal(80, "inspect", GOLDEN, rows=4, TERM=term, SYSTEMD_PAGER=str(pager))
        assert (lines == ["paged"]) == paged
        assert len(lines) > 4 or paged

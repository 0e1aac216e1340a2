# SPDX-License-Identifier: LGPL-2.1-or-later
"""The page of vmcoredd report: what it says, that nothing in it is more than text, and that it is bounded."""

import base64
import hashlib
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.lib.html_page import Page, parse
from tests.lib.reports import DECODED, DIED, LOG, filled, found, report
from vmcoredd_daemon.cli.report.content import Entry, Report
from vmcoredd_daemon.cli.report.limits import MAX_DECODED, MAX_DUMP, MAX_TEXT, cut, shorten
from vmcoredd_daemon.cli.report.markup import lines, text
from vmcoredd_daemon.cli.report.page import page
from vmcoredd_daemon.cli.report.report import fitting
from vmcoredd_daemon.cli.report.timeline import Span, duration, timeline
from vmcoredd_daemon.decoders.decoded import Decoded, Field, Section, Table, Text
from vmcoredd_daemon.manifest import Failure, IdleCollector, Manifest, ManifestDump, ManifestSource

HOSTILE = (
    "<script>alert(1)</script>",
    "</pre></details></section><img src=x onerror=alert(1)>",
    "\" onmouseover='alert(1)' x=\"",
    "<!--",
    "]]><![CDATA[<b>",
    "</style><style>*{display:none}",
    "&lt;b&gt;&amp;&#60;",
    "\x1b[2J\x00\x07\x08\x9b31m",
    "\u202e\u2066gnp.exe\u2069 \u200f\u061c \ufeff\u2028\u2029",
    "\ud800\udcff\uffff",
    "https://example.com/x.js javascript:alert(1) file:///etc/passwd",
    "\r\n\r\n\v\f\x85",
    "a" * 100_000,
    "-rf --output=/etc/passwd $(reboot) `reboot`; reboot",
    "",
)


def html(content: Report) -> str:
    return "".join(page(content))


def parsed(content: Report) -> Page:
    return parse(html(content))


def test_page_loads_nothing_and_allows_nothing_but_its_style() -> None:
    found = parsed(report())
    (policy,) = [each["content"] for each in found.named("meta") if each.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(found.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert set(found.names) == {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "header",
            "nav",
            "main",
            "section",
            "article",
            "footer",
        ),
        *(
            "h1",
            "h2",
            "h3",
            "h4",
            "p",
            "ul",
            "li",
            "dl",
            "div",
            "dt",
            "dd",
            "a",
            "b",
            "span",
            "code",
            "pre",
            "mark",
        ),
        *("details", "summary", "table", "caption", "thead", "tbody", "tr", "th", "td"),
        *("svg", "line", "rect", "path", "text"),
    }
    attributes = {name for _, each in found.elements for name in each}
    assert attributes & {"src", "style", "srcset", "action", "background", "data", "poster", "xlink:href"} == set()
    assert not any(name.startswith("on") for name in attributes)
    assert all((each["href"] or "").startswith("#") for each in found.named("a"))
    assert "url(" not in found.style
    assert "@import" not in found.style


def test_links_lead_somewhere_and_labels_exist() -> None:
    found = parsed(report())
    identifiers = [each["id"] for _, each in found.elements if "id" in each]
    assert len(identifiers) == len(set(identifiers))
    linked = {(each["href"] or "").removeprefix("#") for each in found.named("a")}
    labels = {each["aria-labelledby"] for _, each in found.elements if "aria-labelledby" in each}
    assert linked | labels <= set(identifiers)
    assert {"content", "attention", "log", "timeline", "dumps", "files", "dump-0", "dump-3"} <= linked


def test_headings_descend_one_by_one() -> None:
    levels = [int(name[1]) for name in parsed(report()).names if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))


def test_page_says_what_is_known() -> None:
    found = parsed(report())
    for said in (
        *("Crash of db-07.example.com", "Kernel panic - not syncing: Fatal exception", "2026-11-23 20:05:21 UTC"),
        *(
            "6.1.0-56-cloud-amd64, x86_64",
            "HPE ProLiant DL380 Gen10, BIOS U30 07/20/2023",
            "191.4M, 56.9M in the file",
        ),
        *("vmcore, 92.0M, kdump, dump level 31, compression zstd", "2026-11-23 20:05:30 UTC by vmcoredd 0"),
        *("Samsung SSD 980 PRO 1TB", "2 media errors", "97 % used", "38 C", "0x2: temperature", "S5GXNF0R123456"),
        *("first of S5GXNF0R123456\n\tsecond on db-07.example.com\n", "error-log.bin: the data end at byte 3"),
        *("1 collector has made no device dump", "pmtno such device", "vmcoredd report vmcore -o report.html"),
        *(
            "[    0.000000] line 0",
            "[  100.000001] CPU: 0 PID: 1 Comm: init",
            f"{3:064x} is that of its collector",
        ),
    ):
        assert said in found.text, said
    assert "[redacted]" not in found.text


def test_attention_has_failures_first_and_findings_last() -> None:
    text = parsed(report()).text
    listed = text[text.index("Failed") : text.index("End of the kernel log")]
    kinds = re.findall("Failed|File|Altered|Truncated|Finding", listed)
    assert kinds == ["Failed"] * 2 + ["File"] * 6 + ["Altered", "Truncated"] + ["Finding"] * 4
    for why in (
        *("eth0late", "2 more, not named here", "the file was cut off", "the source blocks", "8.0K of memory"),
        *(
            "3 pages are replaced by zeros",
            "it did not fit",
            "the file is strange",
        ),
        *("nvme_0000:02:00.0the data are not those that were collected", "nvme_0000:01:00.0it is not complete"),
    ):
        assert why in listed, why


def test_nothing_needs_attention() -> None:
    quiet = replace(DECODED, findings=())
    entry = Entry(dump=found(0, "nic"), decoded=quiet)
    summary = replace(report().summary, incomplete=False)
    well = replace(report(), entries=(entry,), failures=(), problems=(), manifest=None, summary=summary)
    assert "Nothing: no collector failed, and no device dump says that something is wrong." in parsed(well).text


def test_page_of_a_vmcore_that_says_nothing() -> None:
    empty = replace(
        filled(report(0), ""), host=None, hardware=None, panic=None, manifest=None, failures=(), problems=()
    )
    found = parsed(empty)
    assert "Crash report" in found.text
    assert {"timeline", "dumps", "log"} & {each.get("id") for _, each in found.elements} == set()


def test_log_is_shown_from_the_panic() -> None:
    found = html(report())
    earlier, shown = re.findall("<pre>\n(.*?)</pre>", found, re.DOTALL)[:2]
    assert earlier.endswith("line 89")
    assert shown.startswith("[    90.000000] line 90")
    assert "<mark>Kernel panic - not syncing: Fatal exception</mark>" in shown
    without = replace(report(), log=LOG.replace("Kernel panic", "nothing"), panic=None)
    assert re.findall("<pre>\n(.*?)</pre>", html(without), re.DOTALL)[1].startswith("[    72.000000]")


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_content_makes_no_element(hostile: str) -> None:
    plain, attacked = (parsed(filled(report(), each)) for each in ("x", hostile or " "))
    # Of the panic, only one that is a line of the log is marked there.
    before, after = (
        [(name, sorted(each)) for name, each in page.elements if name != "mark"] for page in (plain, attacked)
    )
    assert before == after
    written = html(filled(report(), hostile))
    assert "".join(letter for letter in written if not letter.isprintable() and letter not in "\n\t") == ""
    assert parse(written).style == plain.style


def test_content_is_shown_as_it_is() -> None:
    shown = parsed(filled(report(), "<b>&amp;\u202e\x1b[0m")).text
    assert shown.count("<b>&amp;\\u202e\\x1b[0m") > 50


def test_sections_that_need_attention_are_not_among_many() -> None:
    plain = tuple(Section(f"plain-{i}", (Field("A", 1),)) for i in range(7))
    wrong = Section("wrong", (Field("B", 2, wrong=True),))
    text = parsed(report(1, Decoded(sections=(*plain, wrong)))).text
    assert text.index("wrong1 field1 needs attention") < text.index("7 more") < text.index("plain-0")


def test_commands_are_quoted_and_take_an_index_if_a_name_is_no_operand() -> None:
    names = ["nic", "a b;$(reboot)", "-rf", "7", "twice", "twice", "\x1b[2J", "../x"]
    entries = tuple(Entry(dump=found(i, name), decoded=Decoded()) for i, name in enumerate(names))
    text = parsed(replace(report(), entries=entries, file_name="-my vmcore")).text
    for operand in (
        "nic -o nic",
        "'a b;$(reboot)' -o 'a b;$(reboot)'",
        "2 -o ./-rf",
        "3 -o 7",
        "4 -o twice",
        "5 -o twice.5",
    ):
        assert f"vmcoredd extract './-my vmcore' {operand}" in text
    assert r"vmcoredd extract './-my vmcore' 6 -o '\x1b[2J'" in text
    assert r"vmcoredd extract './-my vmcore' ../x -o '\x2e.\x2fx'" in text


# The timeline.


def test_timeline_has_all_device_dumps_and_failures() -> None:
    found = parsed(report(64))
    assert len(found.named("rect")) == 64
    assert len(found.named("path")) == 1
    start = found.text.index("Times count from the first collector, 2026-11-23 20:05:26 UTC.")
    rows = found.text[start : found.text.index("error-log.bin")]
    assert all(f"nvme_0000:{i:02x}:00.0" in rows for i in range(64))
    assert "eth0 failed+1 s-" in rows
    assert "nvme_0000:01:00.0 truncated+50 ms900 ms" in rows


def bars(*spans: Span) -> list[tuple[float, float]]:
    found = parse("".join(timeline(spans)))
    return [(float(str(each["x"])[:-1]), float(str(each["width"])[:-1])) for each in found.named("rect")]


def test_bars_are_where_their_times_are() -> None:
    base = DIED * 10**6
    spans = [
        Span("a", "a", base, base + 10**6, "complete"),
        Span("b", "b", base + 10**6, base + 4 * 10**6, "complete"),
    ]
    assert bars(*spans) == [(0, 25), (25, 75)]


@pytest.mark.parametrize("usec", [0, -5, 1, 2**63, 10**400])
def test_times_that_are_none(usec: int) -> None:
    base = DIED * 10**6
    good = Span("good", "", base, base + 1000, "complete")
    for odd in (
        Span("odd", "", usec, usec, "complete"),
        Span("odd", "", usec, base, "x"),
        Span("odd", "", base, usec, "x"),
    ):
        text = parse("".join(timeline([good, odd]))).text
        assert "good" in text
    assert list(timeline([Span("odd", "", usec, 0, "complete")])) == []


def test_what_is_attached_later_does_not_hide_the_others() -> None:
    base = DIED * 10**6
    spans = [
        Span("a", "a", base, base + 10**6, "complete"),
        Span("b", "b", base + 86400 * 10**6, base + 86401 * 10**6, "x"),
    ]
    assert bars(*spans) == [(0, 100)]
    assert "+1 d1 slater" in parse("".join(timeline(spans))).text


@pytest.mark.parametrize(
    ("usec", "shown"),
    [
        (0, "0"),
        (999, "< 1 ms"),
        (1000, "1 ms"),
        (999_999, "999 ms"),
        (1_500_000, "1.5 s"),
        (2_050_000, "2.05 s"),
        (59_999_999, "60 s"),
        (60_000_000, "1 min"),
        (3_600_000_000, "1 h"),
        (90_061_000_000, "1 d 1 h 1 min 1 s"),
    ],
)
def test_duration(usec: int, shown: str) -> None:
    assert duration(usec) == shown


@pytest.mark.parametrize("number", [0, -1, 1 << 64, 10**4299, -(10**4299)])
def test_any_number_in_a_manifest(number: int) -> None:
    entry = ManifestDump("nic", number, number, "", "", "", number, number)
    dump = replace(found(0, "nic"), entry=entry, sha256="")
    source = ManifestSource("", number, number)
    manifest = Manifest("x", number, (), (), 10**4300 - 1 if number > 1 else number, source)
    numbers = replace(
        report(),
        entries=(Entry(dump=dump, decoded=Decoded(sections=(Section("", (Field("n", number * 10),)),))),),
        failures=(Failure("eth0", "", "", "", number),),
        manifest=manifest,
    )
    page = parsed(numbers)
    assert "eth0" in page.text
    timeline = [each for _, each in page.elements if each.get("id") == "timeline"]
    assert [each["href"] for each in page.named("a")].count("#timeline") == len(timeline)


# Limits.


@pytest.mark.parametrize(
    "letter", ["a", "<", "\x1b", "é", "\U0001f600", "\U000e0001", "\n", "\t", "\ud800", "a\n"]
)
def test_long_text_is_cut_in_the_middle_and_says_so(letter: str) -> None:
    whole = f"begin\n{letter * (10 << 20)}\nend"[: 10 << 20] + "\nend"
    shown, left_out = shorten(whole, MAX_TEXT)
    assert shown.startswith("begin\n")
    assert shown.endswith("end")
    assert f"\n[{left_out:,} bytes are left out here]\n" in shown
    size = len(whole.encode("utf-8", "surrogatepass"))
    kept = shown.replace(f"[{left_out:,} bytes are left out here]\n", "")
    assert left_out + len(kept.encode("utf-8", "surrogatepass")) - size in {0, 1}
    assert MAX_TEXT // 3 < len(lines(shown).encode()) <= MAX_TEXT + 100


def test_short_text_is_not_cut() -> None:
    assert shorten("<a>\n", MAX_TEXT) == ("<a>\n", 0)


SHAPES = {
    "texts": Decoded(sections=(Section("", tuple(Text(f"t{i}", "<log>\n" * 100_000) for i in range(8))),)),
    "fields": Decoded(sections=(Section("", tuple(Field(f"<{i}>", i, wrong=True) for i in range(30_000))),)),
    "names": Decoded(sections=(Section("", tuple(Field("<n>" * 30_000, 1, wrong=True) for _ in range(2000))),)),
    "values": Decoded(sections=(Section("", tuple(Field("f", "\x00" * 30_000) for i in range(100))),)),
    "cells": Decoded(sections=(Section("", (Table("t", ("", ""), ((None, 1),) * 30_000),)),)),
    "columns": Decoded(sections=(Section("", (Table("t", ("<c>",) * 50_000, ((1,) * 50_000,) * 3),)),)),
    "tables": Decoded(sections=(Section("", tuple(Table("t", (), ()) for _ in range(30_000))),)),
    "sections": Decoded(sections=tuple(Section("<s>" * 1000, (Field("", 0),)) for i in range(20_000))),
    "lists": Decoded("<t>" * 10**6, ("<f>" * 10**4,) * 1000, ("<f>" * 10**4,) * 1000, (), ("<p>" * 10**4,) * 1000),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_no_device_dump_takes_more_than_its_part(shape: str) -> None:
    alone, empty = (
        len(html(replace(report(0), entries=tuple(fitting([Entry(dump=found(0, "nic"), decoded=each)])))).encode())
        for each in (SHAPES[shape], Decoded())
    )
    assert alone - empty <= MAX_DUMP + (192 << 10)
    kept = cut(SHAPES[shape])
    assert kept.left_out > 0
    assert kept.cost <= MAX_DUMP
    assert alone - empty > (MAX_DUMP // 8 if kept.decoded.sections else 0)


def test_page_says_what_a_device_dump_lacks() -> None:
    entry = Entry(dump=found(0, "a b"), decoded=SHAPES["texts"])
    text = parsed(replace(report(), entries=tuple(fitting([entry])))).text
    assert re.search(
        r"[0-9],[0-9]{3},[0-9]{3} bytes of what it says are left out of this page\. "
        "This shows all: vmcoredd show vmcore 'a b'",
        text,
    )


def test_page_of_64_device_dumps_of_10_mb_is_bounded() -> None:
    log = Decoded("log", sections=(Section("", (Text("", "<line>\x1b\n" * (10 << 17)),)),))
    entries = [Entry(dump=found(i, f"{i}" * 20), decoded=log) for i in range(64)]
    many = replace(
        report(),
        entries=tuple(fitting(entries)),
        failures=report().failures * 4096,
        problems=("<" * 10**4,) * 4096,
        log="<\n" * (1 << 15),
        manifest=Manifest("x", 1, (), idle_collectors=(IdleCollector("<" * 10**4, "<" * 10**4),) * 4096),
    )
    pieces = [len(piece.encode()) for piece in page(many)]
    assert MAX_DECODED - MAX_DUMP < sum(pieces) < 16 << 20
    # In memory is one piece at a time.
    assert max(pieces) <= MAX_DUMP


def test_escaped_text_costs_what_it_was_counted_for() -> None:
    decoded = cut(DECODED)
    assert decoded.left_out == 0
    assert decoded.decoded.sections[2].parts[1] == DECODED.sections[2].parts[1]
    assert len(text("<'\">&")) == len("&lt;&#x27;&quot;&gt;&amp;")


# Colours: WCAG 2.2, 1.4.3, level AA.


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_have_contrast() -> None:
    palettes = [
        dict(re.findall(r"--([\w-]+): (#\w{6});", rule))
        for rule in re.findall(r":root \{(.*?)\}", parsed(report()).style, re.DOTALL)
    ]
    assert len(palettes) == 3
    for palette in (palettes[0], palettes[1], palettes[0] | palettes[2]):
        for ink in ("ink", "quiet", "link", "bad", "warn", "good"):
            for paper in ("paper", "shade", *(["bad-shade"] if ink == "ink" else [])):
                darker, lighter = sorted(luminance(palette[each]) for each in (ink, paper))
                assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (ink, paper, palette)

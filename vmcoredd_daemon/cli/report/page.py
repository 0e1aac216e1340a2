# SPDX-License-Identifier: LGPL-2.1-or-later
"""The page: HTML and CSS in one file, without scripts, which loads nothing.

"Content Security Policy Level 3", W3C: the policy allows the page's own style, by its hash, and nothing else. Not
even a fault of ours would let the content of a device dump do anything. What is folded is a ``details`` element.
"""

import base64
import hashlib
import re
import shlex
from collections.abc import Iterator
from importlib.resources import files

from ...manifest import PRODUCER, IdleCollector, ManifestSource, State
from ...progress import human_size
from ...text import utc
from .card import MAX_STATE, anchor, card, findings, link
from .content import Report, as_operand, extraction
from .elements import command_line, pair, scrolled, start_scrolled
from .markup import Html, element, end, lines, short, start, text
from .timeline import Span, timeline

MAX_FAILURES = 256
"""Collectors that failed, and problems of the file, of each of which the page names so many."""

LINES_BEFORE = 10
"""Lines of the kernel's log that are shown before the first sign of the crash."""

_SIGN = re.compile(
    "BUG: |kernel BUG at|Oops|Unable to handle|Internal error|general protection|Kernel panic|sysrq: Tr"
)
"""The first sign of a crash in the kernel's log."""

_POLICY = "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"


def page(report: Report) -> Iterator[str]:
    """Yield the page in pieces."""
    yield from _head(report)
    yield element("a", "Skip to the content", href="#content", class_="skip")
    yield from _header(report)
    yield start("main", id="content")
    yield from _attention(report)
    yield from _log(report)
    yield from _timeline(report)
    yield from _device_dumps(report)
    yield from _files(report)
    yield end("main")
    yield from _footer(report)
    yield end("body") + end("html") + "\n"


def _head(report: Report) -> Iterator[str]:
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    policy = _POLICY.format(base64.b64encode(hashlib.sha256(style.encode()).digest()).decode())
    died = utc((report.summary.crash_time or 0) * 10**6)
    yield "<!DOCTYPE html>\n"
    yield start("html", lang="en", dir="ltr") + start("head")
    yield start("meta", charset="utf-8")
    yield Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">')
    yield start("meta", name="viewport", content="width=device-width, initial-scale=1")
    yield start("meta", name="color-scheme", content="light dark")
    yield start("meta", name="referrer", content="no-referrer")
    yield element("title", short(" ".join(filter(None, (_name(report), died and f"{died} UTC")))))
    yield element("style", Html(style)) + end("head") + start("body")


def _name(report: Report) -> str:
    return f"Crash of {report.host}" if report.host else "Crash report"


def _header(report: Report) -> Iterator[str]:
    yield start("header")
    yield element("h1", short(_name(report)))
    if report.panic:
        yield element("p", short(report.panic), class_="panic")
    known = [(name, value) for name, value in _facts(report) if value]
    yield element("dl", *(pair(name, short(value)) for name, value in known), class_="facts")
    links = [element("li", element("a", *title, href=f"#{place}")) for place, title in _contents(report)]
    yield element("nav", element("ul", *links), aria_label="Contents")
    yield end("header")


def _facts(report: Report) -> Iterator[tuple[str, str | None]]:
    summary, manifest = report.summary, report.manifest
    died = utc((summary.crash_time or 0) * 10**6)
    yield "Died", died and f"{died} UTC"
    yield "Kernel", ", ".join(filter(None, (summary.kernel_release, report.machine)))
    yield "Hardware", report.hardware
    if summary.memory is not None:
        stored = summary.memory_in_file
        in_file = "" if stored in {None, summary.memory} else f", {human_size(stored or 0)} in the file"
        yield "Memory", f"{human_size(summary.memory)}{in_file}"
    level = None if summary.dump_level is None else f"dump level {summary.dump_level}"
    compression = summary.compression and f"compression {summary.compression}"
    parts = (report.file_name, human_size(report.size), report.format, level, compression)
    yield "Vmcore", ", ".join(part for part in parts if part)
    if manifest is not None:
        written = utc(manifest.written_usec)
        yield "Written", f"{written} UTC by {manifest.producer}" if written else f"by {manifest.producer}"


def _contents(report: Report) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "attention", ("Attention", _count(sum(1 for _ in _troubles(report))))
    if report.log:
        yield "log", ("Kernel log",)
    if any(utc(span.finished_usec) for span in _spans(report)):
        yield "timeline", ("Timeline",)
    if report.dumps or _idle(report):
        yield "dumps", ("Device dumps", _count(len(report.dumps)))
    yield "files", ("Extract and verify",)


def _count(number: int) -> Html:
    return element("span", str(number), class_="count")


def _attention(report: Report) -> Iterator[str]:
    yield start("section", aria_labelledby="attention")
    yield element("h2", "Attention", id="attention")
    rows = list(_troubles(report))
    if rows:
        yield start("ul", class_="troubles")
        for kind, class_, what, why in rows:
            yield element(
                "li", element("span", kind, class_=f"kind {class_}"), element("span", what), element("span", why)
            )
        yield end("ul")
    else:
        yield element(
            "p", "Nothing: no collector failed, and no device dump says that something is wrong.", class_="good"
        )
    yield end("section")


def _troubles(report: Report) -> Iterator[tuple[str, str, Html, Html]]:
    """Yield kind, class, what and why of whatever a reader must know, the worst first."""
    for failure in report.failures[:MAX_FAILURES]:
        yield "Failed", "bad", element("b", short(failure.name)), short(failure.message or failure.error)
    forgotten = report.manifest.failures_forgotten if report.manifest is not None else 0
    # A manifest may name any number.
    if more := len(report.failures[MAX_FAILURES:]) + min(max(0, forgotten), 1 << 32):
        yield "Failed", "bad", element("b", "others"), text(f"{more:,} more, not named here")
    for why in [*_of_source(report), *report.problems[:MAX_FAILURES]]:
        yield "File", "bad", element("b", short(report.file_name)), short(why)
    for entry in report.dumps:
        if entry.dump.verified is False:
            yield (
                "Altered",
                "bad",
                link(entry),
                text("the data are not those that were collected: SHA-256 differs"),
            )
    for entry in report.dumps:
        if entry.incomplete and entry.dump.entry is not None:
            state = short(entry.dump.entry.state.capitalize(), MAX_STATE)
            yield state, "warn", link(entry), short(entry.dump.entry.error or "it is not complete")
    for entry in report.dumps:
        if entry.decoded.findings:
            yield "Finding", "warn", link(entry), findings(entry.decoded)


def _of_source(report: Report) -> Iterator[str]:
    source = report.manifest.source if report.manifest is not None else ManifestSource()
    if report.summary.incomplete:
        yield "memory is missing: the file was cut off, or its disk was full"
    if source.error:
        yield f"memory is missing: {source.error}"
    if source.missing_bytes:
        yield f"{human_size(max(0, source.missing_bytes))} of memory are missing"
    if source.unreadable_pages:
        pages = f"{source.unreadable_pages} page{' is' if source.unreadable_pages == 1 else 's are'}"
        yield f"{pages} replaced by zeros: the memory could not be read"
    if source.fallback:
        yield source.fallback


def _log(report: Report) -> Iterator[str]:
    if not report.log:
        return
    yield start("section", aria_labelledby="log")
    yield element("h2", "End of the kernel log", id="log")
    whole = report.log.split("\n")
    first = next(
        (number for number, line in enumerate(whole) if _SIGN.search(line)), len(whole) - 2 * LINES_BEFORE
    )
    before, after = (
        "\n".join(whole[: max(0, first - LINES_BEFORE)]),
        "\n".join(whole[max(0, first - LINES_BEFORE) :]),
    )
    if before:
        earlier = element("div", scrolled(element("pre", lines(before)), "Earlier lines"), class_="parts")
        yield element("details", element("summary", "Earlier lines"), earlier)
    log = lines(after)
    if report.panic:
        panic = text(report.panic)
        log = Html(log.replace(panic, element("mark", panic), 1))
    yield scrolled(element("pre", log), "End of the kernel log")
    yield end("section")


def _spans(report: Report) -> Iterator[Span]:
    for entry in report.entries:
        if (described := entry.dump.entry) is not None:
            times = described.started_usec, described.finished_usec
            yield Span(entry.dump.name, anchor(entry), *times, described.state)
    for failure in report.failures[:MAX_FAILURES]:
        yield Span(failure.name, "", 0, failure.time_usec, State.FAILED)


def _timeline(report: Report) -> Iterator[str]:
    table = list(timeline(list(_spans(report))))
    if table:
        yield start("section", aria_labelledby="timeline")
        yield element("h2", "Timeline of the collectors", id="timeline")
        yield from table
        yield end("section")


def _device_dumps(report: Report) -> Iterator[str]:
    if not (report.dumps or _idle(report)):
        return
    yield start("section", aria_labelledby="dumps")
    yield element("h2", "Device dumps", id="dumps")
    commands = {entry.dump.index: command for entry, command in extraction(report)}
    for entry in report.dumps:
        yield from card(entry, commands[entry.dump.index])
    if idle := _idle(report):
        made = f"{len(idle)} collector{' has' if len(idle) == 1 else 's have'} made no device dump"
        pairs = [pair(short(each.name), short(each.reason)) for each in idle[:MAX_FAILURES]]
        yield start("article")
        yield element(
            "details", element("summary", made, class_="quiet"), element("dl", *pairs, class_="fields one")
        )
        yield end("article")
    yield end("section")


def _idle(report: Report) -> tuple[IdleCollector, ...]:
    return report.manifest.idle_collectors if report.manifest is not None else ()


def _files(report: Report) -> Iterator[str]:
    vmcore = shlex.quote(as_operand(report.file_name))
    yield start("section", aria_labelledby="files")
    yield element("h2", "Extract and verify", id="files")
    commands = {
        "What it says": f"vmcoredd show {vmcore}",
        "Check all": f"vmcoredd verify {vmcore}",
        "Extract all": f"vmcoredd extract {vmcore} --all dumps",
        "Debug": f"crash vmlinux {vmcore}",
    }
    pairs = [pair(what, command_line(command)) for what, command in commands.items()]
    yield element("dl", *pairs, class_="fields one")
    if report.entries:
        yield start_scrolled("Checksums")
        yield from _checksums(report)
        yield end("div")
    yield end("section")


_CHECKSUM = {
    True: element("span", "ok", class_="good"),
    False: element("span", "altered", class_="bad"),
    None: Html("-"),
}


def _checksums(report: Report) -> Iterator[str]:
    yield start("table", class_="checksums") + start("thead") + start("tr")
    for name, class_ in (
        ("Index", "number"),
        ("Name", None),
        ("Bytes", "number"),
        ("Checksum", None),
        ("SHA-256", None),
    ):
        yield element("th", name, scope="col", class_=class_)
    yield end("tr") + end("thead") + start("tbody")
    for entry in report.entries:
        yield element(
            "tr",
            element("td", str(entry.dump.index), class_="number"),
            element("td", short(entry.dump.name)),
            element("td", f"{entry.dump.data_size:,}", class_="number"),
            element("td", _CHECKSUM[entry.dump.verified]),
            element("td", short(entry.dump.sha256 or "-"), class_="hash"),
        )
    yield end("tbody") + end("table")


def _footer(report: Report) -> Iterator[str]:
    command = f"vmcoredd report {shlex.quote(as_operand(report.file_name))} -o report.html"
    yield start("footer")
    made = element(
        "p", f"Made by {PRODUCER} with ", element("code", command + (" --redact" if report.redacted else "")), "."
    )
    redacted = "Host names, serial numbers and other values that identify the machine were left out of this page."
    yield made
    if report.redacted:
        yield element("p", redacted)
    yield end("footer")

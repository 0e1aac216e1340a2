# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make the manual pages: `python -m docs.pages DIRECTORY`.

Their source is docs/man/*.rst. A comment `.. generated: WHAT` there is replaced by what the project knows already:
options of the argument parsers, keys of the commented vmcoredd.conf, members of the interface XML, events of the
journal and their catalog, members of the JSON schema. docutils makes the pages of that.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from docs import programs
from vmcoredd_daemon import __version__
from vmcoredd_daemon.journal import FIELDS, Event

ROOT = Path(__file__).parent.parent
SOURCES = Path(__file__).parent / "man"
INTERFACES = ROOT / "dbus/org.vmcoredd1.xml"
CONFIGURATION = ROOT / "systemd/vmcoredd.conf"
SCHEMA = Path(__file__).parent / "vmcoredd.schema.json"
CATALOG = ROOT / "systemd/vmcoredd.catalog"


def main(arguments: list[str]) -> int:
    """Make all pages; return an exit status."""
    if len(arguments) != 1:
        print("usage: python -m docs.pages DIRECTORY", file=sys.stderr)
        return 2
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    for source in sorted(SOURCES.glob("*.rst")):
        (directory / source.stem).write_text(page(source), encoding="utf-8")
    return 0


def page(source: Path) -> str:
    """Return the page that is made of *source*, as roff."""
    from docutils.core import publish_string

    _, section = source.stem.rsplit(".", 1)
    made: bytes = publish_string(
        text(source),
        source_path=str(source),
        writer_name="manpage",
        settings_overrides={
            "report_level": 1,
            "halt_level": 2,
            "output_encoding": "utf-8",
            # A page has no colours, and Pygments is missing when Debian builds packages.
            "syntax_highlight": "none",
        },
    )
    roff = re.sub(r"(?m)^\.TH .*$", lambda match: _title(match[0], section), made.decode(), count=1)
    # docutils writes this one heading in small letters.
    roff = roff.replace("\n.SH Name\n", "\n.SH NAME\n", 1)
    # mandoc knows no such font, and wants no empty line under a heading.
    return re.sub(r"(?m)^(\.S[HS] .*\n)\.sp\n", r"\1", re.sub(r"(?m)^\.ft .*\n", "", roff))


def _title(line: str, section: str) -> str:
    name = re.findall(r'"([^"]*)"|(\S+)', line)[1]
    day = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    date = time.strftime("%Y-%m-%d", day)
    # Neither hyphens nor stretched lines: names and paths are searched for, and copied.
    return f'.TH "{name[0] or name[1]}" "{section}" "{date}" "vmcoredd {__version__}"\n.nh\n.ad l'


def text(source: Path) -> str:
    """Return a source with everything in it that is generated."""
    return re.sub(r"(?m)^\.\. generated: (.*)$", lambda match: generated(match[1]), source.read_text())


def generated(what: str) -> str:
    """Return what a comment in a source stands for."""
    kind, _, name = what.partition(" ")
    match kind:
        case "command":
            return "\n".join(_command(programs.commands()[name]))
        case "other-commands":
            return "\n".join(_other_commands())
        case "daemon":
            return "\n".join(_described(programs.options(programs.daemon())))
        case "options":
            return "\n".join(
                _described([*programs.options(programs.vmcoredd()), *programs.common_options().values()])
            )
        case "keys":
            return "\n".join(_keys())
        case "interface":
            return "\n".join(_interface(name))
        case "events":
            return "\n".join(_events())
        case "json":
            return "\n".join(_json(json.loads(SCHEMA.read_text())["$defs"][name]))
    raise ValueError(f"nothing is generated for {what!a}")


def _command(parser: argparse.ArgumentParser) -> Iterator[str]:
    usage = re.sub(r"\s+", " ", parser.format_usage()).replace("usage: ", "").strip()
    for line in re.sub(rf" (?={re.escape(parser.prog)} )", "\n", usage).splitlines():
        yield from (_escape(line.replace(" [-h]", "")), "")
    yield from (_escape(parser.description or ""), "")
    for action in programs.arguments(parser):
        if action.help:
            yield from (f"*{_escape(programs.value(action))}*", f"    {_sentence(action.help)}", "")
    common = programs.common_options()
    yield from _described(each for each in programs.options(parser) if tuple(each.option_strings) not in common)
    named = [
        names[-1]
        for names in common
        if any(each.option_strings == list(names) for each in programs.options(parser))
    ]
    if named:
        yield from (f"Also {', '.join(f'``{name}``' for name in named)}: see OPTIONS.", "")


def _other_commands() -> Iterator[str]:
    described = set(re.findall(r"^\.\. generated: command (\S+)$", (SOURCES / "vmcoredd.1.rst").read_text(), re.M))
    for name, parser in programs.commands().items():
        if name not in described:
            yield from (f"vmcoredd {name}", "~" * len(f"vmcoredd {name}"), "", *_command(parser))


def _described(options: Iterable[argparse.Action]) -> Iterator[str]:
    for action in options:
        if action.help and action.dest != "help":
            yield ", ".join(f"``{option}``\\ {_value(action, option)}" for option in action.option_strings)
            yield from (f"    {_sentence(action.help)}", "")


def _value(action: argparse.Action, option: str) -> str:
    value = _escape(programs.value(action))
    if not value:
        return ""
    if action.nargs == "?":
        return f"[=\\ *{value}*]"
    return f"*{value}*" if option.endswith("=") else f" *{value}*"


def _keys() -> Iterator[str]:
    blocks = CONFIGURATION.read_text().partition("[Vmcoredd]\n")[2].strip().split("\n\n")
    for block in blocks:
        comments = re.findall(r"^# (.*)$", block, re.MULTILINE)
        keys = re.findall(r"^#(\w+=)(.*)$", block, re.MULTILINE)
        yield ", ".join(f"``{key}``" for key, _ in keys)
        yield f"    {_markup(' '.join(comments))}"
        defaults = ", ".join(f"``{key}{default}``" for key, default in keys if default)
        yield from (f"    Default: {defaults}." if defaults else "", "")


def _interface(name: str) -> Iterator[str]:
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    comment = ""
    element: Any
    for element in ElementTree.parse(INTERFACES, parser).iterfind(f"interface[@name='{name}']/*"):
        # The tag of a comment is this function.
        if element.tag is ElementTree.Comment:
            comment = re.sub(r"\s+", " ", element.text or "").strip()
            continue
        if not comment:
            raise ValueError(f"{INTERFACES}: nothing is said about {name}.{element.get('name')}")
        yield from (_member(element), f"    {_markup(comment)}", "")
        comment = ""


def _member(element: ElementTree.Element) -> str:
    name = element.get("name")
    if element.tag == "property":
        return f"``{name}`` (``{element.get('type')}``), property"
    given = {
        out: ", ".join(
            f"``{argument.get('type')}`` *{argument.get('name')}*"
            for argument in element.iter("arg")
            if (argument.get("direction") == "out") is out
        )
        for out in (False, True)
    }
    answer = f" -> ({given[True]})" if given[True] else ""
    return f"``{name}`` ({given[False]}){answer}, {element.tag}"


def _events() -> Iterator[str]:
    subjects = dict(re.findall(r"^-- (\w+)\nSubject: (.*)$", CATALOG.read_text(), re.MULTILINE))
    for event in Event:
        subject = re.sub(r"@VMCOREDD_(\w+)@", r"*\1*", subjects[event.value])
        fields = ", ".join(f"``VMCOREDD_{name.upper()}``" for name in FIELDS[event])
        yield from (f"``MESSAGE_ID={event.value}``", f"    {subject}. {fields}.", "")


def _json(schema: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Yield what the members of an object are, those of objects in it below them."""
    yield from (f"{indent}{_escape(schema['description'])}", "") if not indent else ()
    inner = schema.get("items") or next((each for each in schema.get("anyOf", ()) if "properties" in each), schema)
    for name, member in inner.get("properties", {}).items():
        yield f"{indent}``{name}``"
        yield from (f"{indent}    {_escape(member['description'])}", "")
        yield from _json(member, f"{indent}    ")


def _markup(comment: str) -> str:
    """Return a comment as reST: what stands in backquotes is literal."""
    parts = comment.split("`")
    return "".join(f"``{part}``" if number % 2 else _escape(part) for number, part in enumerate(parts))


def _escape(plain: str) -> str:
    return re.sub(r"([\\*`_|])", r"\\\1", plain)


def _sentence(help_text: str) -> str:
    return f"{_escape(help_text[0].upper() + help_text[1:])}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

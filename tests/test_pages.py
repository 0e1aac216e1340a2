# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manual pages, as man and mandoc make them, and that they tell of everything there is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vmcoredd_daemon
from docs import programs
from tests.lib.paths import ROOT
from tests.lib.tools import require
from tests.lib.vmcore_dumps import GOLDEN
from tests.lib.vmcoredd import run
from vmcoredd_daemon.cli import crashes, inspect
from vmcoredd_daemon.cli import map as map_of
from vmcoredd_daemon.config.config import KEYS
from vmcoredd_daemon.journal import Event

SOURCES = sorted((ROOT / "docs/man").glob("*.rst"))
NAMES = [source.stem for source in SOURCES]

# Debian builds packages where the recommendations of python3-docutils, Pygments among them, are not installed.
MAKE = "import runpy, sys; sys.modules['pygments'] = None; runpy.run_module('docs.pages', run_name='__main__')"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of all pages."""
    directory = tmp_path_factory.mktemp("man")
    made = subprocess.run(
        [sys.executable, "-c", MAKE, directory], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    return directory


def rendered(page: Path) -> str:
    require("man")
    # groff 1.24 indents by 5, and warns of lines that it does not adjust well.
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100", "MANROFFOPT": "-rBP=7n -dAD=l"}
    command = ["man", "--warnings", "-E", "UTF-8", "-l", page]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (made.returncode, made.stderr) == (0, "")
    return re.sub(r"\x1b\[[0-9;]*m|.\x08", "", made.stdout)


def test_pages_that_the_units_name_are_there(pages: Path) -> None:
    assert sorted(file.name for file in pages.iterdir()) == NAMES
    units = [*(ROOT / "systemd").rglob("*.service"), *(ROOT / "systemd").rglob("*.target")]
    text = "".join(file.read_text() for file in [*units, ROOT / "systemd/vmcoredd.catalog"])
    named = {f"{name}.{section}" for name, section in re.findall(r"man:([\w.-]+)\((\d)\)", text)}
    assert named <= set(NAMES)
    assert "vmcoredd-daemon.8" in named


@pytest.mark.parametrize("name", NAMES)
def test_man_and_mandoc_are_content(pages: Path, name: str) -> None:
    text = rendered(pages / name)
    stem, section = name.rsplit(".", 1)
    assert text.lower().startswith(f"{stem}({section})".lower())
    assert f"\nNAME\n       {stem} - " in text
    # Ours that it refers to.
    for other, number in re.findall(r"\b((?:org\.)?vmcoredd[\w.-]*)\((\d)\)", text):
        assert f"{other}.{number}" in NAMES
    require("mandoc")
    lint = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", pages / name], capture_output=True, text=True, check=False
    )
    assert (lint.returncode, lint.stdout) == (0, "")


def sections_of_commands(pages: Path) -> dict[str, str]:
    text = rendered(pages / "vmcoredd.1")
    return dict(re.findall(r"^   vmcoredd (\S+)\n((?:       .*\n|\n)+)", text, re.MULTILINE))


def terms(section: str) -> list[str]:
    """Return what the source of vmcoredd(1) explains in a section, besides what is generated."""
    text = (ROOT / "docs/man/vmcoredd.1.rst").read_text()
    heading = rf"^{section}\n[~=]+\n(.*?)(?=^[^\n]+\n[~=]+\n|\Z)"
    (found,) = re.findall(heading, text, re.MULTILINE | re.DOTALL)
    explained = re.findall(r"^(\S.*)\n    \S", found, re.MULTILINE)
    return [term.strip("`") for line in explained for term in line.split(", ")]


def test_what_inspect_shows_is_explained_and_nothing_else() -> None:
    of_map = [*map_of.SIGNS.values(), map_of.HOLE, "blank", *map_of.COLUMNS]
    assert terms("vmcoredd inspect") == [
        *(*inspect.FIELDS, *inspect.COLUMNS, *inspect.FAILED_COLUMNS),
        *of_map,
    ]


def test_what_verify_shows_is_explained_and_nothing_else() -> None:
    shown = re.findall(r"^ {0,12}(\w[\w ]*): ", run("verify", GOLDEN).stdout, re.MULTILINE)
    assert terms("vmcoredd verify") == shown


def test_what_crashes_shows_is_explained_and_nothing_else() -> None:
    assert terms("vmcoredd crashes") == list(crashes.COLUMNS)


def test_environment_is_explained() -> None:
    # Where Debian tests its package, the code is not beside the tests.
    package = Path(vmcoredd_daemon.__file__).parent
    text = "".join(file.read_text() for room in ("cli", "terminal") for file in (package / room).glob("*.py"))
    read = set(re.findall(r"environ(?:\.get\(|\[)\"(\w+)\"", text))
    # Others are read in other ways, and by libraries.
    others = {"PAGER", "SYSTEMD_PAGER", "COLUMNS", "LINES", "DBUS_SYSTEM_BUS_ADDRESS", "TMPDIR"}
    assert {"TERM", "NO_COLOR", "LC_ALL"} < read
    assert sorted(terms("ENVIRONMENT")) == sorted(read | others)


def test_every_command_and_option_is_described(pages: Path) -> None:
    sections = sections_of_commands(pages)
    commands = programs.commands()
    assert sorted(sections) == sorted(commands)
    common = programs.common_options()
    of_all = rendered(pages / "vmcoredd.1").partition("\nOPTIONS\n")[2].partition("\nBEFORE A CRASH\n")[0]
    assert {"--json", "--no-pager"} <= {name for names in common for name in names}
    for name, parser in commands.items():
        for action in programs.options(parser):
            text = of_all if tuple(action.option_strings) in common else sections[name]
            for option in action.option_strings:
                assert action.dest == "help" or re.search(rf"^ +.*(?<!\S){option}\b", text, re.MULTILINE)
            # A section names the common options that its command has.
            assert action.dest == "help" or action.option_strings[-1] in sections[name]


def test_every_option_of_the_daemon_is_described(pages: Path) -> None:
    text = rendered(pages / "vmcoredd-daemon.8")
    actions = list(programs.options(programs.daemon()))
    assert len(actions) > 5
    for action in actions:
        assert action.dest == "help" or f"\n       {action.option_strings[0]}" in text


def test_every_key_is_described(pages: Path) -> None:
    text = rendered(pages / "vmcoredd.conf.5").partition("\nKEYS\n")[2].partition("\nEXAMPLE\n")[0]
    lines = re.findall(r"^       (\S.*)$", text, re.MULTILINE)
    assert [key for line in lines for key in re.findall(r"\b([A-Z]\w+)=(?:,|\s|$)", line)] == list(KEYS)


def test_every_event_is_listed(pages: Path) -> None:
    text = rendered(pages / "vmcoredd-daemon.8")
    assert re.findall(r"MESSAGE_ID=(\w{32})", text) == [event.value for event in Event]


def test_every_member_of_an_interface_is_described(pages: Path) -> None:
    text = rendered(pages / "org.vmcoredd1.5")
    members = re.findall(
        r'<(?:method|signal|property) name="(\w+)"', (ROOT / "dbus/org.vmcoredd1.xml").read_text()
    )
    described = re.findall(r"^       (\w+) \(", text, re.MULTILINE)
    assert [name for name in described if name in members] == members

# SPDX-License-Identifier: LGPL-2.1-or-later
import os
import re
from dataclasses import fields
from pathlib import Path

import pytest

from vmcoredd_daemon.collectors.settings import KEYS, Settings, directories, load
from vmcoredd_daemon.config.ini import MAX_LINE
from vmcoredd_daemon.errors import InvalidConfiguration

ALL = """[Collector]
Name=x_%i_%n
Exec=/bin/sh -c 'echo "%i" 100%%'
Decode=sed s%%x%%y%%
FormatVersion=2
Size=3K
KeepSize=yes
TimeoutSec=2min
Enabled=no
Instances=/dev/nu*l
ConditionPathExists=/proc
ConditionPathExists=!/no/such
"""


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    found = tmp_path / "etc", tmp_path / "usr"
    for path in found:
        path.mkdir()
    return found


def test_every_key(paths: tuple[Path, Path]) -> None:
    (paths[0] / "my-driver.conf").write_text(ALL)
    expected = Settings(
        "x_%i_%n",
        ("/bin/sh", "-c", 'echo "%i" 100%%'),
        ("sed", "s%x%y%"),
        3 << 10,
        True,
        2,
        120.0,
        False,
        "/dev/nu*l",
        ("/proc", "!/no/such"),
    )
    assert load(paths) == {"my-driver": expected}
    assert expected.unmet() == ""
    assert list(expected.commands("my-driver")) == [("x_null_my-driver", ["/bin/sh", "-c", 'echo "null" 100%'])]
    assert len(fields(Settings)) == len(KEYS)
    assert not [field.name for field in fields(Settings) if getattr(expected, field.name) == field.default]


def test_empty_values_restore_defaults(paths: tuple[Path, Path]) -> None:
    (paths[0] / "x.conf").write_text(ALL + re.sub("=.*", "=", ALL))
    assert load(paths) == {"x": Settings()}


def test_etc_masks_usr(paths: tuple[Path, Path]) -> None:
    for name in ("masked", "empty", "null", "vendor"):
        (paths[1] / f"{name}.conf").write_text("[Collector]\nExec=vendor\n")
    (paths[0] / "masked.conf").write_text("[Collector]\nExec=admin\n")
    (paths[0] / "empty.conf").touch()
    (paths[0] / "null.conf").symlink_to("/dev/null")
    (paths[0] / ".hidden.conf").write_text("nonsense")
    (paths[0] / "vendor.conf.d").mkdir()
    (paths[0] / "vendor.conf.d" / "10.conf").write_text("[Collector]\nEnabled=no\n")
    assert load(paths) == {
        "masked": Settings(command=("admin",)),
        "empty": None,
        "null": None,
        "vendor": Settings(command=("vendor",), enabled=False),
    }


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("Colour=red", ":2: unknown key 'Colour'"),
        ("Size=0", ":2: Size='0' is not a size"),
        ("Exec='a", ':2: Exec="\'a" is not a command line: No closing quotation'),
        ("Exec=''", ":2: Exec=\"''\" is not a command line: the program is missing"),
        ("Exec=a %x", ":2: Exec='a %x' is not a text in which each % begins %i, %n or %%"),
        ("Instances=relative", ":2: Instances='relative' is not an absolute path"),
        ("ConditionPathExists=!!/", ":2: ConditionPathExists='!!/' is not an absolute path"),
        ("Exec=a %i", ": %i needs Instances=, which is missing"),
        ("Name=a\nInstances=/dev/*", ": Instances= needs %i in Name="),
        (f"Name={'x' * 44}", ": Name=: dump name"),
        ("Name=ü", ": Name=: dump name"),
    ],
)
def test_mistake_costs_one_collector(paths: tuple[Path, Path], line: str, problem: str) -> None:
    file = paths[0] / "bad.conf"
    file.write_text(f"[Collector]\n{line}\n")
    (paths[0] / "good.conf").write_text("[Collector]\nExec=true\n")
    loaded = load(paths)
    assert isinstance(loaded["bad"], InvalidConfiguration)
    assert str(loaded["bad"]).startswith(f"{file}{problem}")
    assert loaded["good"] == Settings(command=("true",))


@pytest.mark.timeout(5)
def test_what_is_not_a_file(paths: tuple[Path, Path]) -> None:
    os.mkfifo(paths[0] / "pipe.conf")
    (paths[0] / "dir.conf").mkdir()
    (paths[0] / "dangling.conf").symlink_to("/no/such")
    problems = {name: str(error).removeprefix(f"{paths[0]}/") for name, error in load(paths).items()}
    assert problems == {
        "pipe": "pipe.conf: is not a regular file",
        "dir": "dir.conf: is not a regular file",
        "dangling": "dangling.conf: cannot be read: No such file or directory",
    }


@pytest.mark.parametrize("name", ["evil\nname", "\x1b[31m", "\u202e", "\udcff", "x" * 250])
def test_name_that_is_no_line_of_text(paths: tuple[Path, Path], name: str) -> None:
    (paths[0] / f"{name}.conf").write_text("[Collector]\nSize=0\n")
    (paths[0] / "good.conf").write_text("[Collector]\nExec=true\n")
    loaded = load(paths)
    assert isinstance(loaded[name], InvalidConfiguration)
    assert str(loaded[name]).isprintable()
    assert str(loaded[name]).startswith(str(paths[0]))
    assert loaded["good"] == Settings(command=("true",))


def test_name_with_a_percent_sign(paths: tuple[Path, Path]) -> None:
    (paths[0] / "%.conf").write_text("[Collector]\nExec=true %n\nInstances=/dev/nul[l]\n")
    loaded = load(paths)["%"]
    assert isinstance(loaded, Settings)
    assert list(loaded.commands("%")) == [("%_null", ["true", "%"])]


def test_command_that_goes_on_in_the_next_line(paths: tuple[Path, Path]) -> None:
    (paths[0] / "x.conf").write_text("[Collector]\nExec=sh -c \\\n  'echo a; \\\n# b\n   echo c'\n")
    assert load(paths) == {"x": Settings(command=("sh", "-c", "echo a;  echo c"))}


@pytest.mark.timeout(20)
def test_endless_word(paths: tuple[Path, Path]) -> None:
    (paths[0] / "x.conf").write_text("[Collector]\nExec=" + "x" * 1_000_000)
    assert str(load(paths)["x"]) == f"{paths[0]}/x.conf:2: has more than {MAX_LINE} characters"


def test_conditions() -> None:
    assert Settings(conditions=("/proc", "/no")).unmet() == "ConditionPathExists=/no is not met"
    assert Settings(conditions=("!/proc",)).unmet() == "ConditionPathExists=!/proc is not met"


def test_directories() -> None:
    vendor = Path("/usr/lib/vmcoredd/collectors.d")
    assert directories(None) == (Path("/etc/vmcoredd/collectors.d"), vendor)
    assert directories(Path("/x/y.conf")) == (Path("/x/collectors.d"), vendor)


def test_directories_that_cannot_be_read(paths: tuple[Path, Path]) -> None:
    (paths[1] / "x.conf").write_text("[Collector]\nExec=true\n")
    (paths[1] / "y.conf").write_text("[Collector]\nExec=true\n")
    (paths[0] / "y.conf.d").symlink_to("y.conf.d")
    links = "Too many levels of symbolic links"
    loaded = load(paths)
    assert loaded["x"] == Settings(command=("true",))
    assert str(loaded["y"]) == f"{paths[1]}/y.conf: cannot look for drop-ins: {links}"
    (paths[0] / "y.conf.d").unlink()
    paths[0].rmdir()
    paths[0].symlink_to(paths[0].name)
    assert {name: str(error) for name, error in load(paths).items()} == {
        str(paths[0]): f"{paths[0]}: cannot be read: {links}",
        "x": f"{paths[1]}/x.conf: cannot look for drop-ins: {links}",
        "y": f"{paths[1]}/y.conf: cannot look for drop-ins: {links}",
    }

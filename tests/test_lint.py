# SPDX-License-Identifier: LGPL-2.1-or-later
"""The linters, and the rules of the house that no linter knows: the floors, and who may import a library."""

import ast
import importlib.util
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.lib.paths import ROOT
from tests.lib.tools import require

PACKAGE = ROOT / "vmcoredd_daemon"
SCRIPTS = Path(sysconfig.get_path("scripts"))

# From the ground up: a room imports only what is on lower floors, and what lies in itself.
FLOORS = (
    "errors files lookup progress text",
    "note manifest digest journal threads terminal",
    "vmcore config",
    "dumps bus",
    "collectors decoders writer",
    "service cli",
    "__main__",
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms.split()}

# Only these import a library; a folder stands for all that is in it.
ONLY_IMPORTERS = {
    "dbus_next": ("bus/",),
    "systemd": ("journal.py", "service/sd_notify.py"),
    "elftools": ("vmcore/elf.py",),
}

# What a vmcore is made of, and read with, also where no event loop runs.
WITHOUT_ASYNCIO = ("vmcore/", "threads/watched.py", "terminal/", *(f"{room}.py" for room in FLOORS[0].split()))

MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("command", ["ruff check", "ruff format --check", "mypy"])
def test_linter_is_content(command: str) -> None:
    name, *options = command.split()
    program = str(SCRIPTS / name)
    require(program)
    run = subprocess.run([program, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        pytest.fail(f"{command}:\n{run.stdout}{run.stderr}", pytrace=False)


def test_every_room_is_on_a_floor() -> None:
    assert {room_of(module) for module in MODULES} == {*FLOOR, ""}


def test_rooms_import_only_from_below() -> None:
    assert [
        f"{module} imports {imported}"
        for module in MODULES
        for imported in modules_imported_by(module)
        if room_of(module) != room_of(imported) and FLOOR[room_of(module)] <= FLOOR.get(room_of(imported), -1)
    ] == []


def test_no_modules_import_each_other() -> None:
    try:
        TopologicalSorter({module: modules_imported_by(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])), pytrace=False)


@pytest.mark.parametrize("library", ONLY_IMPORTERS)
def test_library_has_only_its_importers(library: str) -> None:
    importers = {module for module in MODULES for name in imports(module) if name.partition(".")[0] == library}
    for allowed in ONLY_IMPORTERS[library]:
        assert any(module.startswith(allowed) for module in importers), f"{allowed} does not import {library}"
    assert [module for module in importers if not module.startswith(ONLY_IMPORTERS[library])] == []


def test_some_rooms_know_no_asyncio() -> None:
    apart = [module for module in MODULES if module.startswith(WITHOUT_ASYNCIO)]
    assert len(apart) > len(WITHOUT_ASYNCIO)
    assert [module for module in apart if "asyncio" in {name.partition(".")[0] for name in imports(module)}] == []


def test_only_programs_set_the_loop_of_a_process() -> None:
    """In tests that is pytest-asyncio's, see tests/lib/loops.py."""
    called = []
    for path in (ROOT / "tests").rglob("*.py"):
        imported, _, _ = path.read_text().partition('if __name__ == "__main__":')
        if re.search(r"(?<!``)asyncio\.(run\(|Runner\(\))", imported) and path != Path(__file__):
            called.append(path)
    assert called == []


def room_of(module: str) -> str:
    """Return the room that a module lies in: of the package itself, an empty string."""
    return Path(module).parts[0].removesuffix(".py").replace("__init__", "")


def modules_imported_by(module: str) -> set[str]:
    """Return the modules of the package that a module imports, wherever in it."""
    found = set()
    for name in imports(module):
        if name.partition(".")[0] == PACKAGE.name:
            # The last part is a module, or what one of them defines.
            for part in (name, name.rpartition(".")[0]):
                path = part.partition(".")[2].replace(".", "/")
                file = next(
                    (file for file in (f"{path}.py", f"{path}/__init__.py".lstrip("/")) if file in MODULES), None
                )
                if file is not None:
                    found.add(file)
                    break
    return found - {module}


def imports(module: str) -> Iterator[str]:
    """Absolute names of what a module of the package imports, wherever in it, `from . import x` as package.x."""
    package = ".".join([PACKAGE.name, *Path(module).parent.parts])
    for node in ast.walk(ast.parse(MODULES[module].read_text(), module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The linters, and the rules of the design that no linter knows: layers and lengths."""

import ast
import importlib.util
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import require

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vmcoredd_daemon"
SCRIPTS = Path(sysconfig.get_path("scripts"))

MAX_MODULE_LINES = 280
MAX_FUNCTION_LINES = 45

# Who may import what; a folder stands for all that is in it.
CORE = ("errors.py", "manifest.py", "note.py", "vmcore/")
ONLY_IMPORTERS = {
    "dbus_next": ("bus/",),
    "systemd": ("journal.py", "service_manager.py"),
}

MODULES = [path.relative_to(PACKAGE).as_posix() for path in sorted(PACKAGE.rglob("*.py"))]


@pytest.mark.parametrize("command", ["ruff check", "ruff format --check", "mypy"])
def test_linter_is_content(command: str) -> None:
    name, *options = command.split()
    program = str(SCRIPTS / name)
    require(program)
    run = subprocess.run([program, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        pytest.fail(f"{command}:\n{run.stdout}{run.stderr}", pytrace=False)


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(CORE)])
def test_core_knows_only_itself(module: str) -> None:
    outside = {"asyncio", *ONLY_IMPORTERS}
    inside = {name.removesuffix(".py").rstrip("/") for name in CORE}
    for imported in imports(module):
        top, _, rest = imported.partition(".")
        assert top not in outside, f"{module} imports {imported}"
        assert top != PACKAGE.name or rest.partition(".")[0] in inside, f"{module} imports {imported}"


@pytest.mark.parametrize("library", ONLY_IMPORTERS)
def test_library_has_only_its_importers(library: str) -> None:
    importers = {module for module in MODULES for name in imports(module) if name.partition(".")[0] == library}
    assert all(module.startswith(ONLY_IMPORTERS[library]) for module in importers)


@pytest.mark.parametrize("module", MODULES)
def test_module_is_short(module: str) -> None:
    lines = (PACKAGE / module).read_text().count("\n")
    assert lines <= MAX_MODULE_LINES


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module: str) -> None:
    functions = (node for node in nodes(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    lengths = [((node.end_lineno or node.lineno) - node.lineno + 1, node.name) for node in functions]
    assert [entry for entry in lengths if entry[0] > MAX_FUNCTION_LINES] == []


def imports(module: str) -> Iterator[str]:
    """Absolute names of what a module of the package imports, wherever in it, `from . import x` as package.x."""
    package = ".".join([PACKAGE.name, *Path(module).parent.parts])
    for node in nodes(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def nodes(module: str) -> Iterator[ast.AST]:
    return ast.walk(ast.parse((PACKAGE / module).read_text(), module))


def test_only_programs_set_the_loop_of_a_process() -> None:
    """In tests that is pytest-asyncio's, see tests/loops.py."""
    called = []
    for path in (ROOT / "tests").rglob("*.py"):
        imported, _, _ = path.read_text().partition('if __name__ == "__main__":')
        if re.search(r"(?<!``)asyncio\.(run\(|Runner\(\))", imported) and path != Path(__file__):
            called.append(path)
    assert called == []

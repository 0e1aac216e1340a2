# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand check: would a panic now give a vmcore with device dumps? It runs on the healthy machine."""

import argparse
import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from ...config.config import Configuration, load
from ...errors import InvalidConfiguration
from ...terminal.exit import FAILURE, SUCCESS, UsageError
from ...terminal.stdio import complain
from ...terminal.view import Cell, Mark, View
from ...text import counted
from ...threads.loop import run_in_own_thread, wait_for
from . import capture_kernel, collectors, kdump, storage, units
from .finding import Finding, State, ok, problem, unknown
from .system import System

TIMEOUT = 90.0
"""Seconds for a part of the machine to answer: a file system of another machine may not."""
INITRAMFS = Path("/boot/vmcoredd.img")
"""As docs/kdump.md names it."""


def run(options: argparse.Namespace) -> int:
    """Check; return the exit status: 0 if there is no problem."""
    root = Path(options.root).absolute()
    if not root.is_dir():
        raise UsageError(f"{root} is no directory (see vmcoredd check --help)")
    findings = asyncio.run(_findings(_system(root, options.initramfs)))
    view = View.of(options)
    if view.as_json:
        view.show_json([asdict(finding) for finding in findings])
    else:
        view.show(_table(view, findings))
    problems = [finding for finding in findings if finding.state is State.PROBLEM]
    if problems:
        complain(
            f"{counted(len(problems), 'problem')}: {', '.join(dict.fromkeys(each.check for each in problems))}"
        )
        return FAILURE
    return SUCCESS


def _system(root: Path, initramfs: Path | None) -> System:
    """Return the system in *root*, with an initramfs of its own if one is named, or if nothing else is set up."""
    system = System(root, initramfs)
    of_document = system.path(str(INITRAMFS))
    with suppress(OSError):
        if system.setup is None and of_document.exists():
            return System(root, of_document)
    return system


async def _findings(system: System) -> list[Finding]:
    findings = [*await _answers("capture kernel", partial(capture_kernel.check, system))]
    findings += await _answers("kdump", partial(kdump.check, system))
    try:
        configuration = await wait_for(run_in_own_thread(load, system.configuration), TIMEOUT)
    except (InvalidConfiguration, TimeoutError) as error:
        wrong = problem("configuration", str(error) or _late(), "Correct it: the service does not start with it.")
        return [*findings, wrong, *await _of_systemd(system)]
    findings.append(_enabled(configuration))
    try:
        of_collectors, size = await collectors.check(system, configuration)
    except OSError as error:
        of_collectors, size = [unknown(collectors.CHECK, error.strerror or _late())], 0
    findings += of_collectors
    findings += await _answers("target", partial(storage.check_target, system, configuration))
    findings += await _answers("spool", partial(storage.check_spool, system, configuration, size))
    return [*findings, *await _of_systemd(system)]


async def _answers(name: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Run a check in a thread, because a file system may not answer."""
    try:
        return await wait_for(run_in_own_thread(lambda: list(check())), TIMEOUT)
    except TimeoutError:
        return [unknown(name, _late())]
    except OSError as error:
        return [unknown(name, f"{error.filename or 'a file'}: {error.strerror}")]


def _late() -> str:
    return f"there was no answer within {TIMEOUT:g} s"


async def _of_systemd(system: System) -> list[Finding]:
    of_units = await _answers("units", partial(units.check_units, system))
    return [*of_units, *await _answers("message bus", partial(units.check_bus, system))]


def _enabled(configuration: Configuration) -> Finding:
    if not configuration.enabled:
        return problem("configuration", "Enabled=no switches device dumps off", "Remove the line.")
    return ok("configuration", "valid")


def _table(view: View, findings: Sequence[Finding]) -> str:
    rows: list[list[Cell]] = [[each.check, _mark(each.state), each.finding] for each in findings]
    shown = view.table(["CHECK", "STATE", "FINDING"], rows, shrink=("FINDING",))
    problems = [each for each in findings if each.state is State.PROBLEM]
    for advice in dict.fromkeys(each.advice for each in problems):
        found = [f"{each.check}: {each.finding}" for each in problems if each.advice == advice]
        headings = [view.heading(line) for text in found for line in view.wrapped(text)]
        shown += "\n" + "".join(f"{line}\n" for line in [*headings, *view.wrapped(advice, "  ")])
    return shown


def _mark(state: State) -> Cell:
    return Mark(state, state is State.OK) if state is not State.UNKNOWN else state

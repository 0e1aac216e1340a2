# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the registered collectors can run."""

from ...collectors.registry import Registered
from ...collectors.runner import missing_program, plan, registered
from ...collectors.settings import VENDOR_DIRECTORY
from ...config.config import Configuration
from ...errors import VmcoreddError
from ...text import counted
from .finding import Finding, ok, problem
from .system import System

CHECK = "collectors"


async def check(system: System, configuration: Configuration) -> tuple[list[Finding], int]:
    """Ask each collector that is enabled for its device dumps; return also how many bytes these may take."""
    directories = [system.path("/etc/vmcoredd/collectors.d"), system.path(str(VENDOR_DIRECTORY))]
    try:
        known = await registered(directories, configuration.collector_timeout)
    except VmcoreddError as error:
        return [problem(CHECK, str(error), "See collectors.d, and the Python packages that have collectors.")], 0
    findings, dumps, size = [], 0, 0
    enabled = [collector for collector in known.values() if collector.enabled]
    for collector in enabled:
        try:
            if missing := await missing_program(collector, configuration.collector_timeout, system.root):
                advice = "Install it, correct Exec= in its file, or mask the collector with an empty file in /etc."
                findings.append(problem(CHECK, f"{collector.name}: program {missing} is missing", advice))
            planned = await plan(collector, None, configuration.collector_timeout)
        except VmcoreddError as error:
            findings.append(problem(CHECK, _said(collector, error), "Correct its file, or its package."))
            continue
        dumps += len(planned)
        size += sum(dump.size for dump in planned)
    if not findings:
        made = f"{counted(dumps, 'device dump')} here"
        findings.append(ok(CHECK, f"{len(enabled)} of {counted(len(known), 'collector')} enabled, {made}"))
    return findings, size


def _said(collector: Registered, error: VmcoreddError) -> str:
    text = str(error)
    return text if collector.name in text else f"{collector.name}: {text}"

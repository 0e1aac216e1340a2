# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the registered collectors can run."""

from collections.abc import Iterator, Sequence

from ...collectors.registry import Planned, Registered
from ...collectors.runner import missing_program, plan, registered
from ...collectors.settings import VENDOR_DIRECTORY
from ...config.config import Configuration
from ...config.limits import Limits
from ...errors import VmcoreddError
from ...progress import human_size
from ...text import counted
from ...threads.loop import run_in_own_thread, wait_for
from .finding import Finding, ok, problem
from .system import System
from .units import COLLECT, enabled_helpers

CHECK = "collectors"


async def check(system: System, configuration: Configuration) -> tuple[list[Finding], int]:
    """Ask each collector that is enabled for its device dumps; return also how many bytes these may take."""
    directories = [system.path("/etc/vmcoredd/collectors.d"), system.path(str(VENDOR_DIRECTORY))]
    try:
        known = await registered(directories, configuration.collector_timeout)
    except VmcoreddError as error:
        return [problem(CHECK, str(error), "See collectors.d, and the Python packages that have collectors.")], 0
    of_units = await wait_for(run_in_own_thread(_of_units, system), configuration.collector_timeout)
    findings = [_unknown(name) for name in sorted(of_units - set(known))]
    planned: list[Planned] = []
    chosen = [collector for name, collector in known.items() if collector.enabled or name in of_units]
    if not configuration.run_collectors:
        chosen = [collector for collector in chosen if collector.name in of_units]
        if not chosen:
            advice = "Remove RunCollectors=no, or enable vmcoredd-collect@COLLECTOR.service."
            findings.append(problem(CHECK, "RunCollectors=no: none runs when the service starts", advice))
    for collector in chosen:
        try:
            if missing := await missing_program(collector, configuration.collector_timeout, system.is_program):
                advice = "Install it, correct Exec= in its file, or mask the collector with an empty file in /etc."
                findings.append(problem(CHECK, f"{collector.name}: program {missing} is missing", advice))
            planned += await plan(collector, None, configuration.collector_timeout)
        except VmcoreddError as error:
            findings.append(problem(CHECK, _said(collector, error), "Correct its file, or its package."))
    findings += _beyond(configuration.limits, planned)
    if not findings:
        made = f"{counted(len(planned), 'device dump')} here"
        findings.append(ok(CHECK, f"{len(chosen)} of {counted(len(known), 'collector')} run, {made}"))
    return findings, sum(each.size for each in planned)


def _of_units(system: System) -> set[str]:
    """Return the collectors that have a unit of their own."""
    return {found[1] for unit in enabled_helpers(system) if (found := COLLECT.fullmatch(unit.name))}


def _beyond(limits: Limits, planned: Sequence[Planned]) -> Iterator[Finding]:
    """Yield which limits of vmcoredd.conf the device dumps exceed."""
    raise_it = "Raise it in vmcoredd.conf, or lower Size= of collectors."
    if len(planned) > limits.max_dumps:
        said = f"they make {len(planned)} device dumps, and MaxDumps={limits.max_dumps}"
        yield problem(CHECK, said, "Raise it in vmcoredd.conf (crash reads 64), or switch collectors off.")
    for each in planned:
        if each.size > limits.max_dump_size:
            most = human_size(limits.max_dump_size)
            yield problem(
                CHECK, f"{each.dump_name} may have {human_size(each.size)}, and MaxDumpSize={most}", raise_it
            )
    total = sum(each.size for each in planned)
    if total > limits.max_total_size:
        said = f"all may have {human_size(total)}, and MaxTotalSize={human_size(limits.max_total_size)}"
        yield problem(CHECK, said, raise_it)


def _unknown(name: str) -> Finding:
    advice = f"Correct its name, or run systemctl disable vmcoredd-collect@{name}.service."
    return problem(CHECK, f"vmcoredd-collect@{name}.service is enabled, and there is no collector {name}", advice)


def _said(collector: Registered, error: VmcoreddError) -> str:
    text = str(error)
    return text if collector.name in text else f"{collector.name}: {text}"

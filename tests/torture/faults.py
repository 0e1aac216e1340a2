# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every system call of an add, a removal, a write, a start and a stop fails in turn, and is where SIGKILL comes.

In "restart" a killed daemon starts with a failure, and stops with it. Exit status 0 must mean that everything is
in a vmcore.

    python -m tests.torture.faults --jobs 2 --table /tmp/outcomes.txt

A first run of each scenario counts its steps; then each step gets every error that it can have, alone or with all
that follow, and both kills. After each case a daemon without faults is started at the same place: whatever was
acknowledged must be there, bit for bit, and at last in a vmcore.
"""

import argparse
import asyncio
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from errno import (
    EAGAIN,
    EDQUOT,
    EFBIG,
    EINTR,
    EINVAL,
    EIO,
    EMFILE,
    EMLINK,
    ENFILE,
    ENOLCK,
    ENOMEM,
    ENOSPC,
    EOPNOTSUPP,
    EROFS,
    ESTALE,
    ETIMEDOUT,
    errorcode,
)
from pathlib import Path

from tests.lib.bus import private_bus
from tests.lib.caller import call
from tests.lib.loops import run_coroutine
from tests.lib.sample import unpack
from tests.torture import disk
from tests.torture.disk import Lost, data_of
from tests.torture.load import WAYS
from tests.torture.rig import KINDS, Control, FaultyService, Mode, build, pattern_of
from vmcoredd_daemon.bus import Connection, take_fds
from vmcoredd_daemon.errors import CallFailed
from vmcoredd_daemon.threads.fd_closer import close_fds

SOURCE_SIZE = 1 << 20
ERRORS: dict[str, tuple[int, ...]] = {
    "open": (EMFILE, ENFILE, ENOMEM, EIO, EROFS, ENOSPC, EDQUOT, ESTALE, EINTR),
    "write": (ENOSPC, EIO, EDQUOT, EFBIG, ETIMEDOUT, EINTR),
    "read": (EIO, ESTALE, EINTR, ENOMEM),
    "fsync": (EIO, ENOSPC, EDQUOT, EROFS, ETIMEDOUT, EINVAL, EINTR),
    "link": (ENOSPC, EIO, EROFS, EDQUOT, EMLINK, ESTALE, ENOMEM),
    "rename": (ENOSPC, EIO, EROFS, ESTALE),
    "unlink": (EIO, EROFS, ESTALE),
    "ftruncate": (EIO, ENOSPC, EINTR, EROFS),
    "fallocate": (ENOSPC, EIO, EDQUOT, EINTR, EOPNOTSUPP, EROFS),
    "memfd_create": (EMFILE, ENOMEM),
    "fcntl": (EMFILE,),
    "flock": (EINTR, ENOLCK),
    "mkdir": (ENOSPC, EIO, EROFS, EDQUOT, ENOMEM, EINVAL),
    "statvfs": (EIO, ESTALE, EINTR),
    "stat": (EIO, ESTALE, ENOMEM),
    "readdir": (EIO, ESTALE, EMFILE, ENOMEM),
    "pthread_create": (EAGAIN,),
    "fork": (EAGAIN, ENOMEM),
    "pipe": (EMFILE,),
    "mmap": (ENOMEM,),
    "copy": (EIO, ENOSPC, EINTR),
    "malloc": (ENOMEM,),
    "close": (EIO,),
    "lseek": (EIO,),
}
LASTING = (ENOSPC, EDQUOT, EIO, EROFS, EMFILE, ENOMEM)
"""What a machine may have for good: a full or broken disk, no descriptors, no memory."""
SHORTENED = ("write", "read", "copy")
APART = {"memory": ("malloc", "mmap"), "close": ("close",)}
"""Calls that do not come in the same order in two runs, and would shift what is counted: imports take memory, too,
and descriptors are closed by threads that no other waits for."""
HELD = ("before-1-c5000", "before-2-t100")
KILLS = (Mode.KILL, Mode.KILL_AFTER)
NO_REPLY = "org.freedesktop.DBus.Error.NoReply"


@dataclass(frozen=True)
class Case:
    """One failure at one step of a scenario."""

    scenario: str
    step: int
    """Which of the calls that are like *call*, from 0."""
    call: str
    """The call of the first run; the table has the one that was hit."""
    mode: Mode
    error: int = 0
    lasting: bool = False
    apart: str = ""
    """Which calls are the steps, of :data:`APART`; otherwise all others."""

    def __str__(self) -> str:
        what = {Mode.SHORT: "short", Mode.KILL: "SIGKILL before", Mode.KILL_AFTER: "SIGKILL after"}
        lasting = " from here on" if self.lasting else ""
        return what.get(self.mode, errorcode.get(self.error, "?")) + lasting


@dataclass
class Outcome:
    """What came of a case."""

    case: Case
    hit: str = ""
    answer: str = ""
    problems: list[str] = field(default_factory=list)
    log: str = ""

    @property
    def word(self) -> str:
        """What came of it, without the reason."""
        if self.problems:
            return "WRONG"
        answer = re.sub(r"refused: [\w.]*\.(\w+): .*", r"refused \1", self.answer)
        return answer.split(",")[0]

    def line(self) -> str:
        """Return a row of the table."""
        hit = self.hit or f"not reached: {self.case.step}: {self.case.call[-30:]}"
        answer = "; ".join(self.problems) or self.answer.replace("org.vmcoredd1.Error.", "")
        return f"{self.case.scenario:18} {hit:44} {self.case!s:22} {answer}"


def numbered(steps: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield each step, and how many like it there were before."""
    before: Counter[str] = Counter()
    for step in steps:
        pattern = pattern_of(step)
        yield before[pattern], step
        before[pattern] += 1


def cases(scenario: str, steps: Sequence[str]) -> Iterator[Case]:
    """Yield what can happen at the first and the last of the *steps* that are the same call of the same file."""
    last = {call: number for number, call in numbered(steps)}
    seen: set[str] = set()
    for number, call_ in numbered(steps):
        if call_ in seen and last[call_] != number:
            continue
        seen.add(call_)
        kind = call_.split()[0]
        for error in ERRORS[kind]:
            yield Case(scenario, number, call_, Mode.FAIL, error)
            if error in LASTING:
                yield Case(scenario, number, call_, Mode.FAIL, error, lasting=True)
        if scenario == "restart":
            # Where it starts, and where it stops, is where it was killed and given less.
            continue
        if kind in SHORTENED:
            yield Case(scenario, number, call_, Mode.SHORT)
        yield from (Case(scenario, number, call_, mode) for mode in KILLS)


def memory_cases(scenario: str, steps: Sequence[str]) -> Iterator[Case]:
    """Yield that there is no memory, at each of the *steps* that take some."""
    for number, call_ in numbered(steps):
        yield Case(scenario, number, call_, Mode.FAIL, ENOMEM, apart="memory")


def close_cases(scenario: str, steps: Sequence[str]) -> Iterator[Case]:
    """Yield that a file cannot be closed without an error, at each of the *steps* that do."""
    for number, call_ in numbered(steps):
        yield Case(scenario, number, call_, Mode.FAIL, EIO, apart="close")


class Bench:
    """A bus, a library, and room for one case after the other."""

    def __init__(self, directory: Path, address: str, bus: Connection) -> None:
        self._directory = directory
        self._address = address
        self._bus = bus
        self._library = build(directory)
        self._number = 0
        self._sample = directory / "sample"

    async def count(self, scenario: str, apart: str = "") -> list[str]:
        """Return the steps of a scenario in which nothing fails."""
        run = self._next(Case(scenario, -1, "", Mode.COUNT, apart=apart))
        outcome = await run.run()
        if outcome.problems:
            raise Lost(f"{scenario}, without any failure: {outcome.problems}\n{outcome.log}")
        return run.steps

    async def run(self, case: Case) -> Outcome:
        """Return what comes of *case*."""
        run = self._next(case)
        outcome = await run.run()
        shutil.rmtree(run.directory)
        return outcome

    def _next(self, case: Case) -> "Run":
        self._number += 1
        directory = self._directory / str(self._number)
        (directory / "disk").mkdir(parents=True)
        source = directory / "disk" / "source"
        if case.scenario.endswith("kdump"):
            # The only one that makedumpfile takes; no program writes to it.
            os.link(self._sample if self._sample.exists() else unpack(self._sample), source)
        else:
            disk.write_source(source, SOURCE_SIZE)
        return Run(directory, self._address, self._bus, self._library, case)


class Run:
    """One case."""

    def __init__(self, directory: Path, address: str, bus: Connection, library: Path, case: Case) -> None:
        self.steps: list[str] = []
        self.directory = directory
        self._case = case
        self._bus = bus
        self._outcome = Outcome(case)
        self._disk = directory / "disk"
        self._source = self._disk / "source"
        self._page = directory / "page"
        self._control = Control(self._page, self._disk)
        self._library = library
        spool = "\nSpool=/nonexistent/spool" if self._in_memory else ""
        output = "kdump" if case.scenario.endswith("kdump") else "elf"
        configuration = f"Format={output}\nCollectorTimeoutSec=4{spool}"
        self._service = FaultyService(address, self._source, directory, configuration, dev_mode=False)
        self._service.target.rmdir()
        self._service.target = self._disk / "target"
        self._service.target.mkdir()
        self._acknowledged: set[str] = set()
        self._doubtful: set[str] = set()
        self._status: int | None = None

    @property
    def _in_memory(self) -> bool:
        return self._case.scenario.endswith("memory")

    async def run(self) -> Outcome:
        """Prepare, fail, and judge."""
        with self._service:
            try:
                await self._fail()
                await self._judge()
            except (Lost, RuntimeError, TimeoutError, subprocess.TimeoutExpired) as error:
                self._outcome.problems.append(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
        self._name_hit()
        self._outcome.log = self._service.log()
        if "Traceback" in self._outcome.log:
            self._outcome.problems.append("TRACEBACK")
        return self._outcome

    async def _fail(self) -> None:
        """Take two device dumps without a failure, then do what the scenario says, with it."""
        starting = self._case.scenario in ("start", "restart")
        self._start(faulty=not starting)
        for name in HELD:
            await self._add("file", name)
        if starting:
            self._service.kill()
            self._arm()
            self._start(faulty=True, wait=False)
            self._outcome.answer = await asyncio.to_thread(self._started)
            if self._case.scenario == "restart" and self._outcome.answer == "starts":
                self._outcome.answer = await self._stop()
        else:
            self._arm()
            self._outcome.answer = await self._act(self._case.scenario)
        self.steps = self._control.steps
        self._name_hit()
        self._control.disarm()

    def _name_hit(self) -> None:
        hit = re.sub(r"/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "/BOOT", self._control.hit)
        hit = re.sub(r"#\d+ \(deleted\)", "unnamed", hit).replace("/target/.vmcoredd-spool", "SPOOL")
        self._outcome.hit = re.sub(r"/target/[^/.]+-\d{4}-[\d:.-]+", "CRASH", hit)

    def _arm(self) -> None:
        case = self._case
        kinds = [kind for kind, errors in ERRORS.items() if case.lasting and case.error in errors]
        apart = {kind: group for group, kinds in APART.items() for kind in kinds}
        ignored = [kind for kind in KINDS if apart.get(kind, "") != case.apart]
        self._control.arm(case.mode, pattern_of(case.call), case.step, case.error, kinds, ignored)

    def _start(self, *, faulty: bool, wait: bool = True) -> None:
        self._service.library = self._library if faulty else None
        self._service.page = self._page
        self._service.start(wait=wait)

    def _started(self) -> str:
        log = len(self._service.log())
        while self._service.process.poll() is None:
            if "Taking device dumps" in self._service.log()[log:]:
                return "starts"
            time.sleep(0.01)
        return f"exit status {self._service.process.returncode}"

    async def _add(self, way: str, name: str) -> str:
        data = data_of(name)
        try:
            await WAYS[way](self._bus, name, data + b"more" * disk.truncated(name), len(data))
        except CallFailed as error:
            return f"refused: {error.name}: {error.text}"
        self._acknowledged.add(name)
        return "done"

    async def _act(self, scenario: str) -> str:
        if scenario == "stop":
            return await self._stop()
        if scenario.startswith("add "):
            return await self._add(scenario.split()[1], "new-1-c9000")
        try:
            if scenario == "remove":
                self._doubtful.add(HELD[0])
                path = next(path for path, name, _, _ in await self._list() if name == HELD[0])
                await call(self._bus, "RemoveDeviceDump", "o", [path])
                self._acknowledged.discard(HELD[0])
            elif scenario == "open":
                path, *_ = (await self._list())[0]
                arguments = ("org.vmcoredd1", path, "org.vmcoredd1.DeviceDump", "Open")
                close_fds(take_fds(await self._bus.method_call(*arguments)))
            else:
                path = (await call(self._bus, "WriteVmcore", "a{sv}", [{}])).body[0]
                return f"done {path.rpartition('/')[2]}"
        except CallFailed as error:
            if scenario == "remove" and error.name != NO_REPLY:
                self._doubtful.discard(HELD[0])
            return f"refused: {error.name}: {error.text}"
        return "done"

    async def _stop(self) -> str:
        self._status = await asyncio.to_thread(self._service.stop)
        return f"exit status {self._status}"

    async def _list(self) -> list[tuple[str, str, int, str]]:
        return list((await call(self._bus, "ListDeviceDumps")).body[0])

    async def _judge(self) -> None:
        """See that the failure was named, that the daemon goes on, and that nothing is lost."""
        answer, problems = self._outcome.answer, self._outcome.problems
        if NO_REPLY in answer:
            await asyncio.to_thread(self._service.process.wait, 10)
        killed = self._service.process.poll() == -signal.SIGKILL
        if killed != (self._case.mode in KILLS and bool(self._outcome.hit)):
            problems.append(f"CRASH: {answer}")
        if "internal error" in answer or answer.startswith("refused: org.freedesktop.DBus.Error.Failed"):
            problems.append("SILENT: internal error")
        if killed:
            self._outcome.answer = "killed"
        elif self._service.process.poll() is None:
            await self._goes_on()
        else:
            self._named(answer)
        if killed and self._in_memory:
            # The log has said that they are in memory only.
            return
        self._check_disk()
        if not self._in_memory:
            await self._restart()

    def _named(self, answer: str) -> None:
        """See that the log of a daemon that has ended says why, when it did not do all of its work."""
        if answer != "exit status 0":
            lines = [
                line for line in self._service.log().splitlines() if re.search("ERROR|vmcoredd-daemon: ", line)
            ]
            if not lines:
                self._outcome.problems.append("SILENT: nothing in the log")
            else:
                self._outcome.answer += ", log: " + re.sub(r"^\S+ (ERROR: )?", "", lines[0])

    async def _goes_on(self) -> None:
        log = self._service.log()
        if self._outcome.answer.startswith("refused"):
            await self._wait_for_log(self._outcome.answer.split(": ", 2)[2])
        if "kept in memory" in log and not self._in_memory:
            self._outcome.answer += " in memory, as the log says"
        answer = await self._add("file", "after-1-c4033")
        if answer != "done" and "device dumps are refused" not in log:
            self._outcome.problems.append(f"does not go on: {answer}")
        if "kept in memory" in log:
            await self._stop()
        else:
            self._service.kill()

    async def _wait_for_log(self, reason: str) -> None:
        """See that the log says what the caller was told: soon, because it has a thread of its own."""
        deadline = time.monotonic() + 5
        while reason.lower() not in self._service.log().lower():
            if time.monotonic() > deadline:
                self._outcome.problems.append(f"SILENT: the log does not say {reason}")
                return
            await asyncio.sleep(0.01)

    def _check_disk(self) -> None:
        """Judge what lies there; memory that could not be read must be counted in the log."""
        log = self._service.log()
        counted = "pages could not be read" in log or "no space for" in log
        self._spooled = disk.check_spool(self._service.target)
        altered = re.findall(
            r"Device dump (\S+) (?:was altered after it was taken|could not be read completely from the spool)",
            log,
        )
        self._written = disk.check_vmcores(self._service.target, None if counted else self._source, altered)
        held = self._acknowledged - self._doubtful
        if missing := held - self._spooled - self._written:
            raise Lost(f"neither in the spool nor in a vmcore: {missing}")
        if self._status == 0 and (missing := held - self._written):
            raise Lost(f"exit status 0, and in no vmcore: {missing}")
        gone = set(HELD) - self._acknowledged
        if back := gone & self._spooled:
            raise Lost(f"removed and back: {back}")

    async def _restart(self) -> None:
        self._start(faulty=False)
        listed = {name: (size, state) for _, name, size, state in await self._list()}
        for name in self._spooled:
            expected = (len(data_of(name)), "truncated" if disk.truncated(name) else "complete")
            if listed.get(name) != expected:
                raise Lost(f"{name} is listed as {listed.get(name)} after the restart")
        if status := await asyncio.to_thread(self._service.stop):
            raise Lost(f"the restarted daemon stops with status {status}")
        held = self._acknowledged - self._doubtful
        if missing := held - disk.check_vmcores(self._service.target, None, self._acknowledged):
            raise Lost(f"in no vmcore: {missing}")


SCENARIOS = (
    *(f"add {way}" for way in WAYS),
    *("add file to memory", "open", "remove", "write", "write kdump", "stop", "start", "restart"),
)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """Provide a bench in a directory of its own, on a disk."""
    with (
        tempfile.TemporaryDirectory(prefix="vmcoredd-", dir="/var/tmp") as name,
        private_bus(Path(name)) as address,
    ):
        bus = await Connection.open(address, 10)
        try:
            yield Bench(Path(name), address, bus)
        finally:
            await bus.close()


async def count(scenario: str) -> list[Case]:
    """Return the cases of a scenario."""
    async with bench() as one:
        found = list(cases(scenario, await one.count(scenario)))
        found += close_cases(scenario, await one.count(scenario, "close"))
        # At the start it is the interpreter that takes memory.
        if scenario not in ("start", "restart"):
            found += memory_cases(scenario, await one.count(scenario, "memory"))
        return found


async def run(chosen: Sequence[Case]) -> list[Outcome]:
    """Run cases, one after the other."""
    async with bench() as one:
        return [await one.run(case) for case in chosen]


def run_part(chosen: Sequence[Case]) -> list[Outcome]:
    """Run cases in a process of their own."""
    return run_coroutine(run(chosen))


def main() -> None:
    """Run, write the table, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", type=Path, help="file that gets the outcome of every case")
    parser.add_argument("--markdown", type=Path, help="file that gets them step by step")
    parser.add_argument("--only", default="", help="scenarios that contain this")
    parser.add_argument("--part", type=float, default=1.0, help="take this part of the cases, at random")
    options = parser.parse_args()
    started = time.monotonic()
    every = [case for name in SCENARIOS if options.only in name for case in run_coroutine(count(name))]
    if options.part < 1:
        every = [case for case in every if random.random() < options.part]
    parts = [every[start : start + 20] for start in range(0, len(every), 20)]
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for part in pool.map(run_part, parts):
            outcomes += part
            print(f"{len(outcomes)} of {len(every)}", file=sys.stderr)
            for outcome in part:
                if outcome.problems:
                    print(outcome.line(), *outcome.log.splitlines()[-12:], sep="\n    ", flush=True)
    if options.table:
        options.table.write_text("".join(f"{outcome.line()}\n" for outcome in outcomes))
    if options.markdown:
        options.markdown.write_text("".join(f"{line}\n" for line in condensed(outcomes)))
    print("\n".join(summary(outcomes, time.monotonic() - started)))
    sys.exit(any(outcome.problems for outcome in outcomes))


def condensed(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the outcomes as Markdown: for each step of a scenario, what came of which errors."""
    steps: dict[tuple[str, str], dict[str, list[str]]] = {}
    for outcome in outcomes:
        if outcome.hit:
            answers = steps.setdefault((outcome.case.scenario, outcome.hit), {})
            errors = answers.setdefault(outcome.word, [])
            if str(outcome.case) not in errors:
                errors.append(str(outcome.case))
    lines = ["| what is done | step | what happens to it, and what comes of that |", "|---|---|---|"]
    for (scenario, hit), answers in steps.items():
        what = "; ".join(f"{', '.join(errors)}: **{answer}**" for answer, errors in answers.items())
        lines.append(f"| {scenario} | {hit} | {what} |")
    return lines


def summary(outcomes: Sequence[Outcome], seconds: float) -> list[str]:
    """Return the figures, for people."""
    reached = [outcome for outcome in outcomes if outcome.hit]
    words = Counter(f"{outcome.case.scenario}: {outcome.word}" for outcome in reached)
    return [
        f"{len(outcomes)} failures injected, {len(outcomes) - len(reached)} of them not reached, {seconds:.0f} s",
        *(f"{count:5} {word}" for word, count in sorted(words.items())),
        f"{sum(bool(outcome.problems) for outcome in outcomes)} crashes, silences and losses",
    ]


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Registered collectors in the daemon: good ones beside all that can go wrong, on the bus and without one."""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.lib import vendor_collectors
from tests.lib.caller import add_bytes, call, options, service_state
from tests.lib.resources import children
from tests.lib.service import Service, mask_built_in
from tests.lib.vmcore_dumps import manifest
from tests.lib.vmcoredd import run
from tests.lib.waiting import eventually, is_busy
from vmcoredd_daemon.bus import Connection
from vmcoredd_daemon.collectors.builtin import BUILT_IN
from vmcoredd_daemon.collectors.registry import Registered
from vmcoredd_daemon.collectors.runner import CUT_OFF_MARGIN, CollectorRunner, plan
from vmcoredd_daemon.config.limits import Limits
from vmcoredd_daemon.dumps.dump_list import DumpList
from vmcoredd_daemon.dumps.spool import Spool
from vmcoredd_daemon.errors import Busy, CallFailed, InvalidArgs, NameInUse, TimedOut
from vmcoredd_daemon.manifest import IdleCollector
from vmcoredd_daemon.note import ByteOrder
from vmcoredd_daemon.threads.loop import AbandonedThreads

BAD = {
    "hangs": ("sh -c 'echo so far; exec sleep 1000'", "truncated", "did not finish within 2 s"),
    "hangs_silently": ("sleep 1000", "failed", "did not finish within 2 s"),
    "ignores_sigterm": (
        "sh -c 'trap \"\" TERM; while :; do sleep 1; done'",
        "failed",
        "did not finish within 2 s",
    ),
    "floods_stdout": ("yes", "truncated", "wrote more than 65536 bytes"),
    "floods_stderr": ("sh -c 'exec yes help >&2'", "failed", "did not finish within 2 s: help"),
    "exits": ("sh -c 'echo no such device >&2; exit 3'", "failed", "exit status 3: no such device"),
    "exits_late": ("sh -c 'echo half; exit 3'", "truncated", "exit status 3"),
    "prints_nothing": ("true", "failed", "printed nothing"),
    "killed": ("sh -c 'kill -KILL $$'", "failed", "was killed by SIGKILL"),
    "not_executable": ("/etc/passwd", "failed", "cannot run /etc/passwd: Permission denied"),
    "missing": ("/no/such/program", "failed", "cannot run /no/such/program: No such file or directory"),
    "lies_about_size": ("head -c 65537 /dev/zero", "truncated", "wrote more than 65536 bytes"),
}
BAD_PYTHON = {
    "raises": ("failed", "RuntimeError: the device is gone (vendor_collectors.py:"),
    "hangs_in_python": ("truncated", "did not finish within 2 s"),
    "HangsAtOnce": ("failed", "did not name its device dumps within 2 s"),
    "floods_in_python": ("truncated", "wrote more than 100 bytes"),
    "Exits": ("failed", "SystemExit: 3"),
    "disappears": ("truncated", "ProcessLookupError: [Errno 3] No such process (vendor_collectors.py:"),
    "writes_nothing": ("failed", "the collector wrote nothing"),
    "LiesAboutItsSize": ("failed", "('lies_about_its_size', -1) is not a dump name and a size"),
}
GOOD = 20


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """collectors.d of the daemon to come, and Python packages with entry points."""
    packages = tmp_path / "packages" / "vendor-1.dist-info"
    packages.mkdir(parents=True)
    kinds = [kind for kind, value in vars(vendor_collectors).items() if isinstance(value, type)]
    kinds = [kind for kind in kinds if vars(vendor_collectors)[kind].__module__ == vendor_collectors.__name__]
    lines = [f"{kind} = tests.lib.vendor_collectors:{kind}" for kind in kinds]
    (packages / "entry_points.txt").write_text("\n".join(["[vmcoredd.collectors]", *lines, ""]))
    (packages / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor\nVersion: 1\n")
    monkeypatch.setenv("PYTHONPATH", str(packages.parent))
    mask_built_in(tmp_path / "collectors.d")
    return tmp_path / "collectors.d"


def write(directory: Path, name: str, command: str, more: str = "") -> None:
    (directory / f"{name}.conf").write_text(f"[Collector]\nExec={command}\nSize=64K\n{more}\n")


def torture(directory: Path) -> None:
    """Write the files of all the bad ones, and of the good ones."""
    for number in range(GOOD):
        write(directory, f"good{number}", f"sh -c 'head -c {1000 * number} /dev/zero; echo %n'")
    for name, (command, _, _) in BAD.items():
        write(directory, name, command)
    pid = directory.parent / "grandchild"
    write(directory, "grandchild", f"sh -c 'sleep 1000 & echo $! >{pid}; echo data'")
    write(directory, "z_duplicate", "sh -c 'head -c 3000 /dev/zero; echo good3'", "Name=good3")
    write(directory, "mistake", "echo data", "Colour=red")
    (directory / "nothing.conf").write_text("[Collector]\nSize=1K\n")


def good_data() -> dict[str, bytes]:
    """What the good ones write, by the names of their device dumps."""
    data = {f"good{number}": bytes(1000 * number) + f"good{number}\n".encode() for number in range(GOOD)}
    return data | {f"python{number}": f"python{number}".encode() + b"." * 10_000 for number in range(2)}


def check(dumps: dict[str, tuple[str, int, str]], directory: Path) -> None:
    """Look at state, size and error of each device dump."""
    good = {name: ("complete", len(data), "") for name, data in good_data().items()}
    good["grandchild"] = ("complete", 5, "")
    assert {name: dump for name, dump in dumps.items() if dump[0] == "complete"} == good
    bad = {name: (state, problem) for name, (_, state, problem) in BAD.items()} | BAD_PYTHON
    bad["mistake"] = ("failed", f"{directory / 'mistake.conf'}:4: unknown key 'Colour'")
    bad["nothing"] = ("failed", "nothing.conf: Exec= is missing")
    bad["good3 again"] = ("failed", "device dump good3: the name is in use")
    assert {name: dump[0] for name, dump in dumps.items() if name not in good} == {
        name: state for name, (state, _) in bad.items()
    }
    for name, (_, problem) in bad.items():
        assert problem in dumps[name][2]


def by_name(dumps: Iterator[tuple[str, str, int, str]]) -> dict[str, tuple[str, int, str]]:
    found: dict[str, tuple[str, int, str]] = {}
    for name, state, size, error in dumps:
        # Either may have been first.
        key = f"{name} again" if name == "good3" and state == "failed" else name
        assert key not in found
        found[key] = (state, size, error)
    return found


async def test_torture_without_a_bus(directory: Path, source_vmcore: Path, tmp_path: Path) -> None:
    torture(directory)
    configuration = "CollectorTimeoutSec=2\nDrainTimeoutSec=30"
    with Service(None, source_vmcore, tmp_path, configuration) as service:
        before = service.start().fd_count()
        assert service.stop() == 0
        assert before < 100
    assert "Traceback" not in service.log()
    content = manifest(service.vmcore())
    kept = [(dump.name, dump.state, dump.size, dump.error) for dump in content.device_dumps]
    failed = [(failure.name, "failed", 0, failure.message) for failure in content.failures]
    check(by_name(iter([*kept, *failed])), directory)
    exact = {name: hashlib.sha256(data).hexdigest() for name, data in good_data().items()}
    assert exact.items() <= {dump.name: dump.sha256 for dump in content.device_dumps}.items()
    # Those that hang do so at the same time: a deadline each, and a margin to be ended in.
    started = min(dump.started_usec for dump in content.device_dumps)
    finished = [dump.finished_usec for dump in content.device_dumps] + [one.time_usec for one in content.failures]
    assert max(finished) - started < (2 + CUT_OFF_MARGIN) * 1e6
    # Without a parent it stays a zombie until init has time for it.
    process = Path(f"/proc/{(tmp_path / 'grandchild').read_text().strip()}/cmdline")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        assert process.read_bytes() == b""


async def test_torture_leaves_nothing(
    directory: Path, start_daemon: Callable[..., Service], bus: Connection
) -> None:
    daemon = start_daemon("CollectorTimeoutSec=2\nRunCollectors=no")
    await call(bus, "ListDeviceDumps")
    before = daemon.fd_count()
    torture(directory)
    (paths,) = (await call(bus, "RunCollectors", "asa{sv}", [[], {}])).body
    listed = json.loads(run("list", "--bus-address", daemon.address, "--json").stdout)
    assert sorted(paths) == sorted(dump["object"] for dump in listed)
    check(by_name((dump["name"], dump["state"], dump["size"], dump["error"] or "") for dump in listed), directory)
    kept = sum(dump["state"] != "failed" for dump in listed)
    # The thread that hangs has the buffer no more.
    assert daemon.fd_count() == before + kept
    await eventually(lambda: not children(daemon.process.pid))
    assert daemon.stop() == 0


async def test_run_by_name(directory: Path, start_daemon: Callable[..., Service], bus: Connection) -> None:
    write(directory, "off", "echo data", "Enabled=no")
    write(directory, "on", "echo data")
    write(directory, "elsewhere", "echo data", "ConditionPathExists=!/proc")
    daemon = start_daemon("RunCollectors=no")
    assert (await call(bus, "RunCollectors", "asa{sv}", [["off", "elsewhere"], {}])).body == [
        ["/org/vmcoredd1/dump/1"]
    ]
    with pytest.raises(CallFailed, match="there is no collector 'other'") as raised:
        await call(bus, "RunCollectors", "asa{sv}", [["on", "other"], {}])
    assert raised.value.name == "org.freedesktop.DBus.Error.InvalidArgs"
    answer = await call(bus, "RunCollectors", "asa{sv}", [["on"], options(wait=False, timeout=5)])
    assert answer.body == [["/org/vmcoredd1/dump/2"]]
    result = run("run", "--bus-address", daemon.address, "off")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "vmcoredd: device dump off: the name is in use\n"
    listed = json.loads(run("list", "--bus-address", daemon.address, "--json").stdout)
    assert {dump["name"]: dump["state"] for dump in listed} == {"off": "complete", "on": "complete"}


async def test_size_that_is_kept(directory: Path, start_daemon: Callable[..., Service], bus: Connection) -> None:
    write(directory, "kept", "echo data", "KeepSize=yes")
    write(directory, "true", "echo data")
    daemon = start_daemon("RunCollectors=no")
    await call(bus, "RunCollectors", "asa{sv}", [["kept", "true"], {}])
    listed = json.loads(run("list", "--bus-address", daemon.address, "--json").stdout)
    assert {dump["name"]: dump["buffer_size"] + 64 for dump in listed} == {"kept": (64 << 10) + 4096, "true": 4096}


class Waits:
    """A collector that waits at one of its methods."""

    go_on = threading.Event()

    def device_dumps(self) -> list[tuple[str, int]]:
        return [("waits", 100)]

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        data.write(b"so far")
        self.go_on.wait()


class WaitsAtOnce(Waits):
    def device_dumps(self) -> list[tuple[str, int]]:
        self.go_on.wait()
        return []


@contextlib.contextmanager
def runner_of(directory: Path, limits: Limits | None = None) -> Iterator[tuple[CollectorRunner, DumpList]]:
    """Provide a runner of the collectors in *directory*, none of ours among them, and what they fill."""
    mask_built_in(directory)
    dumps = DumpList(Spool.in_memory(4096, ByteOrder.LITTLE), limits or Limits())
    yield CollectorRunner(dumps, [directory], 20), dumps
    dumps.close()


async def test_second_run_makes_what_is_not_there(tmp_path: Path) -> None:
    with runner_of(tmp_path / "collectors.d") as (runner, dumps):
        write(tmp_path / "collectors.d", "on", "echo data")
        write(tmp_path / "collectors.d", "fails", "false")
        await runner.run()
        (again,) = await runner.run()
        assert sorted((dump.name, dump.state) for dump in dumps) == [
            ("fails", "failed"),
            ("fails", "failed"),
            ("on", "complete"),
        ]
        assert again == 3
        # Who names it wants to know that it was not made. That is an answer, not a device dump that failed.
        write(tmp_path / "collectors.d", "new", "echo data")
        with pytest.raises(NameInUse, match=r"^device dump on: the name is in use$"):
            await runner.run(["on", "new"])
        assert [(dump.name, dump.state) for dump in dumps][-1] == ("new", "complete")


async def test_success_supersedes_earlier_failures(tmp_path: Path) -> None:
    with runner_of(tmp_path / "collectors.d") as (runner, dumps):
        write(tmp_path / "collectors.d", "flaky", "false")
        await runner.run()
        await runner.run()
        write(tmp_path / "collectors.d", "flaky", "echo data")
        await runner.run()
        assert [(dump.name, dump.state) for dump in dumps] == [("flaky", "complete")]
        assert (await dumps.snapshot()).failures == ()


async def test_collectors_that_make_nothing_are_named(tmp_path: Path) -> None:
    with runner_of(tmp_path / "collectors.d") as (runner, dumps):
        write(tmp_path / "collectors.d", "off", "echo data", "Enabled=no")
        write(tmp_path / "collectors.d", "unmet", "echo data", "ConditionPathExists=!/proc")
        write(tmp_path / "collectors.d", "none", "echo data", f"Instances={tmp_path}/missing*")
        write(tmp_path / "collectors.d", "some", "echo data")
        (tmp_path / "collectors.d" / "empty.conf").touch()
        await runner.run()
        idle = (await dumps.snapshot()).idle_collectors
        assert {each.name for each in idle if each.reason == "masked"} == {"empty", *BUILT_IN}
        assert tuple(each for each in idle if each.reason != "masked") == (
            IdleCollector("none", "nothing to collect here"),
            IdleCollector("off", "switched off"),
            IdleCollector("unmet", "ConditionPathExists=!/proc is not met"),
        )
        await runner.run(["off"])
        assert "off" not in {idle.name for idle in dumps.idle_collectors}
        with pytest.raises(InvalidArgs, match="collector empty is masked"):
            await runner.run(["empty"])


async def test_collector_with_nothing_to_collect(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with runner_of(tmp_path / "collectors.d") as (runner, _):
        write(tmp_path / "collectors.d", "else\nwhere", "echo data", "Name=elsewhere\nConditionPathExists=!/proc")
        assert await runner.run() == []
    (entry,) = caplog.records
    assert entry.getMessage() == r"Collector else\nwhere has nothing to collect here"
    assert vars(entry)["VMCOREDD_COLLECTOR"] == r"else\nwhere"


async def test_threads_that_hang_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vendor-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor\nVersion: 1\n")
    (package / "entry_points.txt").write_text(f"[vmcoredd.collectors]\nwaits = {__name__}:Waits\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with runner_of(tmp_path / "collectors.d", Limits(max_collecting=1)) as (runner, dumps):
        await runner.run(timeout=0.2)
        assert [dump.size for dump in dumps] == [6]
        with pytest.raises(Busy):
            await runner.run()
        Waits.go_on.set()
        await eventually(lambda: not is_busy(dumps.abandoned.check))
        await runner.run()
    Waits.go_on.clear()


async def test_plan_that_hangs_is_counted_until_it_ends() -> None:
    abandoned = AbandonedThreads(1)
    with pytest.raises(TimedOut, match=r"did not name its device dumps within 0\.2 s"):
        await plan(Registered("waits", load=lambda: WaitsAtOnce, abandoned=abandoned), None, 0.2)
    with pytest.raises(Busy):
        abandoned.check()
    Waits.go_on.set()
    await eventually(lambda: not is_busy(abandoned.check))
    Waits.go_on.clear()


def test_command_line_without_a_service(directory: Path, tmp_path: Path) -> None:
    config = ["--config", tmp_path / "vmcoredd.conf"]
    (tmp_path / "vmcoredd.conf").touch()
    (tmp_path / "devices").mkdir()
    for name in ("a", "b"):
        (tmp_path / "devices" / name).touch()
    write(directory, "each", "echo %i", f"Name=dev/%i\nInstances={tmp_path}/devices/*")
    write(directory, "off", "false", "Enabled=no")
    (directory / "Good.conf").symlink_to("/dev/null")
    listed = {entry["name"]: entry for entry in json.loads(run("run", "--list", "--json", *config).stdout)}
    masked = {"name": "Good", "runs": False, "failed": False, "reason": "masked", "device_dumps": []}
    assert listed["Good"] == masked
    assert listed["off"]["reason"] == "Enabled=no"
    assert not listed["off"]["failed"]
    assert listed["each"]["device_dumps"] == [{"name": f"dev/{name}", "limit": 65536} for name in ("a", "b")]
    chosen = json.loads(run("run", "--list", "off", "each", "--json", *config).stdout)
    assert sorted(entry["name"] for entry in chosen) == ["each", "off"]
    unknown = run("run", "--list", *config, "each", "nothing")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr == "vmcoredd: there is no collector 'nothing'\n"
    out = tmp_path / "out"
    assert run("run", "-o", out, *config, "each").returncode == 0
    assert {file: (out / file).read_text() for file in os.listdir(out)} == {
        "dev\\x2fa": "a\n",
        "dev\\x2fb": "b\n",
    }
    write(directory, "none", "false", f"Instances={tmp_path}/missing*")
    assert run("run", "-o", out, *config, "none").stdout == "none: nothing to collect here\n"
    failed = run("run", "-o", out, *config, "off")
    assert (failed.returncode, failed.stderr) == (1, "vmcoredd: 1 of 1 device dumps failed: off\n")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("Exec=no-such-program", "program no-such-program is missing"),
        ("Exec=/no/such/program %i\nInstances=/etc/host*", "program /no/such/program is missing"),
        ("Exec=true\nSize=much", "much"),
    ],
)
def test_list_finds_collectors_that_cannot_run(tmp_path: Path, lines: str, reason: str) -> None:
    (tmp_path / "collectors.d").mkdir()
    (tmp_path / "vmcoredd.conf").touch()
    (tmp_path / "collectors.d/vendor.conf").write_text(f"[Collector]\n{lines}\n")
    listed = run("run", "--list", "vendor", "--config", tmp_path / "vmcoredd.conf")
    assert (listed.returncode, listed.stderr) == (1, "vmcoredd: 1 collector cannot run: vendor\n")
    assert re.search(rf"^vendor .*  no: .*{reason}", listed.stdout, re.MULTILINE)


async def test_callers_are_refused_while_collectors_still_begin(
    bus: Connection, bus_address: str, source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "packages"
    (packages / "late-1.dist-info").mkdir(parents=True)
    (packages / "late-1.dist-info" / "entry_points.txt").write_text("[vmcoredd.collectors]\nlate = late:Late\n")
    (packages / "late-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1\n")
    go = tmp_path / "go"
    os.mkfifo(go)
    (packages / "late.py").write_text(
        f"class Late:\n"
        f"    def device_dumps(self):\n"
        f"        yield open({str(go)!r}).read(), 100\n"
        f"    def collect(self, dump_name, data):\n"
        f"        data.write(b'late')\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{packages}:{os.environ.get('PYTHONPATH', '')}")
    with Service(bus_address, source_vmcore, tmp_path) as daemon:
        daemon.start()
        stopped = asyncio.create_task(asyncio.to_thread(daemon.stop))
        await eventually(lambda: service_state(bus), lambda state: state != "ready", interval=0.001)
        with pytest.raises(CallFailed, match="Busy"):
            await add_bytes(bus, "too_late", b"data")
        with pytest.raises(CallFailed, match="Busy"):
            await call(bus, "RunCollectors", "asa{sv}", [[], {}])
        go.write_text("late0")
        assert await stopped == 0
        assert [dump.name for dump in manifest(daemon.vmcore()).device_dumps] == ["late0"]

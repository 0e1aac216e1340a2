# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd core-collector with the real makedumpfile, a real bus and a real daemon; crash is the judge."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lib import external_tools as judges
from tests.lib.core_collector import (
    NO_BUS,
    OPTIONS,
    WITHOUT,
    Collect,
    add,
    add_collector,
    makedumpfile,
    note_sizes,
    verified,
)
from tests.lib.paths import ROOT
from tests.lib.resources import tmpfs
from tests.lib.service import Service
from tests.lib.shell_program import shell_program
from tests.lib.vmcoredd import VMCOREDD, run
from tests.lib.waiting import wait_until
from vmcoredd_daemon.cli.core_collector.makedumpfile import OWN_OPTIONS
from vmcoredd_daemon.dumps.spool_directory import HANDED_OVER
from vmcoredd_daemon.manifest import MANIFEST_NAME

pytestmark = pytest.mark.usefixtures("tools")


def test_dumps_of_the_service(collect: Collect, daemon: Service, source_vmcore: Path, tmp_path: Path) -> None:
    add(daemon, "nic_0000:02:00.0", "registers" * 1000)
    add(daemon, "hba", "log")
    reader, writer = os.pipe()
    try:
        late = ["broken", "-", "--size", "9", "--timeout", "0.1"]
        assert run("add", "--bus-address", daemon.address, *late, stdin=reader).returncode == 1
    finally:
        os.close(reader)
        os.close(writer)
    vmcore = tmp_path / "vmcore-incomplete"
    result = collect(*OPTIONS, source_vmcore, vmcore, bus=daemon.address)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr.splitlines()[0] == f"vmcoredd: 2 device dumps attached to {vmcore}, 1 failed"
    assert result.stderr.splitlines()[1].startswith("vmcoredd: device dump broken failed: ")
    assert judges.crash_names(vmcore) == ["nic_0000:02:00.0", "hba", MANIFEST_NAME]
    assert verified(vmcore) == {"nic_0000:02:00.0": True, "hba": True, MANIFEST_NAME: None}
    assert run("extract", vmcore, "hba").stdout == "log"
    content = json.loads(run("extract", vmcore, MANIFEST_NAME).stdout.rstrip("\0"))
    assert content["source"]["path"] == str(source_vmcore)
    # The program, and its unit if the tests run in one.
    collectors = [dump["collector"] for dump in content["device_dumps"]]
    assert all(re.fullmatch(r"(.* \()?python3?\S*(\[\d+\]|\))", collector) for collector in collectors)
    assert judges.osrelease(vmcore) == judges.osrelease(source_vmcore)


def test_dump_that_is_still_being_collected_is_waited_for(
    collect: Collect, daemon: Service, source_vmcore: Path, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    command = [*VMCOREDD, "add", "--bus-address", str(daemon.address), "slow", "-", "--size", "9"]
    with subprocess.Popen(command, stdin=reader) as adding:
        os.close(reader)
        wait_until(lambda: "slow" in run("list", "--bus-address", daemon.address).stdout)
        # A device that is slow.
        late = "import os, sys, time; time.sleep(3); os.write(int(sys.argv[1]), b'late')"
        with subprocess.Popen([sys.executable, "-c", late, str(writer)], pass_fds=[writer]):
            os.close(writer)
            result = collect(*OPTIONS, source_vmcore, tmp_path / "vmcore", bus=daemon.address)
        assert adding.wait() == 0
    assert result.stderr == f"vmcoredd: 1 device dump attached to {tmp_path}/vmcore\n"


def test_elf(collect: Collect, daemon: Service, source_vmcore: Path, tmp_path: Path) -> None:
    add(daemon, "hba", "log")
    vmcore = tmp_path / "vmcore"
    result = collect("-E", *OPTIONS[1:], source_vmcore, vmcore, bus=daemon.address)
    assert (result.returncode, result.stderr) == (0, f"vmcoredd: 1 device dump attached to {vmcore}\n")
    assert judges.crash_names(vmcore) == ["hba", MANIFEST_NAME]
    assert note_sizes(vmcore) == {"hba": 4096, MANIFEST_NAME: 4096}


def test_bus_without_the_service(collect: Collect, bus_address: str, source_vmcore: Path, tmp_path: Path) -> None:
    vmcore = tmp_path / "vmcore"
    result = collect(*OPTIONS, source_vmcore, vmcore, bus=bus_address)
    assert (result.returncode, result.stdout) == (0, "")
    attached = f"vmcoredd: 1 device dump attached to {vmcore}\n"
    assert result.stderr == f"{WITHOUT}it is not running\n{attached}"
    assert verified(vmcore) == {"version": True, MANIFEST_NAME: None}
    # The collector's file is gone.
    assert sorted(os.listdir(tmp_path)) == ["bus", "bus.conf", "dbus-daemon.log", "etc", "vmcore"]


def test_no_bus_at_all(collect: Collect, source_vmcore: Path, tmp_path: Path) -> None:
    result = collect(*OPTIONS, source_vmcore, tmp_path / "vmcore")
    assert result.returncode == 0
    assert result.stderr == f"{NO_BUS}vmcoredd: 1 device dump attached to {tmp_path}/vmcore\n"


def test_nothing_to_attach(
    config: Path, collect: Collect, source_vmcore: Path, plain: Path, tmp_path: Path
) -> None:
    config.write_text("[Vmcoredd]\nRunCollectors=no\n")
    result = collect(*OPTIONS, source_vmcore, tmp_path / "vmcore")
    assert result.returncode == 0
    assert result.stderr == f"{NO_BUS}vmcoredd: there are no device dumps to attach to {tmp_path}/vmcore\n"
    assert (tmp_path / "vmcore").read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("text", ["[Vmcoredd]\nNoSuchKey=1\n", "nonsense"])
def test_configuration_that_is_wrong(
    config: Path, collect: Collect, source_vmcore: Path, tmp_path: Path, text: str
) -> None:
    config.write_text(text)
    result = collect(*OPTIONS, source_vmcore, tmp_path / "vmcore")
    assert (result.returncode, result.stdout) == (0, "")
    assert f"\nvmcoredd: {config}:" in result.stderr
    assert judges.osrelease(tmp_path / "vmcore") == judges.osrelease(source_vmcore)


@pytest.mark.parametrize("older", [False, True], ids=["ours", "an older version's"])
def test_killed_daemon_leaves_its_dumps_in_the_spool(
    collect: Collect, daemon: Service, source_vmcore: Path, tmp_path: Path, older: bool
) -> None:
    add(daemon, "hba", "log")
    add(daemon, "nic", "log", "--keep-size")
    daemon.kill()
    if older:
        (place,) = (daemon.target / ".vmcoredd-spool").iterdir()
        place.rename(daemon.target / place.name)
    result = collect(*OPTIONS, source_vmcore, tmp_path / "vmcore", bus=daemon.address)
    assert result.returncode == 0
    assert "3 device dumps attached" in result.stderr
    assert verified(tmp_path / "vmcore") == {"hba": True, "nic": True, "version": True, MANIFEST_NAME: None}
    kept = {"nic": (1 << 20) + 4096}
    assert note_sizes(tmp_path / "vmcore") == dict.fromkeys(("hba", "version", MANIFEST_NAME), 4096) | kept


def test_spool_elsewhere(collect: Collect, daemon: Service, source_vmcore: Path, tmp_path: Path) -> None:
    """kdump-tools mounts its NFS target over that of the configuration."""
    add(daemon, "hba", "log")
    daemon.kill()
    elsewhere = (daemon.target / ".vmcoredd-spool").rename(tmp_path / "spool")
    option = f"--vmcoredd-spool={elsewhere}"
    assert collect(option, *OPTIONS, source_vmcore, tmp_path / "vmcore", bus=daemon.address).returncode == 0
    assert judges.crash_names(tmp_path / "vmcore") == ["hba", "version", MANIFEST_NAME]


def test_what_a_service_has_handed_over_is_not_collected_again(
    config: Path, bus_address: str, collect: Collect, source_vmcore: Path, tmp_path: Path
) -> None:
    """With Format=none a stop leaves the device dumps, and which collectors have failed."""
    with Service(bus_address, source_vmcore, tmp_path, "Format=none") as daemon:
        add_collector(tmp_path / "vmcoredd.conf", "fails", f"sh -c 'echo x >>{tmp_path}/runs; exit 3'")
        daemon.start()
        add(daemon, "hba", "log")
        wait_until((tmp_path / "runs").exists)
        assert daemon.stop() == 0
    add_collector(config, "fails", f"sh -c 'echo x >>{tmp_path}/runs; exit 3'")
    result = collect(*OPTIONS, source_vmcore, tmp_path / "vmcore", bus=bus_address)
    assert result.returncode == 0
    assert f"1 device dump attached to {tmp_path}/vmcore, 1 failed\n" in result.stderr
    assert "device dump fails failed: " in result.stderr
    assert verified(tmp_path / "vmcore") == {"hba": True, MANIFEST_NAME: None}
    assert (tmp_path / "runs").read_text() == "x\n"


@pytest.mark.parametrize("content", ["", "{}", "[1]", "[{}]"])
def test_damaged_file_of_what_was_handed_over(
    config: Path, bus_address: str, collect: Collect, source_vmcore: Path, tmp_path: Path, content: str
) -> None:
    with Service(bus_address, source_vmcore, tmp_path, "Format=none") as daemon:
        daemon.start()
        add(daemon, "hba", "log")
        assert daemon.stop() == 0
    (file,) = tmp_path.rglob(HANDED_OVER)
    file.write_text(content)
    result = collect(*OPTIONS, source_vmcore, tmp_path / "vmcore", bus=bus_address)
    assert f"1 device dump attached to {tmp_path}/vmcore\n" in result.stderr


def test_makedumpfile_that_is_our_wrapper_runs_core_collector_once(
    collect: Collect, program: Callable[[str], Path], source_vmcore: Path, tmp_path: Path
) -> None:
    """As with a function in the configuration of kdump-tools, which our documentation once proposed."""
    front = shell_program(tmp_path / "front", f"touch {tmp_path}/again")
    wrapper = (ROOT / "systemd/makedumpfile").read_text()
    wrapper = wrapper.replace("/usr/bin/vmcoredd-core-collector", str(front))
    wrapper = wrapper.replace("real=", f"real={shutil.which('makedumpfile')} #")
    result = collect(program(wrapper), *OPTIONS, source_vmcore, tmp_path / "vmcore")
    assert result.returncode == 0
    assert verified(tmp_path / "vmcore") == {"version": True, MANIFEST_NAME: None}
    assert not (tmp_path / "again").exists()
    subprocess.run([tmp_path / "makedumpfile", "a", "b"], check=True)
    assert (tmp_path / "again").exists()


def test_daemon_that_hangs(collect: Collect, daemon: Service, source_vmcore: Path, tmp_path: Path) -> None:
    add(daemon, "hba", "log")
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        own = "--vmcoredd-timeout=2"
        result = collect(own, *OPTIONS, source_vmcore, tmp_path / "vmcore", bus=daemon.address)
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert result.returncode == 0
    assert result.stderr.startswith(f"{WITHOUT}the service did not answer within 2 s\n")
    assert verified(tmp_path / "vmcore")["hba"]


def test_collectors_that_hang_or_fail_cost_only_themselves(
    config: Path, collect: Collect, source_vmcore: Path, tmp_path: Path
) -> None:
    add_collector(config, "hangs", "sleep 1000")
    add_collector(config, "fails", "false")
    own = "--vmcoredd-timeout=3"
    result = collect(own, *OPTIONS, source_vmcore, tmp_path / "vmcore")
    assert result.returncode == 0
    assert f"1 device dump attached to {tmp_path}/vmcore, 2 failed\n" in result.stderr
    failures = json.loads(run("inspect", "--json", tmp_path / "vmcore").stdout)["failures"]
    assert {failure["name"] for failure in failures} == {"hangs", "fails"}


def assert_same(ours: "subprocess.CompletedProcess[Any]", theirs: "subprocess.CompletedProcess[Any]") -> None:
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)


@pytest.mark.parametrize("kind", ["empty", "missing", "text"])
def test_makedumpfile_that_fails(collect: Collect, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source"
    if kind != "missing":
        source.write_text("no vmcore" * 1000 if kind == "text" else "")
    theirs = makedumpfile("-l", source, tmp_path / "vmcore")
    assert theirs.returncode != 0
    (tmp_path / "vmcore").unlink(missing_ok=True)
    ours = collect("-l", source, tmp_path / "vmcore")
    assert ours.returncode == theirs.returncode
    assert ours.stdout == theirs.stdout
    assert ours.stderr.startswith(theirs.stderr)
    assert all(line.startswith("vmcoredd: ") for line in ours.stderr[len(theirs.stderr) :].splitlines())


def test_old_file_is_not_touched_when_makedumpfile_refuses_it(
    collect: Collect, source_vmcore: Path, plain: Path, tmp_path: Path
) -> None:
    vmcore = tmp_path / "vmcore"
    vmcore.write_bytes(plain.read_bytes())
    assert_same(collect(*OPTIONS, source_vmcore, vmcore), makedumpfile(*OPTIONS, source_vmcore, vmcore))
    assert vmcore.read_bytes() == plain.read_bytes()


def test_full_disk(collect: Collect, source_vmcore: Path, plain: Path, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", plain.stat().st_size // 2) as small:
        theirs = makedumpfile(*OPTIONS, source_vmcore, small / "vmcore")
        left = (small / "vmcore").read_bytes()
        (small / "vmcore").unlink()
        ours = collect(*OPTIONS, source_vmcore, small / "vmcore")
        assert (small / "vmcore").read_bytes() == left
    assert theirs.returncode != 0
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert "No space left on device" in ours.stderr


def test_disk_that_is_full_for_device_dumps(
    collect: Collect, daemon: Service, source_vmcore: Path, plain: Path, tmp_path: Path
) -> None:
    add(daemon, "hba", "log" * 100_000)
    with tmpfs(tmp_path / "small", (plain.stat().st_size + 65536) & ~4095) as small:
        result = collect(*OPTIONS, source_vmcore, small / "vmcore", bus=daemon.address)
        assert (result.returncode, result.stdout) == (0, "")
        assert result.stderr.startswith(f"vmcoredd: no device dumps attached to {small}/vmcore: ")
        assert "No space left on device" in result.stderr
        assert (small / "vmcore").read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("option", ["--brand-new", "-y"])
def test_options_that_nobody_knows(collect: Collect, source_vmcore: Path, tmp_path: Path, option: str) -> None:
    theirs = makedumpfile(option, source_vmcore, tmp_path / "vmcore")
    ours = collect(option, source_vmcore, tmp_path / "vmcore")
    ours.stderr = ours.stderr.removeprefix(f"vmcoredd: no device dumps attached: unknown option {option!a}\n")
    assert_same(ours, theirs)


@pytest.mark.parametrize("option", ["--vmcoredd-timeout=soon", "--vmcoredd-timeout=0", "--vmcoredd-new=1"])
def test_bad_options_of_ours_cost_no_vmcore(
    collect: Collect, source_vmcore: Path, tmp_path: Path, option: str
) -> None:
    result = collect(option, *OPTIONS, source_vmcore, tmp_path / "vmcore")
    assert result.returncode == 0
    assert "vmcoredd: " + ("'--vmcoredd-new=1' is ignored" if "new" in option else "--vmcoredd-timeout=") in (
        result.stderr
    )
    assert "1 device dump attached" in result.stderr


@pytest.mark.parametrize("arguments", [["-v"], [], ["--check-params", "-l", "a", "b"], ["-l", "a"]])
def test_calls_that_write_no_dump(collect: Collect, arguments: list[str]) -> None:
    assert_same(collect(*arguments), makedumpfile(*arguments))


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_ours_and_that_of_makedumpfile(collect: Collect, option: str) -> None:
    shown, theirs = collect(option), makedumpfile(option)
    assert shown.stdout.endswith(theirs.stdout)
    ours = shown.stdout.removesuffix(theirs.stdout)
    assert ours.startswith("usage: vmcoredd core-collector ")
    assert all(f"--vmcoredd-{name}=" in ours for name in OWN_OPTIONS)
    assert (shown.returncode, shown.stderr) == (theirs.returncode, theirs.stderr)


def test_dump_dmesg(collect: Collect, source_vmcore: Path, tmp_path: Path) -> None:
    result = collect("--dump-dmesg", source_vmcore, tmp_path / "dmesg")
    assert result.returncode == 0
    assert "vmcoredd" not in result.stderr
    assert "Linux version" in (tmp_path / "dmesg").read_text()


def test_no_makedumpfile(collect: Collect, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    for arguments in (["-l", "a", "b"], ["--help"], ["-F", "a"]):
        result = collect(*arguments, env=environment)
        assert (result.returncode, "--vmcoredd-config" in result.stdout) == (127, arguments == ["--help"])
        assert result.stderr.splitlines()[-1] == "vmcoredd: makedumpfile: No such file or directory"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
@pytest.mark.parametrize("options", [("-l", "a", "b"), ("-F", "a")])
def test_signal_that_ends_makedumpfile_ends_us(
    collect: Collect, program: Callable[[str], Path], tmp_path: Path, options: tuple[str, ...], number: int
) -> None:
    killed = collect(program(f"touch b; kill -{int(number)} $$"), *options, cwd=tmp_path)
    assert killed.returncode == -number
    # No program goes on with what it may have left of a file.
    assert options[0] == "-F" or killed.stderr == ""
    assert collect(program("exit 3"), *options).returncode == 3


def test_signals_reach_makedumpfile(config: Path, program: Callable[[str], Path], tmp_path: Path) -> None:
    # A shell waits for its child before it takes a signal.
    command = [*VMCOREDD, "core-collector", str(program(f"touch {tmp_path}/started; exec sleep 100")), "a", "b"]
    with subprocess.Popen(command) as process:
        wait_until((tmp_path / "started").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM


def test_sigpipe_is_not_ignored(collect: Collect, program: Callable[[str], Path]) -> None:
    shown = program("grep SigIgn: /proc/self/status")
    for options in (("-l", "a", "b"), ("-R", "a")):
        ignored = int(collect(shown, *options).stdout.split()[1], 16)
        assert not ignored & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))

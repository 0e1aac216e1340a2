# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd core-collector -F: to a pipe, and from there through makedumpfile -R to crash."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lib import external_tools as judges
from tests.lib.core_collector import (
    NO_BUS,
    NOWHERE,
    OPTIONS,
    WITHOUT,
    Collect,
    add,
    makedumpfile,
    note_sizes,
    verified,
)
from tests.lib.flattened_writer import flatten
from tests.lib.resources import tmpfs
from tests.lib.service import Service
from tests.lib.vmcoredd import VMCOREDD
from vmcoredd_daemon.manifest import MANIFEST_NAME

pytestmark = pytest.mark.usefixtures("tools")

FLATTENED = ("-F", *OPTIONS)
ATTACHED = "vmcoredd: {} attached to standard output\n"


@pytest.fixture(scope="module")
def flat(source_vmcore: Path) -> bytes:
    """What makedumpfile alone writes to standard output."""
    return bytes(makedumpfile(*FLATTENED, source_vmcore, text=False).stdout)


def rearranged(data: bytes, directory: Path) -> Path:
    (directory / "flat").write_bytes(data)
    with (directory / "flat").open("rb") as file:
        judges.rearrange(file, directory / "vmcore")
    return directory / "vmcore"


@pytest.mark.parametrize("options", [OPTIONS, ("-E", *OPTIONS[1:])])
def test_dumps_of_the_service(
    collect: Collect, daemon: Service, source_vmcore: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    add(daemon, "nic", "registers" * 1000, "--keep-size")
    add(daemon, "hba", "log")
    result = collect(*options, "-F", source_vmcore, bus=daemon.address, text=False)
    assert (result.returncode, result.stderr.decode()) == (0, ATTACHED.format("2 device dumps"))
    vmcore = rearranged(result.stdout, tmp_path)
    assert judges.crash_names(vmcore) == ["nic", "hba", MANIFEST_NAME]
    assert verified(vmcore) == {"nic": True, "hba": True, MANIFEST_NAME: None}
    assert note_sizes(vmcore) == {"nic": (1 << 20) + 4096, "hba": 4096, MANIFEST_NAME: 4096}
    assert verified(tmp_path / "flat") == verified(vmcore)
    assert judges.osrelease(vmcore) == judges.osrelease(source_vmcore)


def test_no_bus(collect: Collect, source_vmcore: Path, tmp_path: Path) -> None:
    result = collect(*FLATTENED, source_vmcore, text=False)
    assert (result.returncode, result.stderr.decode()) == (0, NO_BUS + ATTACHED.format("1 device dump"))
    assert judges.crash_names(rearranged(result.stdout, tmp_path)) == ["version", MANIFEST_NAME]


def test_bus_that_never_answers(collect: Collect, source_vmcore: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen(1)
        own = "--vmcoredd-timeout=1"
        address = f"unix:path={tmp_path}/socket"
        result = collect(own, *FLATTENED, source_vmcore, bus=address, text=False)
    assert result.returncode == 0
    assert result.stderr.decode().startswith(f"{WITHOUT}cannot connect to the message bus: {address}: no answer\n")
    assert judges.osrelease(rearranged(result.stdout, tmp_path)) == judges.osrelease(source_vmcore)


def test_bus_that_talks_nonsense(collect: Collect, source_vmcore: Path, tmp_path: Path) -> None:
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(1);"
        "print(flush=True);"
        "c, _ = s.accept(); c.sendall(b'OK 00\\r\\n' + b'\\xff' * 100000); c.recv(1)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "socket")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as nonsense:
        assert nonsense.stdout is not None
        nonsense.stdout.readline()
        address = f"unix:path={tmp_path}/socket"
        result = collect("--vmcoredd-timeout=3", *FLATTENED, source_vmcore, bus=address, text=False)
        nonsense.kill()
    assert result.returncode == 0
    assert result.stderr.startswith(b"vmcoredd: ")
    assert all(line.startswith(b"vmcoredd: ") for line in result.stderr.splitlines())
    assert judges.osrelease(rearranged(result.stdout, tmp_path)) == judges.osrelease(source_vmcore)


def test_nothing_to_attach(config: Path, collect: Collect, source_vmcore: Path, flat: bytes) -> None:
    config.write_text("[Vmcoredd]\nEnabled=no\n")
    result = collect(*FLATTENED, source_vmcore, text=False)
    assert (result.returncode, result.stdout) == (0, flat)
    assert result.stderr.decode() == f"{NO_BUS}vmcoredd: there are no device dumps to attach\n"


def test_makedumpfile_that_fails(collect: Collect, tmp_path: Path) -> None:
    theirs = makedumpfile("-F", "-l", tmp_path / "missing")
    ours = collect("-F", "-l", tmp_path / "missing")
    assert theirs.returncode != 0
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert theirs.stderr in ours.stderr


def test_what_cannot_be_extended_passes(collect: Collect, program: Callable[[str], Path]) -> None:
    result = collect(program("echo what is this; exit 2"), "-F", "a")
    assert (result.returncode, result.stdout) == (2, "what is this\n")
    assert "vmcoredd: no device dumps attached to standard output: " in result.stderr


@pytest.mark.parametrize("options", [("-F",), ()])
def test_makedumpfile_is_given_the_standard_descriptors_and_no_others(
    collect: Collect, daemon: Service, program: Callable[[str], Path], tmp_path: Path, options: tuple[str, ...]
) -> None:
    add(daemon, "nic", "registers")
    add(daemon, "hba", "log")
    shown = program("exec ls -l /proc/self/fd >&2")
    result = collect(shown, *options, "a", *([] if options else ["b"]), bus=daemon.address, cwd=tmp_path)
    # The last one is the directory.
    given = re.findall(r" (\d+) -> (?!/proc/)", result.stderr)
    assert given == ["0", "1", "2"], result.stderr


def test_standard_output_that_nobody_reads(collect: Collect, source_vmcore: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        theirs = makedumpfile(*FLATTENED, source_vmcore, capture_output=False, stdout=writer)
        ours = collect(*FLATTENED, source_vmcore, stdout=writer)
    finally:
        os.close(writer)
    assert ours.returncode == theirs.returncode == -signal.SIGPIPE
    assert ours.stderr == NO_BUS


def test_standard_output_that_is_full(collect: Collect, source_vmcore: Path) -> None:
    with open("/dev/full", "wb") as full:
        result = collect(*FLATTENED, source_vmcore, stdout=full)
    assert result.returncode == 1
    assert result.stderr == f"{NO_BUS}vmcoredd: standard output: No space left on device\n"


def test_long_start_is_kept_in_the_target(
    collect: Collect, program: Callable[[str], Path], vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/tmp may be memory of the capture kernel."""
    pieces = [(16 << 20, bytes(5 << 20)), (0, vmcore.read_bytes())]
    (tmp_path / "flat").write_bytes(flatten(pieces))
    cat = program(f"cat {tmp_path}/flat")
    with tmpfs(tmp_path / "tmp", 1 << 20) as small:
        monkeypatch.setenv("TMPDIR", str(small))
        result = collect(cat, "-F", "a", text=False)
        assert result.stdout == flatten(pieces)
        assert b"no space to keep its start: No space left on device" in result.stderr
        (tmp_path / "target").mkdir()
        result = collect(cat, "-F", "a", text=False)
    assert result.stderr.decode() == NO_BUS + ATTACHED.format("1 device dump")
    assert b"vmcoredd_manifest" in result.stdout


# Each takes the place of a part of the program, which then has that bug.
BUGS = {
    "filter": "def bug(source, *rest):\n source.read(5000)\n 1 / 0\nstream.attach_stream = bug",
    "process": "def bug(*rest):\n os._exit(9)\nsources.run = bug",
    "gatherer": "def bug(*rest):\n raise RuntimeError('a bug')\nsources.run = bug",
    "gather": "def bug(*rest):\n raise RuntimeError('a bug')\nattach.gather = bug",
    "fork": "def bug(*rest):\n raise OSError(12, 'Cannot allocate memory')\nos.fork = bug",
    "parse": "def bug(*rest):\n raise RuntimeError('a bug')\nprogram.parse = bug",
    "module": "for name in ('attach', 'stream'):\n"
    " delattr(package, name)\n"
    " sys.modules[f'vmcoredd_daemon.cli.core_collector.{name}'] = None",
}


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("flattened", [True, False])
def test_bugs_of_ours_cost_no_memory(
    config: Path, source_vmcore: Path, flat: bytes, plain: Path, tmp_path: Path, bug: str, flattened: bool
) -> None:
    script = (
        "import os, sys\n"
        "from vmcoredd_daemon.cli import core_collector as package, main\n"
        "from vmcoredd_daemon.cli.core_collector import attach, program, sources, stream\n"
        f"{BUGS[bug]}\nsys.exit(main.main(sys.argv[1:]))"
    )
    own = [f"--vmcoredd-config={config}", f"--vmcoredd-bus-address={NOWHERE}"]
    options = (
        [*FLATTENED, str(source_vmcore)] if flattened else [*OPTIONS, str(source_vmcore), f"{tmp_path}/vmcore"]
    )
    command = [VMCOREDD[0], "-c", script, "core-collector", *own, *options]
    result = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert result.returncode == 0
    if flattened:
        assert result.stdout == flat
    elif bug != "filter":
        assert (tmp_path / "vmcore").read_bytes() == plain.read_bytes()
    assert all(line.startswith(b"vmcoredd: ") for line in result.stderr.splitlines())
    assert len(result.stderr.splitlines()) in {1, 2}


def test_standard_output_that_is_closed(config: Path, source_vmcore: Path) -> None:
    own = [f"--vmcoredd-config={config}", f"--vmcoredd-bus-address={NOWHERE}"]
    command = [*VMCOREDD, "core-collector", *own, *FLATTENED, str(source_vmcore)]
    closed = ["sh", "-c", 'exec "$@" >&-', "sh"]
    theirs = subprocess.run([*closed, "makedumpfile", *FLATTENED, source_vmcore], capture_output=True, check=False)
    ours = subprocess.run([*closed, *command], capture_output=True, check=False, timeout=60)
    assert (ours.returncode, ours.stderr) == (theirs.returncode, theirs.stderr)

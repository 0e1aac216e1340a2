# SPDX-License-Identifier: LGPL-2.1-or-later
"""Decoders that misbehave, in real processes: each costs its own text, and nothing is left behind."""

import contextlib
import io
import os
import pty
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.lib.paths import ROOT
from tests.lib.shell_program import shell_program
from tests.lib.waiting import wait_until
from vmcoredd_daemon.decoders import apart
from vmcoredd_daemon.decoders.apart import decode_apart, decode_by_program
from vmcoredd_daemon.decoders.decoded import MAX_SUMMARY, Decode, Decoded, Field, Section, Table, Text, to_json
from vmcoredd_daemon.errors import InvalidDump

DECODED = Decoded(
    "nic",
    ("2 errors",),
    ("38 C",),
    (
        Section(
            "registers",
            (
                Field("Status", 5, "0x5: link", wrong=True, private=True),
                Field("Version", "1.2"),
                Field("Ratio", 0.5),
                Field("Supported", True),
                Field("Unknown", None),
                Table("queues", ("number", "name"), ((0, "rx"), (1, None)), private=("name",)),
                Text("log", "a\nb\n"),
            ),
        ),
    ),
    ("part: too short",),
)


def decode(decoder: Decode, data: bytes = b"data") -> Decoded:
    return decode_apart(decoder, "nic", io.BytesIO(data), built_in=True)


def test_answer_is_what_the_decoder_returns() -> None:
    def decoder(dump_name: str, data: BinaryIO) -> Decoded:
        assert (dump_name, data.read()) == ("nic", b"data")
        return DECODED

    assert decode(decoder) == DECODED


def fails(dump_name: str, data: BinaryIO) -> Decoded:
    raise KeyError("\x1b[31mtemperature")


def is_no_dump(dump_name: str, data: BinaryIO) -> Decoded:
    raise InvalidDump("too short")


def exits(dump_name: str, data: BinaryIO) -> Decoded:
    sys.exit(0)


def crashes(dump_name: str, data: BinaryIO) -> Decoded:
    os.kill(os.getpid(), signal.SIGUSR1)
    return DECODED


def takes_memory(dump_name: str, data: BinaryIO) -> Decoded:
    return Decoded(str(bytearray(apart.MEMORY + (64 << 20))))


def answers_too_much(dump_name: str, data: BinaryIO) -> Decoded:
    return Decoded("x" * (apart.OUTPUT + 1))


def recurses(dump_name: str, data: BinaryIO) -> Decoded:
    return recurses(dump_name, data)


def writes_a_file(dump_name: str, data: BinaryIO) -> Decoded:
    # The limit's own signal, SIGXFSZ, is ignored by Python.
    Path(os.environ["WRITTEN"]).write_bytes(b"x")
    return DECODED


def answers_nothing_known(dump_name: str, data: BinaryIO) -> Decoded:
    return Decoded(findings=(5,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("decoder", "reason"),
    [
        (fails, "the decoder failed: KeyError: '\\x1b[31mtemperature'"),
        (is_no_dump, "too short"),
        (exits, "the decoder gave no answer: exit status 127"),
        (crashes, "the decoder gave no answer: SIGUSR1 ended it"),
        (takes_memory, "the decoder needs more than 512 MiB of memory"),
        (answers_too_much, "the decoder gave more than 16 MiB"),
        (recurses, "the decoder failed: RecursionError: maximum recursion depth exceeded"),
        (writes_a_file, "the decoder failed: OSError: [Errno 27] File too large"),
        (answers_nothing_known, "the decoder's answer has a list that is not of texts"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_broken_decoder_is_one_line(
    decoder: Decode, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRITTEN", str(tmp_path / "written"))
    fds = os.listdir("/proc/self/fd")
    with pytest.raises(InvalidDump) as raised:
        decode(decoder)
    assert str(raised.value) == reason
    assert len(os.listdir("/proc/self/fd")) == len(fds)


def test_decoder_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "TIMEOUT", 0.3)

    def hangs(dump_name: str, data: BinaryIO) -> Decoded:
        time.sleep(600)
        return DECODED

    with pytest.raises(InvalidDump, match=r"^the decoder did not finish within 0\.3 s$"):
        decode(hangs)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_what_a_decoder_prints_is_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    def prints(dump_name: str, data: BinaryIO) -> Decoded:
        os.write(1, b"out")
        os.write(2, b"err")
        return DECODED

    decode(prints)
    assert capfd.readouterr() == ("", "")


def test_decoder_of_others_has_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def calls_home(dump_name: str, data: BinaryIO) -> Decoded:
            with socket.create_connection(server.getsockname(), 5):
                return Decoded("connected")

        assert decode(calls_home).title == "connected"
        with pytest.raises(InvalidDump, match=r"Network is unreachable|no network namespace can be made"):
            decode_apart(calls_home, "nic", io.BytesIO(b""), built_in=False)


def by_program(tmp_path: Path, script: str, data: bytes = b"data\n") -> Decoded:
    return decode_by_program([str(shell_program(tmp_path / "decoder", script))], io.BytesIO(data))


def test_program_reads_the_data_and_prints_findings(tmp_path: Path) -> None:
    script = "echo 'Acme NIC'; echo '<3>2 errors'; echo '<6>as it is'; wc -c; wc -c < /dev/stdin"
    decoded = by_program(tmp_path, script)
    assert decoded.summary == "Acme NIC, 2 errors"
    assert decoded.findings == ("2 errors",)
    # /dev/stdin opens the file anew: the data are in a file, and can be read twice.
    text = "Acme NIC\n2 errors\n<6>as it is\n5\n5\n"
    assert decoded.sections == (Section("", (Text("", text),)),)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo begun; echo 'no such format' >&2; exit 3", "decoder: exit status 3: no such format"),
        ("kill -SEGV $$", "decoder: SIGSEGV ended it"),
        ("kill -40 $$", "decoder: signal 40 ended it"),
        ("dd if=/dev/zero bs=1M count=20 status=none", "the decoder gave more than 16 MiB"),
    ],
)
def test_program_that_fails_is_one_line(tmp_path: Path, script: str, reason: str) -> None:
    with pytest.raises(InvalidDump) as raised:
        by_program(tmp_path, script)
    assert str(raised.value) == reason


def test_program_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidDump) as raised:
        decode_by_program([str(tmp_path / "missing")], io.BytesIO(b""))
    assert str(raised.value) == "missing: exit status 127"


def test_program_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its child keeps the pipe open: the deadline counts, and the child ends, too."""
    monkeypatch.setattr(apart, "TIMEOUT", 0.5)
    pid = tmp_path / "pid"
    with pytest.raises(InvalidDump, match="did not finish"):
        by_program(tmp_path, f"sleep 600 & echo $! > {pid}; echo begun")
    number = int(pid.read_text())
    wait_until(lambda: state(number) == "Z")


def test_child_that_leaves_the_session_ends_too(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    leaving = f"setsid sh -c 'echo $$ > {pid}; exec sleep 600' > /dev/null 2>&1 &"
    assert by_program(tmp_path, f"{leaving}\nwhile ! [ -s {pid} ]; do :; done; echo hi").title == "hi"
    number = int(pid.read_text())
    wait_until(lambda: state(number) == "Z")


def test_decoder_has_no_terminal(tmp_path: Path) -> None:
    """It could write escapes to it, and type commands into it."""
    decoder = shell_program(
        tmp_path / "decoder", "if (: > /dev/tty) 2> /dev/null; then echo tty; else echo none; fi"
    )
    program = (
        "import io; from vmcoredd_daemon.decoders.apart import decode_by_program\n"
        f"print(decode_by_program([{str(decoder)!r}], io.BytesIO(b'')).title)"
    )
    master, terminal = pty.openpty()
    pid = os.fork()
    if pid == 0:
        os.login_tty(terminal)
        os.execv(sys.executable, [sys.executable, "-c", program])
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):
        while block := os.read(master, 4096):
            shown += block
    os.waitpid(pid, 0)
    os.close(master)
    assert shown.decode().strip() == "none"


def test_limits_of_the_user_are_kept() -> None:
    def limits(dump_name: str, data: BinaryIO) -> Decoded:
        return Decoded(str(resource.getrlimit(resource.RLIMIT_NOFILE)))

    program = (
        "import io, resource; from tests.decoders.test_apart import *\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "print(decode_apart(lambda name, data: Decoded(str(resource.getrlimit(resource.RLIMIT_NOFILE))),"
        " 'nic', io.BytesIO(b''), built_in=True).title)"
    )
    assert decode(limits).title == "(64, 64)"
    shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout == "(40, 40)\n"


def test_findings_are_bounded(tmp_path: Path) -> None:
    decoded = by_program(tmp_path, "yes '<0>ab' | head -n 100000")
    assert len(decoded.findings) == apart.MAX_FINDINGS
    assert len(decoded.summary) <= MAX_SUMMARY


def test_names_that_are_the_same_take_no_time() -> None:
    """They are told apart by numbers."""
    fields = tuple(Field("-", number) for number in range(50_000))
    found = to_json(Decoded(sections=(Section("", fields),)))["sections"][0]["fields"]
    assert (len(found), found["unnamed"], found["unnamed_50000"]) == (50_000, 0, 49_999)
    mixed = (Field("a", 1), Field("a 2", 2), Field("a", 3), Field("a", 4))
    found = to_json(Decoded(sections=(Section("", mixed),)))["sections"][0]["fields"]
    assert found == {"a": 1, "a_2": 2, "a_3": 3, "a_4": 4}


def state(pid: int) -> str:
    """Return the state of a process as in proc_pid_stat(5); Z, as of one that has ended, if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"

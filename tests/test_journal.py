# SPDX-License-Identifier: LGPL-2.1-or-later
import ast
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import vmcoredd_daemon
from tests.lib.paths import ROOT
from tests.lib.resources import tmpfs
from tests.lib.shell_program import shell_program
from tests.lib.tools import require, skip_or_fail
from vmcoredd_daemon import journal
from vmcoredd_daemon.errors import WriteFailed
from vmcoredd_daemon.journal import FIELDS, SAVED_JOURNAL, Event, logging_started, record, save_journal
from vmcoredd_daemon.service import sd_notify as service_manager

PACKAGE = Path(vmcoredd_daemon.__file__).parent

# Runs where nothing but the test listens at journald's socket: what is sent there is printed, field by field.
JOURNALD = """
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && exec "$0" -c '
import os, socket, sys
from subprocess import Popen
journald = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journald.bind("/run/systemd/journal/socket")
journald.settimeout(5)
state = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{state.st_dev}:{state.st_ino}"
with Popen([sys.executable, "-c", sys.argv[1]]) as process:
    for _ in range(int(sys.argv[2])):
        print(repr(journald.recv(65536)))
sys.exit(process.returncode)
' "$1" "$2"
"""

LOGS = """
import logging
from vmcoredd_daemon.journal import Event, logging_started, record
with logging_started():
    record(Event.DUMP_ADDED, logging.INFO, "Device dump nic0 added", dump_name="nic0", size=100)
    logging.getLogger("other").error("%s went wrong", "something")
    try:
        raise RuntimeError("odd")
    except RuntimeError:
        logging.getLogger("other").exception("unexpected")
"""


@pytest.fixture(autouse=True)
def restored_root() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    assert root.handlers == handlers
    root.setLevel(level)


def logged(program: str) -> list[str]:
    """Run a program in Python, and return what it wrote to stderr."""
    command = [sys.executable, "-c", program]
    environment = os.environ | {"JOURNAL_STREAM": ""}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == ""
    return run.stderr.splitlines()


def test_stderr_without_a_journal() -> None:
    lines = logged(LOGS)
    assert lines[0].startswith("vmcoredd-daemon[")
    assert lines[0].endswith("]: INFO: Device dump nic0 added")
    assert lines[1].endswith("]: ERROR: something went wrong")
    assert lines[2].endswith("]: ERROR: unexpected")
    assert lines[-1] == "RuntimeError: odd"


def test_text_of_others_is_one_printable_line(capfd: pytest.CaptureFixture[str]) -> None:
    with logging_started():
        record(Event.VMCORE_FAILED, logging.ERROR, "/\udcff\x1b[2J\n: no", target="/\udcff")
    assert capfd.readouterr().err.splitlines()[-1].endswith(r"ERROR: /\xff\x1b[2J\n: no")


def require_mount_namespace() -> None:
    require("unshare", "mount")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        skip_or_fail(["a mount namespace (no right to make one)"])


def test_journal_gets_a_path_that_is_not_utf8() -> None:
    logs = "from vmcoredd_daemon.journal import *\nimport logging\nwith logging_started():\n"
    logs += "    record(Event.VMCORE_FAILED, logging.ERROR, '/\\udcff: no', target='/\\udcff')"
    require_mount_namespace()
    command = ["unshare", "--mount", "sh", "-c", JOURNALD, sys.executable, logs, "1"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert run.stderr == ""
    entry = ast.literal_eval(run.stdout)
    assert rb"MESSAGE=/\xff: no" in entry
    assert rb"VMCOREDD_TARGET=/\xff" in entry


def test_everything_is_out_at_the_end() -> None:
    program = """
import logging
from vmcoredd_daemon.journal import Event, logging_started, record
with logging_started():
    for i in range(2000):
        record(Event.DUMP_ADDED, logging.INFO, f"number {i}")
"""
    assert [line.rpartition(" ")[2] for line in logged(program)] == [str(i) for i in range(2000)]


def test_percent_signs_are_text() -> None:
    program = """
import logging
from vmcoredd_daemon.journal import Event, logging_started, record
with logging_started():
    record(Event.DUMP_FAILED, logging.WARNING, "100 % of %s", dump_name="%d")
"""
    (line,) = logged(program)
    assert line.endswith("]: WARNING: 100 % of %s")


def test_fields_of_a_record(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        record(Event.DUMP_ADDED, logging.INFO, "added", dump_name="nic0", size=100)
    (logged,) = caplog.records
    fields = {name: value for name, value in vars(logged).items() if name.isupper()}
    assert fields == {
        "MESSAGE_ID": "f922dfe79ccc4cdb91a9a9250295a7e7",
        "VMCOREDD_DUMP_NAME": "nic0",
        "VMCOREDD_SIZE": "100",
    }


def lines_of(entry: bytes) -> list[str]:
    """Return name and value of each field; before one with line breaks is its size ("Native Journal Protocol")."""
    lines = []
    while entry:
        line, _, entry = entry.partition(b"\n")
        if b"=" not in line:
            size = int.from_bytes(entry[:8], "little")
            line, entry = line + b"=" + entry[8 : 8 + size], entry[9 + size :]
        lines.append(line.decode())
    return lines


def test_journal_gets_every_field() -> None:
    require_mount_namespace()
    command = ["unshare", "--mount", "sh", "-c", JOURNALD, sys.executable, LOGS, "3"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert run.stderr == ""
    entries = [ast.literal_eval(line) for line in run.stdout.splitlines()]
    first, second, third = map(lines_of, entries)
    assert {
        "MESSAGE=Device dump nic0 added",
        "MESSAGE_ID=f922dfe79ccc4cdb91a9a9250295a7e7",
        "PRIORITY=6",
        "SYSLOG_IDENTIFIER=vmcoredd-daemon",
        "VMCOREDD_DUMP_NAME=nic0",
        "VMCOREDD_SIZE=100",
    } <= set(first)
    assert {"MESSAGE=something went wrong", "PRIORITY=3", "LOGGER=other"} <= set(second)
    assert "unexpected" in "\n".join(third)
    assert "RuntimeError: odd" in "\n".join(third)
    for entry in (first, second, third):
        assert all(line.partition("=")[0].isupper() for line in entry)


def test_message_ids_are_unique_and_valid() -> None:
    values = [event.value for event in Event]
    assert len(set(values)) == len(values)
    assert all(len(value) == 32 and int(value, 16) for value in values)


def test_fields_are_those_that_the_manual_page_lists() -> None:
    recorded: dict[Event, set[str]] = {event: set() for event in Event}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "record" and len(node.args) == 3:
                names = [keyword.arg for keyword in node.keywords]
                event = ast.unparse(node.args[0]).removeprefix("Event.")
                if event in Event.__members__ and None not in names:
                    assert names, f"{file}: {event} has no field"
                    recorded[Event[event]] |= {name for name in names if name}
    # What record_dump() and record_vmcore() pass is in test_events.py.
    assert all(set(FIELDS[event]) >= fields for event, fields in recorded.items())
    assert {event for event, fields in recorded.items() if set(FIELDS[event]) != fields} == {
        *(Event.DUMP_ADDED, Event.DUMP_TRUNCATED, Event.DUMP_FAILED, Event.DUMP_REMOVED, Event.VMCORE_WRITTEN),
    }


def test_journald_that_takes_nothing_does_not_keep_the_process(tmp_path: Path) -> None:
    program = """
import logging, os, socket, sys
from vmcoredd_daemon import journal
class Journal(logging.Handler):
    def emit(self, record):
        ours.send(record.getMessage().encode())
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.QUEUE_SIZE, journal.FLUSH_TIMEOUT = 1000, 0.1
journal._stderr_is_journal = lambda: True
journal._journal_handler = lambda identifier: Journal()
with journal.logging_started():
    for number in range(5000):
        journal.record(journal.Event.STARTED, logging.INFO, f"number {number}")
"""
    assert logged(program) == []


def test_entries_that_are_lost_are_counted() -> None:
    program = """
import logging, queue
from vmcoredd_daemon import journal
journal.QUEUE_SIZE = 10
entries = queue.SimpleQueue()
handler = journal._Handler(entries)
log = logging.getLogger("test")
log.addHandler(handler)
log.setLevel(logging.INFO)
log.propagate = False
for number in range(15):
    log.info("number %d", number)
for number in range(5):
    entries.get()
log.info("later")
shown = logging.StreamHandler()
listener = journal._Listener(entries, shown)
listener.start()
listener.end(handler.lost)
"""
    assert logged(program) == [
        *(f"number {number}" for number in range(5, 10)),
        "5 log entries were lost",
        "later",
    ]


def test_saved_journal_follows_no_link(tmp_path: Path) -> None:
    journalctl = shell_program(tmp_path / "bin/journalctl", "[ $1 = --sync ] || echo saved")
    (tmp_path / "crash").mkdir()
    (tmp_path / "precious").write_text("precious")
    saved = tmp_path / "crash" / SAVED_JOURNAL
    saved.symlink_to("../precious")
    program = f"""
import os, sys
state = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{{state.st_dev}}:{{state.st_ino}}"
os.environ["PATH"] = {str(journalctl.parent)!r} + ":" + os.environ["PATH"]
from pathlib import Path
from vmcoredd_daemon.journal import save_journal
save_journal(Path({str(saved.parent)!r}))
"""
    assert logged(program) == []
    assert (tmp_path / "precious").read_text() == "precious"
    assert (saved.is_symlink(), saved.read_text(), saved.stat().st_mode & 0o777) == (False, "saved\n", 0o600)


def test_time_to_save_the_journal() -> None:
    # The service asks for no more time.
    assert journal.FLUSH_TIMEOUT + journal.SAVE_TIMEOUT < service_manager.EXTEND_TIMEOUT


@contextmanager
def journalctl(directory: Path, script: str) -> Iterator[None]:
    """Run *script* in the place of journalctl; the log goes to a journal, as far as anybody can tell."""
    shell_program(directory / "journalctl", script)
    with pytest.MonkeyPatch.context() as patch, (directory / "stderr").open("w") as stderr:
        state = os.fstat(stderr.fileno())
        patch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        patch.setenv("JOURNAL_STREAM", f"{state.st_dev}:{state.st_ino}")
        patch.setattr(sys, "stderr", stderr)
        yield


def test_one_deadline_for_both_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SAVE_TIMEOUT", 1.0)
    (tmp_path / "crash").mkdir()
    with (
        journalctl(tmp_path, f"echo x >> {tmp_path}/calls\nexec sleep 0.7"),
        pytest.raises(WriteFailed, match=f"{SAVED_JOURNAL}: cannot save the journal: .* timed out"),
    ):
        save_journal(tmp_path / "crash")
    assert (tmp_path / "calls").read_text() == "x\nx\n"


@pytest.mark.parametrize("status", [0, 1])
def test_saved_journal_on_a_full_disk_has_whole_lines(tmp_path: Path, status: int) -> None:
    line = json.dumps({"MESSAGE": "x" * 1000})
    script = f"[ $1 = --sync ] || yes '{line}' 2>/dev/null\nexit {status}"
    with tmpfs(tmp_path / "crash", 100_000) as crash:
        with journalctl(tmp_path, script), pytest.raises(WriteFailed, match="cannot save the journal"):
            save_journal(crash)
        saved = (crash / SAVED_JOURNAL).read_text()
    assert saved.count("\n") > 50
    assert saved == f"{line}\n" * saved.count("\n")


@pytest.mark.parametrize("stream", ["", "0:0", "garbage"])
def test_no_journal_nothing_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", stream)
    save_journal(tmp_path)
    assert os.listdir(tmp_path) == []


def test_stderr_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as closed:
        pass
    monkeypatch.setattr(sys, "stderr", closed)
    with logging_started():
        pass

# SPDX-License-Identifier: LGPL-2.1-or-later
import asyncio
import errno
import logging
import os
from pathlib import Path

import pytest

from tests.lib.collectors import written
from tests.lib.waiting import eventually
from vmcoredd_daemon.collectors import process
from vmcoredd_daemon.collectors.command import STDERR_KEPT, CommandCollector
from vmcoredd_daemon.dumps.buffer import Buffer
from vmcoredd_daemon.dumps.collector import Collected
from vmcoredd_daemon.dumps.spool import Spool
from vmcoredd_daemon.errors import CollectorFailed, TimedOut, TooLarge, VmcoreddError
from vmcoredd_daemon.note import ByteOrder

SIZE = 100_000


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "KILL_GRACE", 0.2)
    monkeypatch.setattr("vmcoredd_daemon.collectors.command.OUTPUT_IDLE", 0.2)
    monkeypatch.setattr("vmcoredd_daemon.collectors.command.PIPE_DRAIN_TIMEOUT", 0.8)


async def collect(buffer: Buffer, script: str, timeout: float = 20) -> Collected:
    """Run a shell script as collector."""
    return await CommandCollector("test", ["/bin/sh", "-c", script], timeout).collect("nic0", buffer)


async def gone(pid_file: Path) -> None:
    """Wait until the processes that a script has noted are there no more."""
    await eventually(lambda: not any(running(pid) for pid in pid_file.read_text().split()))


def running(pid: str) -> bool:
    try:
        # Without a parent it stays a zombie until init has time for it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_output_is_the_dump(buffer: Buffer) -> None:
    collected = await collect(buffer, "head -c 90000 /dev/zero | tr '\\0' x; echo end")
    assert collected == Collected(90004)
    assert written(buffer, 90005) == b"x" * 90000 + b"end\n\0"


async def test_environment_is_clean(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    collector = CommandCollector("test", ["env"], 20)
    collected = await collector.collect("nic0", buffer)
    lines = sorted(written(buffer, collected.size).decode().splitlines())
    assert lines == ["LANG=C.UTF-8", "PATH=/usr/bin:/bin", "VMCOREDD_DUMP_NAME=nic0", f"VMCOREDD_SIZE={SIZE}"]


async def test_process_has_nothing_of_ours(buffer: Buffer) -> None:
    os.set_inheritable(fd := os.open("/dev/null", os.O_RDONLY), True)
    collected = await collect(
        buffer,
        # It is made modest when it has started.
        "until [ $(cat /proc/$$/oom_score_adj) = 500 ]; do sleep 0.01; done; "
        "ls /proc/self/fd; readlink /proc/self/fd/0; pwd; nice; cat /proc/self/oom_score_adj; "
        "cut -d' ' -f6 /proc/$$/stat; echo $$",
    )
    os.close(fd)
    text = written(buffer, collected.size).decode().split()
    # 3 is the directory that ls reads.
    assert text[:4] == ["0", "1", "2", "3"]
    assert text[4:8] == ["/dev/null", "/", "10", "500"]
    assert text[8] == text[9]


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("exit 3", "the command failed with exit status 3"),
        ("echo >&2; echo first >&2; echo second >&2; exit 1", "the command failed with exit status 1: first"),
        ("kill -SEGV $$", "the command was killed by SIGSEGV"),
        ("kill -40 $$", "the command was killed by signal 40"),
        (":", "the command printed nothing"),
        ("printf 'a\\033[1m' >&2; exit 1", "the command failed with exit status 1: a\\x1b[1m"),
    ],
)
async def test_failure_without_data(buffer: Buffer, script: str, problem: str) -> None:
    with pytest.raises(CollectorFailed) as raised:
        await collect(buffer, script)
    assert str(raised.value) == f"device dump nic0: {problem}"


async def test_failure_after_some_data_keeps_it(buffer: Buffer) -> None:
    collected = await collect(buffer, "echo half; echo broken >&2; exit 3")
    assert (collected.size, collected.truncated) == (5, True)
    assert str(collected.error) == "device dump nic0: the command failed with exit status 3: broken"
    assert written(buffer, 6) == b"half\n\0"


@pytest.mark.parametrize(
    ("program", "code"),
    [("/no/such", errno.ENOENT), ("no-such-program", errno.ENOENT), ("/etc/passwd", errno.EACCES)],
)
async def test_what_cannot_be_run(buffer: Buffer, program: str, code: int) -> None:
    with pytest.raises(CollectorFailed) as raised:
        await CommandCollector("test", [program], 20).collect("nic0", buffer)
    assert str(raised.value) == f"device dump nic0: cannot run {program}: {os.strerror(code)}"
    assert raised.value.errno == code


@pytest.mark.parametrize("ignoring", ["", "trap '' TERM;"])
async def test_hang_is_cut_off(buffer: Buffer, tmp_path: Path, ignoring: str) -> None:
    pids = tmp_path / "pids"
    script = (
        f"{ignoring} echo $$ >{pids}; sleep 1000 & echo $! >>{pids}; echo so far; while :; do wait; sleep 1; done"
    )
    collected = await collect(buffer, script, 0.5)
    assert (collected.size, collected.truncated) == (7, True)
    assert isinstance(collected.error, TimedOut)
    assert str(collected.error) == "device dump nic0: the command did not finish within 0.5 s"
    await gone(pids)


async def test_hang_without_data(buffer: Buffer) -> None:
    with pytest.raises(TimedOut, match=r"did not finish within 0\.3 s: stuck$"):
        await collect(buffer, "echo stuck >&2; sleep 1000", 0.3)


async def test_last_words_after_sigterm_are_kept(buffer: Buffer) -> None:
    collected = await collect(buffer, "trap 'echo last words; exit' TERM; while :; do sleep 0.01; done", 0.3)
    assert written(buffer, collected.size) == b"last words\n"
    assert isinstance(collected.error, TimedOut)


async def test_flood_is_cut_off(buffer: Buffer, tmp_path: Path) -> None:
    collected = await collect(buffer, f"echo $$ >{tmp_path / 'pid'}; exec yes")
    assert (collected.size, collected.truncated) == (SIZE, True)
    assert isinstance(collected.error, TooLarge)
    assert str(collected.error) == f"device dump nic0: the command wrote more than {SIZE} bytes"
    assert written(buffer, SIZE) == b"y\n" * (SIZE // 2)
    await gone(tmp_path / "pid")


async def test_more_that_comes_late(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmcoredd_daemon.collectors.descriptor.EOF_GRACE", 0.05)
    collected = await collect(buffer, f"head -c {SIZE} /dev/zero; sleep 0.5; echo more")
    assert isinstance(collected.error, TooLarge)
    collected = await collect(buffer, f"head -c {SIZE} /dev/zero; sleep 0.5")
    assert collected == Collected(SIZE)


@pytest.mark.parametrize("last", ["echo done", "echo done; exit 3"])
async def test_endless_stderr(buffer: Buffer, last: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    collected = await collect(buffer, f"yes complaint | head -c 3000000 >&2; {last}")
    assert written(buffer, collected.size) == b"done\n"
    if "exit" in last:
        assert str(collected.error).endswith("exit status 3: complaint")
    else:
        assert collected == Collected(5)
    assert 0 < len(caplog.text) < 2 * STDERR_KEPT
    with pytest.raises(TimedOut):
        await collect(buffer, "exec yes >&2", 0.3)


@pytest.mark.parametrize("session", ["", "setsid"])
async def test_grandchild_that_keeps_the_pipe(buffer: Buffer, tmp_path: Path, session: str) -> None:
    pids = tmp_path / "pids"
    collected = await collect(buffer, f"{session} sleep 1000 & echo $! >{pids}; echo data")
    assert collected == Collected(5)
    if session:
        # It has left the session: only a control group can find it.
        os.kill(int(pids.read_text()), 9)
    await gone(pids)


async def test_grandchild_that_finishes_the_output(buffer: Buffer) -> None:
    assert await collect(buffer, "(sleep 0.1; echo late) & echo data") == Collected(10)


async def test_grandchild_that_drips_for_ever(buffer: Buffer, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    collected = await collect(buffer, f"(while :; do echo x; sleep 0.05; done) & echo $! >{pids}", 0.6)
    assert isinstance(collected.error, TimedOut)
    assert collected.truncated
    await gone(pids)


async def test_closed_output_is_not_the_end(buffer: Buffer) -> None:
    collected = await collect(buffer, "echo data; exec >&-; sleep 0.2; exit 4")
    assert str(collected.error).endswith("failed with exit status 4")


@pytest.mark.parametrize("when", [0.0, 0.3])
async def test_cancelled_command_keeps_what_it_wrote(buffer: Buffer, tmp_path: Path, when: float) -> None:
    pid = tmp_path / "pid"
    task = asyncio.create_task(collect(buffer, f"echo $$ >{pid}; echo so far; exec sleep 1000"))
    await asyncio.sleep(when)
    if when:
        await eventually(lambda: written(buffer, 7) == b"so far\n")
    task.cancel()
    result: Collected | VmcoreddError | None = None
    try:
        result = await task
    except (asyncio.CancelledError, TimedOut):
        assert not when
    if result is not None:
        assert isinstance(result, Collected)
        assert str(result.error) == "device dump nic0: the command did not finish before the shutdown"
        assert result.size == 7
    if pid.exists():
        await gone(pid)


async def test_cancelled_again_while_it_is_cut_off(buffer: Buffer) -> None:
    """As when the service stops, and then the deadline passes."""
    task = asyncio.create_task(collect(buffer, "trap '' TERM; echo so far; while :; do sleep 1; done"))
    await eventually(lambda: written(buffer, 7) == b"so far\n")
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    assert (await task).size == 7


async def test_standard_error_is_logged_line_by_line(buffer: Buffer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    command = ["/bin/sh", "-c", "echo data; printf 'one\\ntwo\\033[1m\\n' >&2"]
    await CommandCollector("x\nError: y", command, 20).collect("nic0", buffer)
    assert [entry.getMessage() for entry in caplog.records] == [
        r"Collector x\nError: y: one",
        r"Collector x\nError: y: two\x1b[1m",
    ]
    for entry in caplog.records:
        fields = {name: value for name, value in vars(entry).items() if name.startswith("VMCOREDD_")}
        description = CommandCollector("x\nError: y", command, 20).description
        assert fields == {"VMCOREDD_COLLECTOR": description, "VMCOREDD_DUMP_NAME": "nic0"}


async def test_many_at_once() -> None:
    spool = Spool.in_memory(4096, ByteOrder.LITTLE)
    buffers = [await spool.create(f"d{i}", 3 << 20) for i in range(16)]
    commands = [
        CommandCollector("test", ["head", "-c", "2M", "/dev/zero"], 20).collect(f"d{i}", other)
        for i, other in enumerate(buffers)
    ]
    assert await asyncio.gather(*commands) == [Collected(2 << 20)] * 16
    for other in buffers:
        other.close()


async def test_description_is_one_line() -> None:
    assert CommandCollector("x", ["/bin/a b", "\n", "\udcff"], 1).description == "x: '/bin/a b' '\\n' '\\xff'"

# SPDX-License-Identifier: LGPL-2.1-or-later

import os
from pathlib import Path

import pytest

from tests.lib.shell_program import shell_program
from tests.lib.tools import require
from vmcoredd_daemon.errors import TimedOut
from vmcoredd_daemon.writer import makedumpfile


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A makedumpfile that is a shell script."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "makedumpfile"


def script(program: Path, *lines: str) -> None:
    shell_program(program, "\n".join(lines))


def test_the_real_one(source_vmcore: Path, tmp_path: Path) -> None:
    require("makedumpfile")
    percents: list[float] = []
    finished = makedumpfile.run(["-l", "-d", "31", source_vmcore, tmp_path / "out"], copied=percents.append)
    assert finished.status == 0
    assert finished.messages[-1] == "makedumpfile Completed."
    assert not [message for message in finished.messages if "%" in message]
    assert percents[-1] == 100.0
    assert not finished.no_space


def test_failure_of_the_real_one(source_vmcore: Path, tmp_path: Path) -> None:
    require("makedumpfile")
    (tmp_path / "out").touch()
    finished = makedumpfile.run([source_vmcore, tmp_path / "out"])
    assert finished.status == 1
    assert "\n" not in finished.reason
    assert "out" in finished.reason


def test_progress_and_messages(fake: Path) -> None:
    script(
        fake,
        r"printf '\rExcluding pages  : [100.0 %%] \\  '",
        r"printf '\rCopying data     : [  0.5 %%] |   eta: 1m3s'",
        r"printf '\rCopying data     : [ 45.3 %%] /   eta: 12s'",
        r"printf '\rCopying data     : [100.0 %%] -   eta: 0sIt is done.\n' >&2",
        r"printf 'Really.\n'",
        "exit 3",
    )
    percents: list[float] = []
    finished = makedumpfile.run([], copied=percents.append)
    assert percents[-1] == 100.0
    assert finished.messages == ("It is done.", "Really.")
    assert finished.reason == "makedumpfile failed with status 3: It is done."


def test_reason_without_a_message(fake: Path) -> None:
    script(fake, "kill -KILL $$")
    assert makedumpfile.run([]).reason == "makedumpfile failed with status -9: no message"


def test_no_space(fake: Path) -> None:
    script(fake, "echo 'Starting.'", 'echo "Can\'t write the dump file(x). No space left on device"', "exit 1")
    finished = makedumpfile.run([])
    assert finished.no_space
    assert finished.reason.endswith("Can't write the dump file(x). No space left on device")


def test_kernel_that_is_too_new_is_no_reason(fake: Path) -> None:
    lines = ["The kernel version is not supported.", "The makedumpfile operation may be incomplete.", "Not so."]
    script(fake, *(f"echo '{line}' >&2" for line in lines), "exit 1")
    assert makedumpfile.run([]).reason == "makedumpfile failed with status 1: Not so."


@pytest.mark.parametrize(
    ("processors", "machine", "option"),
    [
        (1, "x86_64", ()),
        (3, "x86_64", ()),
        (4, "x86_64", ("--num-threads=2",)),
        (64, "s390x", ("--num-threads=16",)),
        (64, "ppc64le", ()),
    ],
)
def test_threads(monkeypatch: pytest.MonkeyPatch, processors: int, machine: str, option: tuple[str, ...]) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(processors))
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "6.1", "#1", machine)))
    assert makedumpfile.threads_option() == option


def test_message_that_much_progress_follows(fake: Path) -> None:
    # Where the target is full, the next dump level has all of its progress behind that message.
    script(
        fake,
        r"printf '\rCopying data     : [ 45.3 %%] /   eta: 12s'",
        'echo "Can\'t write the dump file(x). No space left on device" >&2',
        "i=0",
        "while [ $i -lt 400 ]; do",
        r"printf '\rCopying data     : [ 12.%d %%] /   eta: 1m12s' $((i % 10))",
        "i=$((i + 1))",
        "done",
        "echo",
    )
    percents: list[float] = []
    finished = makedumpfile.run([], copied=percents.append)
    assert finished.no_space
    assert percents[-1] == 12.9


def test_endless_output_is_not_kept(fake: Path) -> None:
    script(fake, "head -c 3000000 /dev/zero | tr '\\0' 'x'", "echo", "echo end")
    messages = makedumpfile.run([]).messages
    assert messages[-1] == "end"
    assert sum(map(len, messages)) <= 8192


def test_stalled_one_is_killed(fake: Path) -> None:
    script(fake, "echo working", f"echo $$ > {fake.parent}/pid", "exec sleep 100")
    with pytest.raises(TimedOut, match=r"^makedumpfile made no progress for 0.5 s$"):
        makedumpfile.run([], stall=0.5)
    pid = int((fake.parent / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("output", [r"\rCopying data     : [ 45.3 %%] |   eta: 12s", r"Working.\n"])
def test_endless_output_without_progress_is_killed(fake: Path, output: str) -> None:
    script(fake, "while :; do", f"printf '{output}'", "sleep 0.05", "done")
    with pytest.raises(TimedOut, match=r"^makedumpfile made no progress for 0.5 s$"):
        makedumpfile.run([], stall=0.5)


def test_progress_before_pages_are_copied(fake: Path) -> None:
    script(fake, r"printf '\rExcluding unnecessary pages : [ 10.0 %%] |'")
    percents: list[float] = []
    makedumpfile.run([], copied=percents.append)
    assert percents == [0.0]


def test_interrupt_from_the_terminal_is_not_for_makedumpfile(fake: Path) -> None:
    script(fake, "echo $$; cut -d' ' -f5 /proc/$$/stat")
    process, group = makedumpfile.run([]).messages
    assert process == group


def test_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not makedumpfile.available()
    with pytest.raises(makedumpfile.MakedumpfileMissing, match="makedumpfile is not installed"):
        makedumpfile.run([])

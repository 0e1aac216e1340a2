# SPDX-License-Identifier: LGPL-2.1-or-later
"""A thread that is waited for while it makes calls that may never return, and no longer."""

import threading
import time
from queue import Empty

import pytest

from vmcoredd_daemon.threads.watched import Turn, WatchedThread

SHORT = 0.05


def test_only_calls_have_a_deadline() -> None:
    done = []

    def work(turn: Turn) -> None:
        done.append(turn.call(SHORT, len, "abc"))
        # As a disk that is slow.
        time.sleep(5 * SHORT)
        done.append(turn.call(SHORT, len, "ab"))

    thread = WatchedThread()
    assert thread.running()
    thread.run(Turn(), work)
    assert done == [3, 2]
    # It has time for more.
    assert thread.run(Turn(10), lambda turn: "a") == "a"
    thread.end(lambda: None)


def test_who_is_given_up_does_nothing_more() -> None:
    released, ended = threading.Event(), threading.Event()
    done = []

    def work(turn: Turn) -> None:
        turn.call(SHORT, released.wait)
        done.append("write")

    thread = WatchedThread()
    assert thread.running()
    with pytest.raises(Empty):
        thread.run(Turn(), work)
    thread.end(ended.set)
    released.set()
    assert ended.wait(10)
    assert done == []


def test_error_of_who_waits_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, done = threading.Event(), []

    def work(turn: Turn) -> None:
        monkeypatch.undo()
        # As a disk that is slow.
        time.sleep(5 * SHORT)
        done.append("write")
        turn.call(10, done.append, "read")
        done.append("write")

    def no_memory(turn: Turn, seconds: float) -> float:
        raise MemoryError

    thread = WatchedThread()
    assert thread.running()
    monkeypatch.setattr(Turn, "left", no_memory)
    with pytest.raises(MemoryError):
        thread.run(Turn(), work)
    # Not before it has written: the file may be closed then.
    assert done == ["write"]
    # Nor is what came of it taken for the next one's.
    assert thread.run(Turn(10), lambda turn: "abc") == "abc"
    thread.end(ended.set)
    assert ended.wait(10)
    assert done == ["write"]


def test_function_without_calls_has_one_deadline() -> None:
    released = threading.Event()
    thread = WatchedThread()
    assert thread.running()
    started = time.monotonic()
    with pytest.raises(Empty):
        thread.run(Turn(SHORT), lambda turn: released.wait())
    assert SHORT <= time.monotonic() - started < 0.4
    released.set()
    thread.end(lambda: None)


def test_errors_come_back() -> None:
    thread = WatchedThread()
    assert thread.running()
    with pytest.raises(ZeroDivisionError):
        thread.run(Turn(), lambda turn: turn.call(10, divmod, 1, 0))
    thread.end(lambda: None)

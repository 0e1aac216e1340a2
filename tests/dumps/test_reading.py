# SPDX-License-Identifier: LGPL-2.1-or-later
import os
import socket

import pytest

from vmcoredd_daemon.dumps.transfer import read_now


def test_read_now_does_not_wait() -> None:
    reading, writing = os.pipe()
    with pytest.raises(BlockingIOError):
        read_now(reading, 10)
    os.write(writing, b"12345678")
    assert read_now(reading, 5) == b"12345"
    os.close(writing)
    assert read_now(reading, 5) == b"678"
    assert read_now(reading, 5) == b""
    os.close(reading)


def test_read_now_from_a_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with pytest.raises(BlockingIOError):
            read_now(ours.fileno(), 10)
        theirs.send(b"data")
        theirs.close()
        assert read_now(ours.fileno(), 10) == b"data"
        assert read_now(ours.fileno(), 10) == b""
        assert os.get_blocking(ours.fileno())


def test_read_now_opens_nothing_that_was_not_given() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"not for you")
    with pytest.raises(OSError, match="Bad file descriptor"):
        read_now(writing, 10)
    os.close(reading)
    os.close(writing)

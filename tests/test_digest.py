# SPDX-License-Identifier: LGPL-2.1-or-later
import hashlib
import os

import pytest

from vmcoredd_daemon.digest import Digest

DATA = os.urandom(600_000)


@pytest.fixture
def file() -> int:
    fd = os.memfd_create("data")
    os.pwrite(fd, b"head" + DATA, 0)
    return fd


def of(size: int) -> str:
    return hashlib.sha256(DATA[:size]).hexdigest()


@pytest.mark.parametrize("steps", [[], [0], [1], [300_000], [1, 300_000, 600_000]])
def test_behind_whoever_writes(file: int, steps: list[int]) -> None:
    digest = Digest(file, 4)
    for step in steps:
        digest.follow(lambda step=step: step)  # type: ignore[misc]
        assert digest.position == step
    assert digest.finish(len(DATA)) == of(len(DATA))
    os.close(file)


def test_follows_what_is_written_meanwhile(file: int) -> None:
    reached = iter([10, 300_000, 300_001, 300_001])
    digest = Digest(file, 4)
    digest.follow(lambda: next(reached))
    assert (digest.position, list(reached)) == (300_001, [])
    os.close(file)


def test_fewer_than_were_followed(file: int) -> None:
    digest = Digest(file, 4)
    digest.follow(lambda: 500_000)
    assert digest.finish(400_000) == of(400_000)
    os.close(file)


def test_file_that_was_cut_off(file: int) -> None:
    os.ftruncate(file, 4 + 1000)
    digest = Digest(file, 4)
    digest.follow(lambda: 500_000)
    assert digest.finish(500_000) == of(1000)
    os.close(file)

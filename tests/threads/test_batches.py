# SPDX-License-Identifier: LGPL-2.1-or-later
import asyncio
import threading
from collections.abc import Sequence

import pytest

from vmcoredd_daemon.threads.batches import Batches, each


class Rig:
    """Work that waits until it may go on, and what it was done for."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()

    def work(self, items: Sequence[int]) -> list[int | Exception]:
        self.go.wait()
        self.batches.append(list(items))
        return [ValueError(str(item)) if item < 0 else item + 1 for item in items]


async def test_what_comes_together_is_done_together() -> None:
    rig = Rig()
    batches = Batches[int, int](rig.work)
    assert await asyncio.gather(*(batches.add(number) for number in range(5))) == [1, 2, 3, 4, 5]
    assert await batches.add(7) == 8
    assert rig.batches == [[0, 1, 2, 3, 4], [7]]


async def test_what_comes_meanwhile_is_the_next_batch() -> None:
    rig = Rig()
    batches = Batches[int, int](rig.work)
    rig.go.clear()
    first = batches.add(1)
    await asyncio.sleep(0.01)
    others = [batches.add(number) for number in (2, 3)]
    await asyncio.sleep(0.01)
    assert not first.done()
    rig.go.set()
    assert await asyncio.gather(first, *others) == [2, 3, 4]
    assert rig.batches == [[1], [2, 3]]


async def test_each_has_its_own_error() -> None:
    batches = Batches[int, int](Rig().work)
    found = await asyncio.gather(*(batches.add(number) for number in (1, -1, 2)), return_exceptions=True)
    assert (found[0], found[2]) == (2, 3)
    assert isinstance(found[1], ValueError)


async def test_error_of_all() -> None:
    def work(items: Sequence[int]) -> list[int | Exception]:
        raise MemoryError

    batches = Batches[int, int](work)
    for _ in range(2):
        found = await asyncio.gather(batches.add(1), batches.add(2), return_exceptions=True)
        assert [type(error) for error in found] == [MemoryError, MemoryError]


async def test_one_that_nobody_waits_for_is_done(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    batches = Batches[int, int](rig.work)
    waiting = asyncio.create_task(asyncio.wait_for(asyncio.shield(batches.add(1)), 0.01))
    rig.go.clear()
    with pytest.raises(TimeoutError):
        await waiting
    rig.go.set()
    assert await batches.add(2) == 3
    assert rig.batches == [[1], [2]]
    assert caplog.records == []


def test_each_item_alone() -> None:
    outcomes = each(lambda item: 1 // item)([1, 0, -1])
    assert (outcomes[0], outcomes[2]) == (1, -1)
    assert isinstance(outcomes[1], ZeroDivisionError)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs of pages that are all zeros, beside a look at each page by itself."""

import mmap

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vmcoredd_daemon.vmcore.copy.zero_pages import ZeroPages

PAGE = 64
"""The smallest that says something: so that blocks have many."""

PAGES = {
    "zeros": bytes(PAGE),
    "data": b"x" * PAGE,
    "begins with zeros": bytes(PAGE - 1) + b"x",
    "ends with zeros": b"x" + bytes(PAGE - 1),
}


def runs(block: bytes) -> list[tuple[int, int]]:
    """What is to be found, a page at a time."""
    found: list[tuple[int, int]] = []
    for start in range(0, len(block), PAGE):
        end = min(start + PAGE, len(block))
        if not any(block[start:end]):
            continue
        begin = found.pop()[0] if found and found[-1][1] == start else start
        found.append((begin, end))
    return found


@given(
    kinds=st.lists(st.tuples(st.sampled_from(list(PAGES)), st.integers(1, 40)), max_size=8),
    cut=st.integers(0, PAGE),
)
@example(kinds=[("zeros", 16)], cut=0)
@example(kinds=[("zeros", 17), ("begins with zeros", 1)], cut=1)
@example(kinds=[("data", 1), ("zeros", 15), ("data", 1)], cut=PAGE - 1)
def test_runs(kinds: list[tuple[str, int]], cut: int) -> None:
    block = b"".join(PAGES[kind] * count for kind, count in kinds)
    block = block[: max(len(block) - cut, 0)]
    memory = bytearray(block + b"behind it")
    assert list(ZeroPages(PAGE).data(memory, len(block))) == runs(block)


@pytest.mark.parametrize("size", [4096, 65536])
def test_pages_of_memory_that_is_mapped(size: int) -> None:
    with mmap.mmap(-1, 1 << 20) as memory:
        memory[3 * size - 1] = memory[7 * size] = 1
        found = list(ZeroPages(size).data(memory, len(memory)))
    assert found == [(2 * size, 3 * size), (7 * size, 8 * size)]

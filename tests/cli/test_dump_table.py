# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of vmcoredd list, in terminals of every width."""

import os
from pathlib import Path

import pytest

from tests.lib.service import Service
from tests.lib.vmcoredd import run, run_in_terminal


@pytest.mark.parametrize(
    ("columns", "shown", "failed_shown"),
    [
        (120, "NAME STATE SIZE COLLECTOR", "NAME STATE SIZE COLLECTOR"),
        (80, "NAME STATE SIZE COLLECTOR", "NAME STATE SIZE COLLECTOR"),
        (60, "NAME STATE SIZE COLLECTOR", "NAME STATE SIZE COLLECTOR"),
        (40, "NAME STATE SIZE", "NAME STATE SIZE"),
    ],
)
def test_it_fits_the_terminal(
    daemon: Service, tmp_path: Path, columns: int, shown: str, failed_shown: str
) -> None:
    there = ("--bus-address", daemon.address)
    data = tmp_path / "data"
    data.write_bytes(b"r" * 90_000)
    assert run("add", *there, "nic_0000:02:00.4", data).returncode == 0
    lines = run_in_terminal(columns, "list", *there)
    assert lines[0].split() == shown.split()
    assert max(map(len, lines)) <= columns
    reader, writer = os.pipe()
    assert run("add", *there, "--size", "1K", "--timeout", "0.1", "b" * 43, stdin=reader).returncode == 1
    os.close(reader)
    os.close(writer)
    lines = run_in_terminal(columns, "list", *there)
    assert lines[0].split() == failed_shown.split()
    assert max(map(len, lines)) <= columns
    # The reason is never cut, and does not repeat the name.
    reason = next(number for number, line in enumerate(lines) if line.startswith("  "))
    assert " ".join(map(str.strip, lines[reason:])) == "the collector did not finish within 0.1 s"

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The log of the dead kernel, by the real makedumpfile."""

from pathlib import Path

import pytest

from tests.lib.tools import require
from vmcoredd_daemon.writer.kernel_log import KERNEL_LOG, save_kernel_log


def test_saved(source_vmcore: Path, tmp_path: Path) -> None:
    require("makedumpfile")
    assert save_kernel_log(source_vmcore, tmp_path) == ""
    assert "Kernel panic - not syncing" in (tmp_path / KERNEL_LOG).read_text()
    assert [path.name for path in tmp_path.iterdir()] == [KERNEL_LOG]


def test_source_without_a_log(tmp_path: Path) -> None:
    require("makedumpfile")
    (tmp_path / "source").write_bytes(b"nothing")
    reason = save_kernel_log(tmp_path / "source", tmp_path)
    assert reason.startswith("makedumpfile failed with status 1: ")
    assert "\n" not in reason
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_without_makedumpfile(source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert save_kernel_log(source_vmcore, tmp_path) == "makedumpfile is not installed"
    assert not list(tmp_path.iterdir())

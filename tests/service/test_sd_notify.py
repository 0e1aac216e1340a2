# SPDX-License-Identifier: LGPL-2.1-or-later
"""A service manager that cannot be told; what it is told is in test_daemon.py and cli/test_progress.py."""

from pathlib import Path

import pytest

from tests.lib.service import Service


@pytest.mark.parametrize("socket", ["nobody-listens", "/" + "x" * 200])
def test_vmcore_is_written_anyway(
    bus_address: str, source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, socket: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / socket))
    with Service(bus_address, source_vmcore, tmp_path).start() as service:
        assert service.stop() == 0
    assert service.vmcore().exists()
    assert service.log().count("WARNING: Cannot notify the service manager") == 1

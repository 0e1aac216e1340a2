# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stop that comes while the service still begins."""

import re
import signal
from pathlib import Path

import pytest

from tests.lib.service import STOP_TIMEOUT, Service

COLLECTOR = """
[Collector]
Exec=grep SigBlk /proc/self/status
"""


@pytest.mark.parametrize("start", ["vmcoredd_daemon", "program"])
@pytest.mark.parametrize(
    "module", ["argparse", "asyncio", "vmcoredd_daemon.service.daemon", "vmcoredd_daemon.writer.elf"]
)
def test_stop_before_anything_is_imported(source_vmcore: Path, tmp_path: Path, start: str, module: str) -> None:
    interrupted = ("tests.lib.signal_on_import", "SIGTERM", start, module)
    service = Service(None, source_vmcore, tmp_path, dev_mode=False, module=interrupted)
    with service:
        service.start(wait=False)
        assert service.process.wait(STOP_TIMEOUT) == 0
        assert service.vmcore().exists()


def test_nothing_is_blocked_later(source_vmcore: Path, tmp_path: Path) -> None:
    with Service(None, source_vmcore, tmp_path) as service:
        (tmp_path / "collectors.d" / "mask.conf").write_text(COLLECTOR)
        service.start()
        status = Path(f"/proc/{service.process.pid}/status").read_text()
        assert service.stop() == 0
        blocked = re.findall(r"^SigBlk:\s*(\w+)$", status, re.MULTILINE)
        content = service.vmcore().read_bytes()
        blocked += re.findall(r"SigBlk:\s*(\w+)\n", content.decode("latin-1"))
    ours = 1 << signal.SIGTERM - 1 | 1 << signal.SIGINT - 1
    assert [int(mask, 16) & ours for mask in blocked] == [0, 0]

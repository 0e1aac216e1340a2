# SPDX-License-Identifier: LGPL-2.1-or-later
"""Errors of helpers that are written with sd-bus; tests/service/test_interface.py has calls and answers."""

import errno
import subprocess
from pathlib import Path

from tests.lib.tools import require
from vmcoredd_daemon.collectors.callback import errno_of

NAMES = """
#include <stdio.h>
#include <systemd/sd-bus.h>
int main(void) {
    for (int code = 1; code < 134; code++) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_error_set_errno(&error, code);
        printf("%d %s\\n", code, error.name);
    }
}
"""
SAME_NAME = {
    errno.EPERM: errno.EACCES,
    errno.ETIME: errno.ETIMEDOUT,
    errno.ENETRESET: errno.ECONNRESET,
    errno.ECONNABORTED: errno.ECONNRESET,
}


def test_errno_of_sd_bus(tmp_path: Path) -> None:
    require("gcc", "pkg-config")
    (tmp_path / "names.c").write_text(NAMES)
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libsystemd"], capture_output=True, check=True)
    command = ["gcc", "-o", tmp_path / "names", tmp_path / "names.c", *flags.stdout.decode().split()]
    subprocess.run(command, check=True)
    output = subprocess.run([tmp_path / "names"], capture_output=True, text=True, check=True).stdout
    names = {int(code): name for code, name in map(str.split, output.splitlines())}
    known = {code: name for code, name in names.items() if code in errno.errorcode}
    assert len(known) > 100
    assert {code: errno_of(name) for code, name in known.items()} == {
        code: SAME_NAME.get(code, code) for code in known
    }


def test_other_errors_are_input_output_errors() -> None:
    for name in ("com.example.Broken", "System.Error.", "System.Error.errorcode", "System.Error.__name__"):
        assert errno_of(name) == errno.EIO

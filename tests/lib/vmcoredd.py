# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program ``vmcoredd`` as a process."""

import os
import pty
import re
import subprocess
import sys
import termios
from typing import Any

from tests.lib.json_schema import check_json

# Warnings of what is not closed, but not asyncio's of what took long: on a loaded machine everything does.
VMCOREDD = [sys.executable, "-W", "default", "-m", "vmcoredd_daemon.cli"]


def run(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[Any]":
    """Run the program; stdin, stdout and stderr are text unless *options* say otherwise."""
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 60}
    if "input" not in options:
        given["stdin"] = subprocess.DEVNULL
    done = subprocess.run([*VMCOREDD, *map(str, arguments)], check=False, **(given | options))
    if isinstance(done.stderr, str):
        # Development mode complains where a busy machine is slow.
        done.stderr = re.sub(r"^Executing <.* took [\d.]+ seconds\n", "", done.stderr, flags=re.MULTILINE)
    if isinstance(done.stdout, str):
        check_json(arguments, done.stdout)
    return done


def run_in_terminal(
    columns: int, *arguments: object, rows: int = 200, status: int = 0, **environment: str
) -> list[str]:
    """Run the program with a terminal as its standard output; return the lines there, without colours."""
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (rows, columns))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "COLUMNS"))}
    with subprocess.Popen(
        [*VMCOREDD, *map(str, arguments)], stdout=terminal, env=kept | {"NO_COLOR": "1"} | environment
    ) as process:
        os.close(terminal)
        with open(master, "rb", closefd=True) as reader:
            shown = b""
            try:
                while block := reader.read1():
                    shown += block
            except OSError:
                # No process holds the other end any more.
                pass
    assert process.returncode == status
    return shown.decode().splitlines()

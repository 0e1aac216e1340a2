# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program ``vmcoredd`` as a process."""

import re
import subprocess
import sys
from typing import Any

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
    return done

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs that stand in for others: a shell runs them."""

from pathlib import Path


def shell_program(path: Path, script: str = "") -> Path:
    """Make the program *path*, and its directory, of a shell's commands, and return *path*."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pager, as in systemd (``src/shared/pager.c``): $SYSTEMD_PAGER, $PAGER, less, more; none if empty or cat."""

import os
import shlex
import signal
import subprocess
from contextlib import suppress

_DEFAULTS = ("less", "more")
_LESS = "FRSXMK"
"""Quit if it fits the screen, show colours, cut long lines, keep the screen, exit on Ctrl-C."""


def page(text: str) -> bool:
    """Show *text* in a pager; return False if there is none, and nothing was shown."""
    environment = {**os.environ, "LESS": os.environ.get("SYSTEMD_LESS", _LESS)}
    # A user who may run this as root must not get a root shell from it.
    if os.environ.get("SYSTEMD_PAGERSECURE") not in {"0", "no", "false"}:
        environment["LESSSECURE"] = "1"
    for command in _commands():
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
        except OSError:
            continue
        _feed(process, text)
        return True
    return False


def _commands() -> list[list[str]]:
    chosen = next((os.environ[name] for name in ("SYSTEMD_PAGER", "PAGER") if name in os.environ), None)
    if chosen is None:
        return [[name] for name in _DEFAULTS]
    try:
        words = shlex.split(chosen)
    except ValueError:
        return []
    return [] if words in ([], ["cat"]) else [words, *([name] for name in _DEFAULTS)]


def _feed(process: "subprocess.Popen[bytes]", text: str) -> None:
    # Ctrl-C is for the pager: it may stop a search.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with suppress(BrokenPipeError):
            process.communicate(text.encode("utf-8", "backslashreplace"))
        process.wait()
    finally:
        signal.signal(signal.SIGINT, before)

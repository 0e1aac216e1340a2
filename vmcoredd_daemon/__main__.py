# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program ``vmcoredd-daemon``."""

from .start import hold_stop_signals

if __name__ == "__main__":
    # Before what follows is imported, which takes its time.
    hold_stop_signals()

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import __version__
from .config import Configuration, load
from .errors import VmcoreddError
from .journal import logging_started, save_journal


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit status: 0 when a whole vmcore is on disk, 1 when not, 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    # Memory and registers are for root only, also where makedumpfile makes the file, and no unit sets UMask=.
    os.umask(0o077)
    try:
        configuration = _configuration(options)
        with logging_started():
            from .collectors.settings import directories
            from .daemon import Daemon
            from .threads import Loop

            daemon = Daemon(
                configuration,
                options.bus_address,
                use_bus=not options.no_bus,
                collectors=directories(options.config),
            )
            with asyncio.Runner(loop_factory=Loop) as runner:
                outcome = runner.run(daemon.run())
        if outcome.directory is not None:
            save_journal(outcome.directory)
        return 0 if outcome.whole else 1
    except VmcoreddError as error:
        print(f"vmcoredd-daemon: {error}", file=sys.stderr)
        return 1


def _configuration(options: argparse.Namespace) -> Configuration:
    configuration = load(options.config)
    given = {name: getattr(options, name) for name in ("source", "target", "spool")}
    return replace(configuration, **{name: value for name, value in given.items() if value is not None})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vmcoredd-daemon",
        description="Take device dumps over D-Bus, and write a vmcore with them on SIGTERM.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file")
    parser.add_argument("--source", type=Path, metavar="FILE", help="vmcore to read, usually /proc/vmcore")
    parser.add_argument(
        "--target", type=Path, metavar="DIR", help="directory that gets a directory for this crash"
    )
    parser.add_argument("--spool", type=Path, metavar="DIR", help="directory that keeps device dumps until then")
    parser.add_argument("--bus-address", metavar="ADDRESS", help="message bus, by default the system bus")
    parser.add_argument("--no-bus", action="store_true", help="do not use a message bus")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())

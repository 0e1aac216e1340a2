# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of vmcoredd core-collector share: options of kdump, messages, and makedumpfile itself."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lib.service import Service
from tests.lib.vmcoredd import run

OPTIONS = ("-l", "--message-level", "0", "-d", "31")
NOWHERE = "unix:path=/nowhere"
WITHOUT = "vmcoredd: no device dumps from the service: "
NO_BUS = f"{WITHOUT}cannot connect to the message bus: {NOWHERE}: No such file or directory\n"

Collect = Callable[..., "subprocess.CompletedProcess[Any]"]


def add_collector(config: Path, name: str, command: str, *lines: str) -> None:
    """Configure a collector that runs *command*."""
    text = "\n".join(["[Collector]", f"Exec={command}", *lines, ""])
    (config.parent / "collectors.d" / f"{name}.conf").write_text(text)


def verified(vmcore: Path) -> dict[str, bool | None]:
    """Return what ``vmcoredd inspect`` says of each checksum."""
    dumps = json.loads(run("inspect", "--json", vmcore).stdout)["device_dumps"]
    return {dump["name"]: dump["verified"] for dump in dumps}


def note_sizes(vmcore: Path) -> dict[str, int]:
    """Return the bytes of each note, its header included."""
    dumps = json.loads(run("inspect", "--json", vmcore).stdout)["device_dumps"]
    return {dump["name"]: dump["buffer_size"] + 64 for dump in dumps}


def add(daemon: Service, name: str, data: str, *options: str) -> None:
    """Add a device dump of at most 1 MiB to the service."""
    result = run("add", "--bus-address", daemon.address, name, "-", "--size", "1M", *options, input=data)
    assert (result.returncode, result.stderr) == (0, "")


def makedumpfile(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[Any]":
    """Run makedumpfile itself, to compare with."""
    given = {"capture_output": True, "text": True, "timeout": 60} | options
    return subprocess.run(["makedumpfile", *map(str, arguments)], check=False, **given)

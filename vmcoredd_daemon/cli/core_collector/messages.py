# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the process that asks for device dumps sends to the one that attaches them: one message for each."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ...errors import VmcoreddError
from ...manifest import Failure, ManifestDump, now_usec

TIMEOUT = 60.0
"""Seconds for all device dumps."""


MAX_TEXT = 1000
"""Characters of a name or of a reason that are kept."""


Send = Callable[..., None]
"""Sends one message: ``send(kind, content)``, of a device dump ``send("dump", content, fd)``."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose device dumps are wanted."""

    bus_address: str | None = None
    config: Path | None = None
    timeout: float = TIMEOUT
    """Seconds."""
    directory: Path | None = None
    """Where device dumps of collectors that are run here can lie; in memory, where None."""


def failure(name: str, collector: str, error: VmcoreddError) -> Failure:
    """Return what the manifest says of a device dump that there is not."""
    return Failure(name, collector, error.dbus_name, str(error), now_usec())


def send_dump(send: Send, record: ManifestDump, note_size: int, fd: int) -> None:
    """Send a device dump."""
    send("dump", {"record": asdict(record), "note_size": note_size}, fd)


def send_failure(send: Send, failed: Failure) -> None:
    """Send a device dump that there is not. What others say of it may be long, a message may not."""
    send("failure", asdict(replace(failed, name=failed.name[:MAX_TEXT], message=failed.message[:MAX_TEXT])))

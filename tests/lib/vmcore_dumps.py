# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the vmcores of the tests hold: known device dumps, and any manifest."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from tests.lib.paths import DATA_DIRECTORY
from vmcoredd_daemon.manifest import MANIFEST_NAME, Failure, Manifest, ManifestDump, ManifestSource, load
from vmcoredd_daemon.vmcore.formats import recognise
from vmcoredd_daemon.vmcore.image import file_image

GOLDEN = DATA_DIRECTORY / "proc-vmcore-prefix.bin"
DATA = bytes(range(256)) * 20
SHA256 = hashlib.sha256(DATA).hexdigest()
DUMP = ManifestDump("nic", len(DATA), 8192, SHA256, ":1.5/nic", "complete", 1, 2)
FAILURE = Failure("wifi\x1b", ":1.9/wifi", "org.vmcoredd1.Error.TimedOut", "late", 5)
MANIFEST = Manifest("vmcoredd 0", 3, (DUMP,), (FAILURE,)).dump()


def truncated_manifest(unreadable_pages: int = 3, missing_bytes: int = 8192) -> Manifest:
    source = ManifestSource("/proc/vmcore", unreadable_pages, missing_bytes, "the source blocks", "it did not fit")
    dump = replace(DUMP, state="truncated", error="late", collector="descriptor from :1.5")
    return Manifest("vmcoredd 0", 3, (dump,), (), 0, source)


def manifest(vmcore: Path) -> Manifest:
    """Return the manifest of a vmcore, which is its last device dump."""
    with vmcore.open("rb") as file:
        notes = list(recognise(file_image(file.fileno(), str(vmcore))).device_dumps())
        assert notes[-1].dump_name == MANIFEST_NAME.encode()
        return load(os.pread(file.fileno(), notes[-1].data_size, notes[-1].data_offset))

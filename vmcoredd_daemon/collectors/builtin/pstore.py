# SPDX-License-Identifier: LGPL-2.1-or-later
"""pstore: panic and console logs that earlier kernels left in persistent memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ...lookup import matching
from .archive import Archive, archive_size
from .files import Problems


class Pstore:
    """One device dump, ``pstore``: a tar archive of ``/sys/fs/pstore``; a file's time is that of the event.

    Backends are ERST, EFI variables, ramoops (Linux ``Documentation/ABI/testing/pstore``): some kB to a few MB. It
    survives a power cut, and nothing is removed here. The kernel that has just crashed is in it only with
    ``crash_kexec_post_notifiers``. If the root file system is mounted, systemd-pstore.service may have moved the
    files to ``/var/lib/systemd/pstore`` already.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._directory = root / "sys/fs/pstore"

    def device_dumps(self) -> Iterator[tuple[str, int]]:
        """Return the one, if there are files."""
        if files := self._files():
            yield "pstore", archive_size(file.stat().st_size for file in files)

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        """Write all files; raise OSError at the end if one could not be read."""
        archive = Archive(data)
        with Problems() as problems:
            for file in self._files():
                with problems.kept():
                    archive.add_file(file.name, file)
            archive.finish()

    def _files(self) -> list[Path]:
        return [file for file in matching(self._directory, "*") if file.is_file()]

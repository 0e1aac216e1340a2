# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copy between files, by the kernel if it can: XFS and btrfs then share the blocks and copy nothing."""

import errno
import os

from ...files import BLOCK_SIZE, pwrite
from ...progress import Progress

_LARGEST = 1 << 26
"""Bytes to ask of one copy_file_range(): with more, progress would stand still."""
_CANNOT = {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.ETXTBSY, errno.EPERM}


def copy_range(source: int, fd: int, source_offset: int, offset: int, size: int, progress: Progress) -> None:
    """Copy *size* bytes between two files, or two ranges of one that do not overlap; fewer if *source* ends.

    copy_file_range() tries FICLONERANGE first (``vfs_copy_file_range()`` in Linux ``fs/read_write.c``). Raises
    OSError.
    """
    try:
        while size:
            copied = os.copy_file_range(source, fd, min(size, _LARGEST), source_offset, offset)
            if not copied:
                break
            progress.advance(copied)
            source_offset, offset, size = source_offset + copied, offset + copied, size - copied
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    while size and (data := os.pread(source, min(size, BLOCK_SIZE), source_offset)):
        pwrite(fd, data, offset)
        progress.advance(len(data))
        source_offset, offset, size = source_offset + len(data), offset + len(data), size - len(data)


def copy_sparse(source: int, fd: int, source_offset: int, offset: int, size: int, progress: Progress) -> None:
    """Do as :func:`copy_range`, but keep holes; the file *fd* must have only zeros there. Raises OSError.

    *progress* counts holes, too, except that at the end of the file.
    """
    end, shift = source_offset + size, offset - source_offset
    position = source_offset
    while position < end:
        try:
            start, position = position, os.lseek(source, position, os.SEEK_DATA)
            progress.advance(min(position, end) - start)
            hole = os.lseek(source, position, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                # There is only a hole up to the end of the file.
                return
            if error.errno != errno.EINVAL:
                raise
            hole = end
        hole = min(hole, end)
        if position < hole:
            copy_range(source, fd, position, position + shift, hole - position, progress)
        position = hole if hole > position else end

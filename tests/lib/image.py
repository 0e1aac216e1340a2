# SPDX-License-Identifier: LGPL-2.1-or-later
"""A vmcore in memory."""

from vmcoredd_daemon.vmcore.image import Image


def image_of(data: bytes) -> Image:
    """Return *data* as an image whose messages begin with FILE."""
    return Image(lambda size, offset: data[offset : offset + size], len(data), "FILE")

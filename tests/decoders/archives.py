# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tar archives as the built-in collectors write them."""

from __future__ import annotations

import io
from collections.abc import Mapping

from vmcoredd_daemon.collectors.builtin.archive import Archive


def archive(members: Mapping[str, bytes], mtime: int = 0) -> bytes:
    data = io.BytesIO()
    writer = Archive(data)
    for name, content in members.items():
        writer.add(name, len(content), [content], mtime)
    writer.finish()
    return data.getvalue()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The objects of ``--json`` that several commands have; docs/vmcoredd.schema.json describes all."""

from typing import TYPE_CHECKING, Any

from ..manifest import Failure, ManifestDump, State
from ..note import VMCOREDD_HEADER_SIZE

if TYPE_CHECKING:
    # It needs a bus, which a reader of vmcores does not have.
    from .client import DumpInfo

VERSION = 1
"""Of the JSON of all commands. Members may be added without a new version."""


def dump_object(dump: "DumpInfo | ManifestDump", note_size: int) -> dict[str, Any]:
    """Return a device dump, whose note has *note_size* bytes; what is not known yet is None."""
    has_data = dump.state in {State.COMPLETE, State.TRUNCATED}
    return {
        "name": dump.name,
        "state": dump.state,
        "size": dump.size if has_data else None,
        "buffer_size": note_size - VMCOREDD_HEADER_SIZE if note_size else None,
        "limit": dump.limit,
        "sha256": dump.sha256 or None,
        "kind": dump.kind or None,
        "collector": dump.collector,
        "started_usec": dump.started_usec,
        "finished_usec": dump.finished_usec or None,
        "error": dump.error or None,
    }


def service_object(dump: "DumpInfo") -> dict[str, Any]:
    """Return a device dump of the service."""
    return {**dump_object(dump, dump.note_size), "object": dump.path}


def failure_object(failure: Failure) -> dict[str, Any]:
    """Return a device dump that failed."""
    return {
        "name": failure.name,
        "collector": failure.collector,
        "error": failure.message,
        "error_name": failure.error,
        "finished_usec": failure.time_usec,
    }

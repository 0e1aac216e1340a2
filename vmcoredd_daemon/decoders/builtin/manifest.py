# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manifest, ``vmcoredd_manifest``: its JSON, indented."""

import json
from typing import BinaryIO

from ...errors import InvalidDump
from ...manifest import MAX_SIZE
from ...text import counted
from ..decoded import Decoded, Section, Text


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Decode the manifest. Raises InvalidDump if it is no JSON: another version's is shown, too."""
    text = data.read(MAX_SIZE).rstrip(b"\0")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidDump(f"not JSON: {error}") from error
    facts: tuple[str, ...] = ()
    if isinstance(content, dict):
        counts = {"device dump": content.get("device_dumps"), "failure": content.get("failures")}
        facts = tuple(counted(len(each), name) for name, each in counts.items() if isinstance(each, list))
    indented = Text("", json.dumps(content, indent=2) + "\n")
    return Decoded("manifest", facts=facts, sections=(Section("", (indented,)),))

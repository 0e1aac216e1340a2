# SPDX-License-Identifier: LGPL-2.1-or-later
"""The filter on flattened files with flipped, lost and hostile bytes.

Only errors of the family may be raised; what cannot be extended passes unchanged.
"""

import io
import os
import random
import sys

from tests.fuzz.flattened import elf, pieces_of, spoil
from tests.lib.flattened_writer import flatten
from vmcoredd_daemon.errors import VmcoreddError
from vmcoredd_daemon.vmcore.attach.dump_files import FileAdditions, OpenFile
from vmcoredd_daemon.vmcore.attach.stream import attach_stream

DATA = b"device" * 99


def main(count: int, seed: int = 0) -> int:
    """Try *count* files; return how many were refused."""
    rng = random.Random(seed)
    whole, refused = elf(), 0
    fd = os.memfd_create("data")
    os.write(fd, DATA)
    more = FileAdditions((OpenFile("new", "FILE", fd, len(DATA)),))
    for _ in range(count):
        data = spoil(flatten(pieces_of(whole, rng)), rng)
        sink = io.BytesIO()
        try:
            attach_stream(io.BytesIO(data), sink, more, "FILE")
            assert DATA in sink.getvalue()
            assert b"vmcoredd_manifest" in sink.getvalue()
        except VmcoreddError:
            refused += 1
            if DATA not in sink.getvalue():
                assert sink.getvalue() == data
    os.close(fd)
    return refused


if __name__ == "__main__":
    print(f"{main(int(sys.argv[1]))} of {sys.argv[1]} refused")

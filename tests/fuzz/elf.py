# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mutate ELF vmcores: nothing but InvalidVmcore may come of reading, planning or inspecting them.

``python -m tests.fuzz.elf ROUNDS [SEED]``
"""

import hashlib
import itertools
import random
import tempfile
from pathlib import Path

from tests.fuzz.headers import main, mutate, refused
from tests.lib.elf_writer import NT_PRSTATUS, PAGE, Core, Load, device_dump, note
from tests.lib.image import image_of
from vmcoredd_daemon.errors import InvalidVmcore, QuotaExceeded
from vmcoredd_daemon.manifest import MANIFEST_NAME, Manifest, ManifestDump
from vmcoredd_daemon.vmcore.elf import machine_name, read_headers, walk
from vmcoredd_daemon.vmcore.inspect.inspect import copy_data, inspect
from vmcoredd_daemon.vmcore.layout import Source, plan

KINDS = [(32, "little", 3), (32, "big", 20), (64, "little", 62), (64, "big", 22)]
INTERESTING = [
    *(0, 1, 4, 7, 0x20, 0x38, 0x40, 0x7F, 0x80, 0xFF, 0x700, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF),
    *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF),
    *(PAGE - 1, PAGE, PAGE + 1, 3 * PAGE),
]
RANGES = [(0, 64), (64, 344), (PAGE, PAGE + 84), (2 * PAGE, 2 * PAGE + 400), (3 * PAGE, 3 * PAGE + 80)]
"""Headers of the file; of the first device dump; the manifest; the other notes."""
MAX_NOTES = 10_000
DATA = b"registers"


def originals() -> list[bytes]:
    """Return valid files of each class and byte order with a device dump and a manifest, in one PT_NOTE or two."""
    digest = hashlib.sha256(DATA).hexdigest()
    dump = ManifestDump("nic", len(DATA), len(DATA), digest, "test", "complete", 1, 2)
    manifest = Manifest("fuzz", 1, (dump,), ()).dump()
    files = []
    with tempfile.TemporaryDirectory() as directory:
        for elfclass, byteorder, e_machine in KINDS:
            dumps = device_dump(b"nic", DATA, byteorder) + device_dump(MANIFEST_NAME.encode(), manifest, byteorder)
            others = note(NT_PRSTATUS, b"regs", byteorder=byteorder)
            others += note(0, b"PAGESIZE=4096\n", b"VMCOREINFO\0", byteorder)
            loads = (Load(0x1000, b"memory" * 20), Load(0x5123, b"more"), Load(0x9000, b"", memsz=PAGE))
            for notes, place in ((dumps + others, 0), ((dumps, others), 1)):
                core = Core(notes, loads, elfclass, byteorder, e_machine=e_machine, notes_at=place)
                files.append(core.write(Path(directory, "vmcore")).read_bytes())
    return files


def run(rounds: int, seed: int) -> int:
    """Try *rounds* mutations; return how many were refused. Whatever is raised but InvalidVmcore is a fault."""
    chance, valid = random.Random(seed), originals()
    return sum(refused(_read, mutate(chance.choice(valid), chance, RANGES, INTERESTING)) for _ in range(rounds))


def _read(data: bytes) -> None:
    _plan(data)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        _inspect(file.fileno())


def _plan(data: bytes) -> None:
    image = image_of(data)
    headers = read_headers(image)
    assert machine_name(headers.e_machine, headers.elfclass, headers.byteorder)
    assert len(headers.pack()) == headers.size
    notes = list(itertools.islice(walk(image, headers), MAX_NOTES))
    assert len(notes) < MAX_NOTES
    try:
        layout = plan(Source(-1, len(data)), headers, notes, (), PAGE)
    except (InvalidVmcore, QuotaExceeded):
        return
    assert len(layout.headers.pack()) <= layout.headers.notes[0].p_offset
    copied = sorted((extent.offset, extent.size) for extent in layout.notes + layout.loads)
    for (offset, size), (behind, _) in itertools.pairwise(copied):
        assert offset + size <= behind
    assert not copied or sum(copied[-1]) <= layout.size


def _inspect(fd: int) -> None:
    found = inspect(fd, "FILE")
    assert all("\n" not in problem and len(problem) < 500 for problem in found.problems)
    for dump in found.device_dumps:
        copied: list[bytes] = []
        copy_data(found.image, dump, copied.append)
        assert len(b"".join(copied)) == dump.data_size


if __name__ == "__main__":
    main(run)

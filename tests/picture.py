# SPDX-License-Identifier: LGPL-2.1-or-later
"""`make picture`: docs/report.png, the page that vmcoredd report makes of a vmcore, as Chromium shows it.

`python -m tests.picture [DIRECTORY]` keeps the vmcore and the page in DIRECTORY. The device dumps are those of the
tests of their decoders, and no machine died of them.
"""

import hashlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.decoders.builtin import test_devlink, test_dmi, test_ethtool, test_pci
from tests.decoders.builtin import test_nvme as nvme
from tests.lib.browser import browser
from tests.lib.elf_writer import Core, Load, device_dump, note
from tests.lib.paths import ROOT
from tests.lib.vmcoredd import run
from vmcoredd_daemon.manifest import (
    MANIFEST_NAME,
    Failure,
    IdleCollector,
    Manifest,
    ManifestDump,
    ManifestMachine,
)

PICTURE = ROOT / "docs/report.png"
WIDTH, HEIGHT, SCALE = 1120, 1372, 1.25

DIED = 1795464321
"""Seconds since the epoch."""

LOG = """\
[84210.418035] nvme nvme0: I/O 26 (I/O Cmd) QID 3 timeout, aborting
[84210.902171] nvme0n1: Read(0x2) @ LBA 88812345, 8 blocks, Unrecovered Read Error (sct 0x2 / sc 0x81) DNR
[84210.902190] critical medium error, dev nvme0n1, sector 88812345 op 0x0:(READ) flags 0x80700 phys_seg 1
[84210.933410] EXT4-fs error (device nvme0n1p2): ext4_wait_block_bitmap:582: Cannot read block bitmap
[84210.933428] Kernel panic - not syncing: EXT4-fs (device nvme0n1p2): panic forced after error
[84210.933440] CPU: 11 PID: 2140 Comm: postgres Kdump: loaded Not tainted 6.1.0-56-amd64 #1  Debian 6.1.192-2
[84210.933446] Hardware name: Dell Inc. PowerEdge R750/0JM3W2, BIOS 2.14.2 09/13/2024
[84210.933450] Call Trace:
[84210.933460]  dump_stack_lvl+0x44/0x5c
[84210.933468]  panic+0x118/0x2f4
[84210.933476]  ext4_handle_error.cold+0x5/0x28 [ext4]
"""


@dataclass(frozen=True, slots=True)
class Made:
    """A device dump, and when its collector ran: in milliseconds after the first one."""

    name: str
    data: bytes
    started: int
    finished: int
    state: str = "complete"
    error: str = ""

    @property
    def described(self) -> ManifestDump:
        """Its manifest entry."""
        return ManifestDump(
            name=self.name,
            size=len(self.data),
            limit=1 << 20,
            sha256=hashlib.sha256(self.data).hexdigest(),
            collector=self.name.partition("_")[0],
            state=self.state,
            started_usec=usec(self.started),
            finished_usec=usec(self.finished),
            error=self.error,
        )


def usec(milliseconds: int) -> int:
    """Return the time so many milliseconds after the capture kernel began to collect."""
    return (DIED + 7) * 10**6 + milliseconds * 1000


def device_dumps() -> tuple[Made, ...]:
    """Return what the machine had."""
    # Hot and worn, with two media errors.
    worn = nvme.smart({0: (0b10, 1), 1: (356, 2), 3: (12, 1), 5: (97, 1), 160: (2, 16)})
    failing = nvme.archive(nvme.HEALTHY_MEMBERS | {"smart_log": worn, "error_log": nvme.ERRORS})
    healthy = nvme.archive(nvme.HEALTHY_MEMBERS)
    port = test_pci.link(test_pci.function("0000:00:01.0", test_pci.ROOT_PORT, 0x0604, 1), 0x2000 | 2 << 4 | 3)
    card = test_pci.link(test_pci.function("0000:01:00.0", test_pci.ENDPOINT), 2 << 4 | 3)
    return (
        Made("pci", test_pci.dump(port, card), 0, 210),
        Made("nvme_0000:03:00.0", failing, 30, 2840),
        Made("nvme_0000:04:00.0", healthy, 30, 640),
        Made("dmi", test_dmi.samples()[0][1], 40, 60),
        Made(
            "devlink_0000:02:00.0", test_devlink.samples()[0][1], 110, 3900, "truncated", "it had more than 1.0M"
        ),
        Made("igb_0000:05:00.0", test_ethtool.samples()[1][1], 120, 330),
    )


def write_vmcore(directory: Path) -> Path:
    """Write the vmcore, and its kernel's log beside it."""
    dumps = device_dumps()
    manifest = Manifest(
        producer="vmcoredd 0.2.0",
        written_usec=usec(9200),
        device_dumps=tuple(dump.described for dump in dumps),
        failures=(
            Failure(
                "ipmi0", "ipmi", "org.vmcoredd1.Error.TimedOut", "/dev/ipmi0: no answer within 5 s", usec(5050)
            ),
        ),
        machine=ManifestMachine(host="db-07", serial="CZ3012ABCD"),
        idle_collectors=(IdleCollector("pmt", "no such device"),),
    )
    vmcoreinfo = f"OSRELEASE=6.1.0-56-amd64\nPAGESIZE=4096\nCRASHTIME={DIED}\n".encode()
    notes = [
        *(device_dump(dump.name.encode(), dump.data) for dump in dumps),
        device_dump(MANIFEST_NAME.encode(), manifest.dump()),
        note(0, vmcoreinfo, b"VMCOREINFO\0"),
    ]
    (directory / "vmcore-dmesg.txt").write_text(LOG)
    return Core(b"".join(notes), (Load(0x1000, bytes(1 << 20), memsz=64 << 30),)).write(directory / "vmcore")


def main(arguments: list[str]) -> int:
    """Make the picture; return an exit status."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(arguments[0] if arguments else temporary)
        directory.mkdir(parents=True, exist_ok=True)
        page = directory / "report.html"
        made = run("report", write_vmcore(directory), "-o", page)
        print(made.stderr, end="", file=sys.stderr)
        if made.returncode != 0:
            return made.returncode
        with browser(Path(temporary)) as chromium:
            chromium.resize(WIDTH, HEIGHT, SCALE)
            chromium.open(page)
            PICTURE.write_bytes(chromium.screenshot())
    print(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

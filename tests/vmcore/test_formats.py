# SPDX-License-Identifier: LGPL-2.1-or-later


import pytest

from tests.lib.paths import DATA_DIRECTORY
from vmcoredd_daemon.errors import InvalidVmcore
from vmcoredd_daemon.vmcore.formats import recognise
from vmcoredd_daemon.vmcore.image import Image, file_image

DATA = DATA_DIRECTORY


def test_elf() -> None:
    with (DATA / "proc-vmcore-prefix.bin").open("rb") as file:
        vmcore = recognise(file_image(file.fileno(), "golden"))
        assert (vmcore.format, vmcore.elfclass, vmcore.byteorder, vmcore.machine) == (
            "elf",
            64,
            "little",
            "x86_64",
        )
        names = [dump.dump_name for dump in vmcore.device_dumps()]
        assert len(list(vmcore.notes())) > len(names) > 0


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "the file is empty"), (b"neither", "is neither ELF, kdump-compressed nor flattened")],
)
def test_other_files(data: bytes, message: str) -> None:
    image = Image(lambda size, offset: data[offset : offset + size], len(data), "FILE")
    with pytest.raises(InvalidVmcore, match=f"^FILE: {message}$"):
        recognise(image)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the manifest says of the machine, by files as the kernel has them."""

from pathlib import Path

from tests.collectors.builtin.collecting import tree
from vmcoredd_daemon.manifest import ManifestMachine
from vmcoredd_daemon.vmcore.formats import recognise
from vmcoredd_daemon.vmcore.image import file_image
from vmcoredd_daemon.writer.machine import this_machine

DMI = "sys/class/dmi/id"


def test_machine_by_smbios_and_the_vmcore(source_vmcore: Path, tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            f"{DMI}/sys_vendor": b"Acme\n",
            f"{DMI}/product_name": b"Server 1  \n",
            f"{DMI}/product_serial": b"47\x1b[31m11\n",
            f"{DMI}/bios_version": b"2.1\n",
            f"{DMI}/bios_date": b"11/30/2026\n",
            "etc/machine-id": b"0123456789abcdef0123456789abcdef\n",
            "proc/sys/kernel/random/boot_id": b"5d1c0a8e-0000-4000-8000-000000000001\n",
        },
    )
    with source_vmcore.open("rb") as file:
        vmcore = recognise(file_image(file.fileno(), str(source_vmcore)))
        machine = this_machine(vmcore, tmp_path)
    assert machine.kernel_release.startswith("6.1.0-")
    # The kernel of the sample had no host name.
    assert machine.host == ""
    assert (machine.vendor, machine.product, machine.bios) == ("Acme", "Server 1", "2.1 11/30/2026")
    assert machine.serial == r"47\x1b[31m11"
    assert machine.machine_id == "0123456789abcdef0123456789abcdef"
    assert machine.boot_id == "5d1c0a8e-0000-4000-8000-000000000001"


def test_machine_of_which_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / DMI).mkdir(parents=True)
    (tmp_path / DMI / "sys_vendor").mkdir()
    (tmp_path / DMI / "product_name").touch()
    assert this_machine(None, tmp_path) == ManifestMachine()


def test_long_texts_are_cut(tmp_path: Path) -> None:
    tree(tmp_path, {f"{DMI}/sys_vendor": b"x" * 100_000})
    assert len(this_machine(None, tmp_path).vendor) <= 200

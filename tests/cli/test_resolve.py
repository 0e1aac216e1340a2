# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd resolve at the next boot: real daemons, makedumpfile and core-collector leave what it finds."""

import fcntl
import gzip
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lib.attaching import contents
from tests.lib.core_collector import OPTIONS, Collect, add, add_collector, makedumpfile
from tests.lib.resources import tmpfs
from tests.lib.service import Service
from tests.lib.tools import require
from tests.lib.vmcoredd import VMCOREDD, run
from vmcoredd_daemon.dumps.spool_directory import BOOT_ID, VMCOREINFO

pytestmark = [
    pytest.mark.usefixtures("tools"),
    pytest.mark.skipif(os.geteuid() != 0, reason="another boot needs root: its ID is mounted over this one's"),
]

DUMPS = {"nic": b"registers", "hba": b"log"}
NEXT_BOOT = "0f3a4b52-7c1d-4f7e-9b5a-2d6c1e8f9a01"

Resolve = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def service(bus_address: str, source_vmcore: Path, tmp_path: Path) -> Iterator[Service]:
    """A service beside kdump: it leaves its device dumps to the program that writes the vmcore."""
    with Service(bus_address, source_vmcore, tmp_path, "Format=none") as service:
        service.start()
        for name, data in DUMPS.items():
            add(service, name, data.decode())
        yield service


@pytest.fixture
def resolve(tmp_path: Path) -> Resolve:
    """Run the command at the next boot of the machine; *mounts* is a shell script that runs before."""
    require("unshare")
    (tmp_path / "boot_id").write_text(f"{NEXT_BOOT}\n")
    config = tmp_path / "resolve.conf"
    config.write_text(f"[Vmcoredd]\nTarget={tmp_path}/target\n")

    def resolve(*arguments: object, mounts: str = "") -> "subprocess.CompletedProcess[str]":
        script = f'mount --bind "$0" {BOOT_ID}\n{mounts}\nexec "$@"'
        command = [*VMCOREDD, "resolve", "--config", config, *arguments]
        return subprocess.run(
            ["unshare", "--mount", "sh", "-euc", script, tmp_path / "boot_id", *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
        )

    return resolve


def spool(service: Service) -> Path:
    """Return the directory of this boot, whose device dumps the next one finds."""
    (directory,) = (service.target / ".vmcoredd-spool").iterdir()
    return directory


def saved(service: Service, *options: str, name: str = "2026/vmcore") -> Path:
    """Return the vmcore that makedumpfile makes of the same crash, without device dumps."""
    vmcore = service.target / name
    vmcore.parent.mkdir(exist_ok=True)
    compressed = () if "-E" in options else ("-l",)
    arguments = (*options, *compressed, *OPTIONS[1:], service.source)
    if "-F" not in options:
        assert makedumpfile(*arguments, vmcore).returncode == 0
        return vmcore
    with vmcore.open("wb") as file:
        subprocess.run(["makedumpfile", *map(str, arguments)], stdout=file, check=True)
    return vmcore


def streamed(collect: Collect, service: Service, name: str = "2026/dump.2026") -> Path:
    """Return the vmcore that core-collector writes as kdump-tools runs it."""
    vmcore = service.target / name
    vmcore.parent.mkdir(exist_ok=True)
    with vmcore.open("wb") as file:
        done = collect("-F", *OPTIONS, service.source, bus=service.address, stdout=file, text=False)
    assert (done.returncode, b"device dumps attached" in done.stderr) == (0, True)
    return vmcore


def stayed(done: "subprocess.CompletedProcess[str]", service: Service, message: str) -> None:
    """Nothing was removed, and one line says why, with *message*, a regular expression."""
    assert done.returncode == 1
    (line,) = [each for each in done.stderr.splitlines() if " stay in the spool: " in each]
    assert line.split(": ", 2)[1] == "WARNING"
    assert re.search(message, line), line
    assert sorted(DUMPS) == sorted(names_in(service))


def names_in(service: Service) -> list[str]:
    """Return the names of the device dumps in the spool."""
    return [json.loads(file.read_bytes().rpartition(b"\0")[2])["name"] for file in spool(service).glob("*.note")]


def gone(done: "subprocess.CompletedProcess[str]", service: Service, message: str) -> None:
    """All was removed, and one line says so, with *message*."""
    assert done.stderr.count("\n") == 1
    assert f": INFO: {service.target}/.vmcoredd-spool/" in done.stderr
    assert message in done.stderr
    assert done.returncode == 0
    assert list((service.target / ".vmcoredd-spool").iterdir()) == []


def test_stream_that_has_all(service: Service, collect: Collect, resolve: Resolve) -> None:
    assert service.stop() == 0
    vmcore = streamed(collect, service)
    before = vmcore.read_bytes()
    gone(resolve(), service, f": 2 device dumps are in {vmcore}, and left the spool")
    assert vmcore.read_bytes() == before
    again = resolve()
    assert (again.returncode, again.stderr) == (0, "")


def test_service_is_killed_before_it_hands_over(service: Service, collect: Collect, resolve: Resolve) -> None:
    """What the vmcore has is known without a record of the crash."""
    service.kill()
    vmcore = streamed(collect, service)
    assert not (spool(service) / VMCOREINFO).exists()
    gone(resolve(), service, f": 2 device dumps are in {vmcore}, and left the spool")


def test_service_that_is_started_again_says_the_same(service: Service, collect: Collect, resolve: Resolve) -> None:
    service.kill()
    service.start()
    vmcore = streamed(collect, service)
    service.kill()
    gone(resolve(), service, f": 2 device dumps are in {vmcore}, and left the spool")


@pytest.mark.parametrize("options", [(), ("-E",), ("-F",)], ids=["kdump", "elf", "flattened"])
def test_vmcore_that_has_none_gets_them(service: Service, resolve: Resolve, options: tuple[str, ...]) -> None:
    """core-collector did not work: makedumpfile alone has written the vmcore."""
    add_collector(service.configuration, "fails", "false")
    assert run("run", "--bus-address", service.address, "fails").returncode == 1
    assert service.stop() == 0
    vmcore = saved(service, *options)
    gone(resolve(), service, f": 2 device dumps are in {vmcore}, 2 of them attached now, and left the spool")
    assert contents(vmcore) == DUMPS
    manifest = json.loads(run("extract", vmcore, "vmcoredd_manifest").stdout.rstrip("\0"))
    assert manifest["machine"]["boot_id"] == BOOT_ID.read_text().strip()
    assert [failure["name"] for failure in manifest["failures"]] == ["fails"]
    again = resolve()
    assert (again.returncode, again.stderr) == (0, "")


def test_service_that_could_not_write_its_vmcore(
    bus_address: str, source_vmcore: Path, resolve: Resolve, tmp_path: Path
) -> None:
    """vmcoredd-plain.service, or kdump, has made a copy."""
    disk, config = tmp_path / "disk", tmp_path / "with-spool.conf"
    config.write_text(f"[Vmcoredd]\nTarget={tmp_path}/target\nSpool={disk}\n")
    with tmpfs(tmp_path / "target", 4 << 20):
        with Service(bus_address, source_vmcore, tmp_path, f"Spool={disk}") as service:
            service.start()
            add(service, "nic", "registers")
            assert service.stop() == 1
        plain = disk / "plain-2026/vmcore"
        plain.parent.mkdir()
        shutil.copy(source_vmcore, plain)
        done = resolve("--config", config, disk, service.target)
    assert f"1 device dump is in {plain}, 1 of them attached now, and left the spool" in done.stderr
    assert contents(plain) == {"nic": b"registers"}


def test_vmcore_that_has_some_gets_the_others(service: Service, collect: Collect, resolve: Resolve) -> None:
    vmcore = streamed(collect, service)
    add(service, "late", "after the dump")
    assert service.stop() == 0
    gone(resolve(), service, f": 3 device dumps are in {vmcore}, 1 of them attached now, and left the spool")
    assert contents(vmcore) == DUMPS | {"late": b"after the dump"}


def test_truncated_device_dumps(service: Service, collect: Collect, resolve: Resolve) -> None:
    """Whether the service gives them, or its spool: the manifest says the same of them."""
    data = "more than its caller said"
    for name in ("early", "late"):
        added = run("add", "--bus-address", service.address, name, "-", "--size", "9", "--kind", "x/1", input=data)
        assert added.returncode == 0
    vmcore = streamed(collect, service)
    assert service.stop() == 0
    assert json.loads(run("inspect", "--json", vmcore).stdout)["device_dumps"][2]["state"] == "truncated"
    gone(resolve(), service, f": 4 device dumps are in {vmcore}, and left the spool")


def test_power_cut_between_attaching_and_removing(service: Service, resolve: Resolve) -> None:
    assert service.stop() == 0
    vmcore, directory = saved(service), spool(service)
    # What the cut prevents: the spool cannot be written to.
    cut = f"mount --bind {directory} {directory}; mount -o remount,bind,ro {directory}"
    stayed(resolve(mounts=cut), service, "cannot remove device dumps: Read-only file system")
    assert contents(vmcore) == DUMPS
    before = vmcore.read_bytes()
    gone(resolve(), service, f": 2 device dumps are in {vmcore}, and left the spool")
    assert vmcore.read_bytes() == before


def test_vmcore_of_no_known_crash(service: Service, resolve: Resolve) -> None:
    service.kill()
    before = saved(service).read_bytes()
    by_hand = re.escape(f"if you have it: vmcoredd attach VMCORE {spool(service)}/*.note")
    stayed(resolve(), service, f"there is no complete vmcore of which that is known in .*; {by_hand}$")
    assert (service.target / "2026/vmcore").read_bytes() == before
    # A person knows it.
    assert run("attach", service.target / "2026/vmcore", *spool(service).glob("*.note")).returncode == 0
    gone(resolve(), service, "2 device dumps are in ")


def test_no_vmcore_at_all(service: Service, resolve: Resolve) -> None:
    assert service.stop() == 0
    stayed(resolve(), service, r"no complete vmcore of the crash of 2026-11-23 20:05:21 UTC in ")


def test_two_vmcores_of_the_crash(service: Service, resolve: Resolve) -> None:
    assert service.stop() == 0
    vmcores = [saved(service), saved(service, "-E", name="second/vmcore")]
    before = [vmcore.read_bytes() for vmcore in vmcores]
    stayed(resolve(), service, f"several vmcores are of that crash: {vmcores[0]}, {vmcores[1]}; choose one: ")
    assert [vmcore.read_bytes() for vmcore in vmcores] == before


@pytest.mark.parametrize("how", ["named", "flagged", "cut off"])
def test_incomplete_vmcore(service: Service, resolve: Resolve, how: str) -> None:
    assert service.stop() == 0
    vmcore = saved(service)
    if how == "flagged":
        # DUMP_DH_COMPRESSED_INCOMPLETE in the status, makedumpfile's diskdump_mod.h.
        with vmcore.open("r+b") as file:
            file.seek(8 + 4 + 6 * 65 + 6 + 16)
            status = int.from_bytes(file.read(4), "little")
            file.seek(-4, os.SEEK_CUR)
            file.write((status | 8).to_bytes(4, "little"))
    elif how == "cut off":
        os.truncate(vmcore, vmcore.stat().st_size - 100)
    assert run("attach", "--force", vmcore, *spool(service).glob("*.note")).returncode == 0
    if how == "named":
        vmcore.rename(vmcore.with_name("vmcore-incomplete"))
    done = resolve()
    stayed(done, service, "there is no complete vmcore")
    # It was read.
    assert done.stderr.count("\n") == 1


def test_damaged_manifest(service: Service, collect: Collect, resolve: Resolve) -> None:
    assert service.stop() == 0
    vmcore = streamed(collect, service)
    data = vmcore.read_bytes()
    vmcore.write_bytes(data.replace(b'{"version":1,"producer"', b'{"version":1,!producer"'))
    assert vmcore.read_bytes() != data
    stayed(resolve(), service, "there is no complete vmcore of the crash of")


def test_data_that_the_vmcore_has_not_as_they_were(service: Service, collect: Collect, resolve: Resolve) -> None:
    assert service.stop() == 0
    vmcore = streamed(collect, service)
    data = vmcore.read_bytes()
    vmcore.write_bytes(data.replace(DUMPS["nic"], b"REGISTERS"))
    assert vmcore.read_bytes() != data
    gone(resolve(), service, f": 2 device dumps are in {vmcore}, 1 of them attached now, and left the spool")
    assert contents(vmcore)["nic"] == DUMPS["nic"]


def test_another_device_dump_of_that_name_is_not_replaced(service: Service, resolve: Resolve) -> None:
    assert service.stop() == 0
    vmcore = saved(service)
    assert run("attach", vmcore, "nic=-", input="other").returncode == 0
    done = resolve()
    assert f"1 device dump is in {vmcore}, 1 of them attached now" in done.stderr
    assert f"nic; {vmcore} has other device dumps of these names: nic\n" in done.stderr
    assert (done.returncode, names_in(service)) == (1, ["nic"])
    assert contents(vmcore) == {"nic": b"other", "hba": DUMPS["hba"]}


def test_vmcore_of_another_capture_kernel(service: Service, collect: Collect, resolve: Resolve) -> None:
    """Two that contradict each other: the record of the crash is that of the vmcore, the boot is not."""
    assert service.stop() == 0
    vmcore = streamed(collect, service)
    other = spool(service).with_name("11111111-2222-3333-4444-555555555555")
    spool(service).rename(other)
    stayed(resolve(), service, "there is no complete vmcore of the crash of")
    assert vmcore.exists()


@pytest.mark.parametrize("attached", [True, False])
def test_compressed_vmcore(service: Service, collect: Collect, resolve: Resolve, attached: bool) -> None:
    assert service.stop() == 0
    vmcore = streamed(collect, service) if attached else saved(service, "-F")
    packed = vmcore.with_name(f"{vmcore.name}.gz")
    with vmcore.open("rb") as file, gzip.open(packed, "wb", 1) as out:
        shutil.copyfileobj(file, out)
    shutil.copystat(vmcore, packed)
    vmcore.unlink()
    if attached:
        gone(resolve(), service, f": 2 device dumps are in {packed}, and left the spool")
    else:
        stayed(resolve(), service, f"{packed}: is compressed by gzip: unpack it with gzip -d")


def test_compressed_vmcore_of_another_time_is_not_unpacked(
    service: Service, collect: Collect, resolve: Resolve
) -> None:
    assert service.stop() == 0
    vmcore = streamed(collect, service)
    packed = vmcore.with_name(f"{vmcore.name}.gz")
    packed.write_bytes(gzip.compress(vmcore.read_bytes(), 1))
    vmcore.unlink()
    os.utime(packed, (0, 0))
    stayed(resolve(), service, "there is no complete vmcore")


def test_damaged_device_dump_stays(service: Service, resolve: Resolve) -> None:
    assert service.stop() == 0
    note = spool(service) / "000001.note"
    note.write_bytes(note.read_bytes().replace(DUMPS["nic"], b"REGISTERS"))
    vmcore = saved(service)
    for lines in (2, 1):
        done = resolve()
        assert (done.returncode, len(done.stderr.splitlines())) == (1, lines)
        assert "000001.note" in done.stderr.splitlines()[-1]
    assert contents(vmcore) == {"hba": DUMPS["hba"]}
    assert (spool(service) / "000001.note.damaged").exists()


def test_spool_that_another_process_has_locked(service: Service, collect: Collect, resolve: Resolve) -> None:
    assert service.stop() == 0
    streamed(collect, service)
    fd = os.open(spool(service), os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    done = resolve()
    os.close(fd)
    stayed(done, service, f"{spool(service)}: a daemon uses it")
    gone(resolve(), service, "2 device dumps are in ")


def test_this_boot_is_left_alone(service: Service, collect: Collect, tmp_path: Path) -> None:
    config = tmp_path / "resolve.conf"
    config.write_text(f"[Vmcoredd]\nTarget={tmp_path}/target\n")
    streamed(collect, service)
    done = run("resolve", "--config", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(names_in(service)) == sorted(DUMPS)
    assert service.stop() == 0
    done = run("resolve", "--config", config)
    assert (done.returncode, sorted(names_in(service))) == (0, sorted(DUMPS))


def test_vmcore_in_another_place(service: Service, collect: Collect, resolve: Resolve, tmp_path: Path) -> None:
    assert service.stop() == 0
    vmcore = streamed(collect, service)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(vmcore, elsewhere / "vmcore.flat")
    stayed(resolve(), service, "there is no complete vmcore")
    gone(resolve(elsewhere), service, f"2 device dumps are in {elsewhere}/vmcore.flat, and left the spool")


@pytest.mark.parametrize("root", ["/sysroot", "/kdumproot"])
def test_target_as_the_initramfs_of_kdump_utils_has_it(
    service: Service, collect: Collect, resolve: Resolve, tmp_path: Path, root: str
) -> None:
    assert service.stop() == 0
    vmcore = streamed(collect, service)
    config = tmp_path / "utils.conf"
    config.write_text(f"[Vmcoredd]\nTarget={root}{service.target}\n")
    gone(resolve("--config", config), service, f"2 device dumps are in {vmcore}, and left the spool")


def test_spool_that_is_a_symbolic_link(service: Service, resolve: Resolve, tmp_path: Path) -> None:
    assert service.stop() == 0
    (service.target / ".vmcoredd-spool").rename(tmp_path / "moved")
    (service.target / ".vmcoredd-spool").symlink_to(tmp_path / "moved")
    done = resolve()
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert ".vmcoredd-spool: is not read: " in done.stderr


def test_nothing_is_left(resolve: Resolve) -> None:
    done = resolve()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# core-collector, which knows that its file is on the disk.


def test_file_of_core_collector_clears_the_spool(service: Service, collect: Collect) -> None:
    assert service.stop() == 0
    vmcore = service.target / "vmcore"
    done = collect(*OPTIONS, service.source, vmcore)
    assert f"2 device dumps attached to {vmcore}\n" in done.stderr
    assert "spool" not in done.stderr
    assert names_in(service) == []
    assert contents(vmcore) == DUMPS
    # Its collectors, and those of the service, are not run by a second call.
    assert "there are no device dumps" in collect(*OPTIONS, service.source, service.target / "again").stderr


@pytest.mark.parametrize("kind", ["none", "elf"])
def test_running_service_is_told_what_a_file_has(
    bus_address: str, source_vmcore: Path, tmp_path: Path, config: Path, collect: Collect, kind: str
) -> None:
    config.write_text(f"[Vmcoredd]\nTarget={tmp_path}/target\nFormat={kind}\n")
    with Service(bus_address, source_vmcore, tmp_path, f"Format={kind}") as service:
        service.start()
        for name, data in DUMPS.items():
            add(service, name, data.decode())
        done = collect(*OPTIONS, source_vmcore, service.target / "vmcore", bus=service.address)
        assert done.stderr == f"vmcoredd: 2 device dumps attached to {service.target}/vmcore\n"
        # One that writes a vmcore of its own needs them.
        assert sorted(names_in(service)) == ([] if kind == "none" else sorted(DUMPS))
        assert service.stop() == 0
    assert contents(service.target / "vmcore") == DUMPS
    if kind == "elf":
        assert contents(service.vmcore()) == DUMPS


def test_dump_that_makedumpfile_could_not_finish_clears_nothing(
    service: Service, collect: Collect, program: Callable[[str], Path], tmp_path: Path
) -> None:
    assert service.stop() == 0
    vmcore = service.target / "vmcore"
    fails = program(f'/usr/bin/env PATH="$PATH" {shutil.which("makedumpfile")} "$@"; exit 1')
    done: Any = collect(fails, *OPTIONS, service.source, vmcore)
    assert (done.returncode, f"2 device dumps attached to {vmcore}" in done.stderr) == (1, True)
    assert sorted(names_in(service)) == sorted(DUMPS)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd check, on the files of systems that are set up as docs/kdump.md has it, and then with one mistake each.

tests/kdump/test_check.py does the same in machines that have booted.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.lib.paths import ROOT
from tests.lib.tools import require
from tests.lib.vmcoredd import run, run_in_terminal

MY_UNIT = """\
[Unit]
After=vmcoredd.service
[Service]
Type=oneshot
ExecStart=vmcoredd add my /usr/lib/vmcoredd/registers.bin
TimeoutStartSec=30
[Install]
WantedBy=vmcoredd-capture.target
"""
HEALTHY: Mapping[str, str] = {
    "proc/cmdline": "root=/dev/vda crashkernel=256M\n",
    "proc/meminfo": "".join(
        f"{name + ':':16}{kib:8} kB\n"
        for name, kib in {
            "MemTotal": 1 << 10,
            "Slab": 100,
            "KernelStack": 10,
            "PageTables": 10,
            "Percpu": 10,
            "VmallocUsed": 10,
        }.items()
    ),
    "proc/sys/kernel/osrelease": "6.1.0-test\n",
    "sys/kernel/kexec_crash_loaded": "1\n",
    "sys/kernel/kexec_crash_size": f"{256 << 20}\n",
    "usr/bin/dbus-daemon": "",
    "usr/bin/vmcoredd": "",
    "usr/bin/vmcoredd-daemon": "",
    "usr/bin/makedumpfile": "",
    "usr/lib/vmcoredd/registers.bin": "data",
    "usr/lib/systemd/system/my.service": MY_UNIT,
}
"""Files of a system, but for those of its kdump."""

KDUMP_TOOLS = {
    "usr/sbin/kdump-config": "",
    "usr/lib/systemd/system/kdump-tools-dump.service": "[Service]\nExecStart=/etc/init.d/kdump-tools start\n",
    "etc/default/kdump-tools": "USE_KDUMP=1\nKDUMP_COREDIR=/var/crash\n",
}
KDUMP_UTILS = {
    "etc/kdump.conf": """\
# a comment
path /var/crash
core_collector vmcoredd-core-collector makedumpfile -l --message-level 7 -d 31
dracut_args --add vmcoredd
"""
}
WANTS = "etc/systemd/system/vmcoredd-capture.target.wants"

Mistake = Callable[[Path], object]


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if "bin/" in name:
        path.chmod(0o755)


def assign(name: str, text: str) -> Mistake:
    return lambda root: write(root, name, text)


def append(name: str, text: str) -> Mistake:
    return lambda root: write(root, name, (root / name).read_text() + text)


def remove(name: str) -> Mistake:
    return lambda root: (root / name).unlink()


def overridden(root: Path) -> None:
    """The administrator's drop-in is the last one by its name."""
    write(root, "usr/lib/systemd/system/my.service.d/10.conf", "[Service]\nTimeoutStartSec=infinity\n")
    write(root, "etc/systemd/system/my.service.d/override.conf", "[Service]\nTimeoutStartSec=30\n")


def instance(root: Path) -> None:
    """Of a template, one instance is enabled."""
    write(root, "usr/lib/systemd/system/acme@.service", MY_UNIT)
    link(f"{WANTS}/acme@0.service", "/usr/lib/systemd/system/acme@.service")(root)


def unreadable_collectors(root: Path) -> None:
    """The directory is a link to itself."""
    (root / "etc/vmcoredd/collectors.d").rename(root / "etc/vmcoredd/collectors")
    link("etc/vmcoredd/collectors.d", "collectors.d")(root)


def absolute_links(root: Path) -> None:
    """As alternatives and usrmerge make them."""
    write(root, "usr/bin/mdf2", "")
    link("usr/bin/makedumpfile", "/etc/alternatives/makedumpfile")(root)
    link("etc/alternatives/makedumpfile", "/usr/bin/mdf2")(root)
    (root / "etc/vmcoredd").rename(root / "opt")
    link("etc/vmcoredd", "/opt")(root)


def link(name: str, target: str) -> Mistake:
    def mistake(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)

    return mistake


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A system with our files, as the package installs them, and a helper; nothing saves a vmcore yet."""
    root = tmp_path / "root"
    subprocess.run([ROOT / "systemd" / "install", root], check=True)
    for name, text in HEALTHY.items():
        write(root, name, text)
    link(f"{WANTS}/my.service", "/usr/lib/systemd/system/my.service")(root)
    return root


@pytest.fixture
def debian(system: Path) -> Path:
    """A system with kdump-tools."""
    for name, text in KDUMP_TOOLS.items():
        write(system, name, text)
    return system


def findings(root: Path, *options: object) -> list[dict[str, Any]]:
    """Return what it finds, and expect the exit status that this has."""
    checked = run("check", "--root", root, "--json", *options)
    found: list[dict[str, Any]] = json.loads(checked.stdout)
    bad = [each for each in found if each["state"] == "problem"]
    assert all(each["advice"] for each in bad)
    assert checked.returncode == (1 if bad else 0)
    assert ("problem" in checked.stderr) == bool(bad)
    return found


def problems(root: Path, *options: object) -> list[str]:
    """Return the problems that it finds."""
    return [
        f"{each['check']}: {each['finding']}" for each in findings(root, *options) if each["state"] == "problem"
    ]


def test_good_system(debian: Path) -> None:
    found = findings(debian)
    assert {each["state"] for each in found} == {"ok"}
    checks = ["capture kernel", "kdump-tools", "configuration", "collectors", "target", "spool", "units"]
    assert [each["check"] for each in found] == [*checks, "message bus"]


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        (assign("sys/kernel/kexec_crash_loaded", "0\n"), "capture kernel: it is not loaded"),
        (assign("sys/kernel/kexec_crash_size", "0\n"), "capture kernel: no memory is reserved for it"),
        (
            assign("sys/kernel/kexec_crash_size", f"{128 << 20}\n"),
            "capture kernel: it has 128.0M of memory, and was tried with 192.0M",
        ),
        (
            assign("proc/cmdline", "quiet vmcoredd=off\n"),
            "kdump-tools: vmcoredd=off is on the capture kernel's command line",
        ),
        (
            append("etc/default/kdump-tools", 'KDUMP_CMDLINE="root=/dev/sda vmcoredd=off"\n'),
            "kdump-tools: vmcoredd=off is on the capture kernel's command line",
        ),
        (
            assign("var/crash/kexec_cmd", '/sbin/kexec -p --append="root=/dev/sda nr_cpus=1" /boot/vmlinuz\n'),
            "kdump-tools: the capture kernel does not start kdump-tools-dump.service",
        ),
        (assign("etc/default/kdump-tools", ""), "kdump-tools: /etc/default/kdump-tools switches it off"),
        (
            append("etc/default/kdump-tools", 'KDUMP_CMDLINE_APPEND="nr_cpus=1"\n'),
            "kdump-tools: the capture kernel does not start kdump-tools-dump.service",
        ),
        (
            append(
                "etc/default/kdump-tools",
                'KDUMP_CMDLINE_APPEND="systemd.unit=kdump-tools-dump.service vmcoredd=off"\n',
            ),
            "kdump-tools: vmcoredd=off is on the capture kernel's command line",
        ),
        (
            append("etc/default/kdump-tools", 'makedumpfile() { vmcoredd core-collector "$@"; }\n'),
            "kdump-tools: a shell function makedumpfile runs instead of the program",
        ),
        (
            remove("usr/bin/makedumpfile"),
            "kdump-tools: makedumpfile is missing: the vmcore has no device dumps",
        ),
        (
            link("etc/systemd/system/kdump-tools-dump.service.d/vmcoredd.conf", "/dev/null"),
            "kdump-tools: kdump-tools-dump.service does not run our makedumpfile",
        ),
        (
            remove("usr/bin/vmcoredd-core-collector"),
            "kdump-tools: kdump-tools-dump.service does not run our makedumpfile",
        ),
        (
            assign("etc/vmcoredd/vmcoredd.conf.d/x.conf", "[Vmcoredd]\nFormat=elf\n"),
            "kdump-tools: Format=elf in vmcoredd.conf makes the service write a second vmcore",
        ),
        (
            assign("etc/vmcoredd/vmcoredd.conf.d/x.conf", "[Vmcoredd]\nEnabled=no\n"),
            "configuration: Enabled=no switches device dumps off",
        ),
        (
            assign("etc/vmcoredd/vmcoredd.conf.d/x.conf", "[Vmcoredd]\nColour=red\n"),
            "configuration: ROOT/etc/vmcoredd/vmcoredd.conf.d/x.conf:2: unknown key 'Colour'",
        ),
        (
            assign("etc/vmcoredd/collectors.d/vendor.conf", "[Collector]\nExec=/opt/vendor/dump\n"),
            "collectors: vendor: program /opt/vendor/dump is missing",
        ),
        (
            assign(
                "etc/vmcoredd/collectors.d/vendor.conf",
                "[Collector]\nExec=vendor-dump\nConditionPathExists=/proc/vmcore\n",
            ),
            "collectors: vendor: program vendor-dump is missing",
        ),
        (
            assign("etc/vmcoredd/collectors.d/vendor.conf", "[Collector]\nExec=sh\nSize=much\n"),
            "collectors: ROOT/etc/vmcoredd/collectors.d/vendor.conf:3: Size='much' is not a size",
        ),
        (
            unreadable_collectors,
            "collectors: ROOT/etc/vmcoredd/collectors.d: cannot be read: Too many levels of symbolic links",
        ),
        (
            assign("var/crash/.vmcoredd-spool/0-1-2-3-4/000001.note", "data"),
            "spool: 1 device dump of an earlier crash is in /var/crash/.vmcoredd-spool/0-1-2-3-4",
        ),
        (
            assign("proc/meminfo", HEALTHY["proc/meminfo"].replace("100 kB", f"{1 << 40} kB")),
            "target: /var/crash has",
        ),
        (
            assign("etc/vmcoredd/vmcoredd.conf.d/x.conf", f"[Vmcoredd]\nKeepFree={1 << 20}G\n"),
            "spool: /var/crash/.vmcoredd-spool has 0B, and collectors may need",
        ),
        (
            append("usr/lib/systemd/system/my.service", "[Service]\nTimeoutStartSec=infinity\n"),
            "units: my.service: has no time limit, and could delay the vmcore by ten minutes",
        ),
        (
            assign("usr/lib/systemd/system/my.service", MY_UNIT.replace("After=vmcoredd.service", "After=x")),
            "units: my.service: may run before the service does",
        ),
        (
            assign("usr/lib/systemd/system/my.service", MY_UNIT.replace("Type=oneshot\n", "")),
            "units: my.service: is not Type=oneshot, so nothing waits until it has ended",
        ),
        (
            assign(
                "usr/lib/systemd/system/my.service", MY_UNIT.replace("ExecStart=vmcoredd", "ExecStart=-/opt/x")
            ),
            "units: my.service: its program /opt/x is missing",
        ),
        (
            link("etc/systemd/system/vmcoredd.service", "/dev/null"),
            "units: vmcoredd.service is masked",
        ),
        (remove("usr/bin/vmcoredd-daemon"), "units: the program vmcoredd-daemon is not in a directory"),
        (
            link(f"{WANTS}/vmcoredd-collect@nosuch.service", "/usr/lib/systemd/system/vmcoredd-collect@.service"),
            "collectors: vmcoredd-collect@nosuch.service is enabled, and there is no collector nosuch",
        ),
        (
            assign("etc/vmcoredd/vmcoredd.conf.d/x.conf", "[Vmcoredd]\nRunCollectors=no\n"),
            "collectors: RunCollectors=no: none runs when the service starts",
        ),
        (
            assign("etc/vmcoredd/collectors.d/big.conf", "[Collector]\nExec=vmcoredd\nSize=512M\n"),
            "collectors: big may have 512.0M, and MaxDumpSize=256.0M",
        ),
        (
            assign(
                "etc/vmcoredd/collectors.d/many.conf",
                "[Collector]\nExec=vmcoredd\nSize=1K\nInstances=/usr/bin/[a-d]*\n",
            ),
            "collectors: they make ",
        ),
        (
            assign(
                "etc/vmcoredd/collectors.d/none.conf", "[Collector]\nExec=/opt/missing\nInstances=/nothing/*\n"
            ),
            "collectors: none: program /opt/missing is missing",
        ),
        (assign("var/crash", "a file"), "target: /var/crash is no directory"),
        (
            link("etc/systemd/system/kdump-tools-dump.service", "/dev/null"),
            "kdump-tools: kdump-tools-dump.service does not run our makedumpfile",
        ),
        (remove("usr/lib/systemd/system/my.service"), "units: my.service: its unit file is missing"),
        (remove(f"{WANTS}/my.service"), "units: my.service is for vmcoredd-capture.target, and not enabled"),
        (remove("usr/lib/systemd/system/vmcoredd.service"), "units: vmcoredd.service cannot be found"),
        (
            remove("usr/share/dbus-1/system.d/org.vmcoredd1.conf"),
            "message bus: there is no /usr/share/dbus-1/system.d/org.vmcoredd1.conf: "
            "the service cannot own its name",
        ),
        (
            assign("usr/share/dbus-1/system.d/org.vmcoredd1.conf", "<busconfig/>"),
            "message bus: /usr/share/dbus-1/system.d/org.vmcoredd1.conf does not let the service own its name",
        ),
        (
            lambda root: shutil.copytree(root / "usr/share/dbus-1/system.d", root / "etc/dbus-1/system.d"),
            "message bus: there are two policies, /etc/dbus-1/system.d/org.vmcoredd1.conf and "
            "/usr/share/dbus-1/system.d/org.vmcoredd1.conf",
        ),
        (
            remove("usr/share/dbus-1/system-services/org.vmcoredd1.service"),
            "message bus: there is no /usr/share/dbus-1/system-services/org.vmcoredd1.service",
        ),
        (
            remove("usr/bin/dbus-daemon"),
            "message bus: no message bus is installed: helpers cannot add device dumps",
        ),
    ],
)
def test_mistake(debian: Path, mistake: Mistake, expected: str) -> None:
    mistake(debian)
    (found,) = problems(debian)
    assert found.replace(str(debian), "ROOT").startswith(expected)


@pytest.mark.parametrize(
    "harmless",
    [
        link("etc/systemd/system/my.service", "/dev/null"),
        assign("etc/vmcoredd/vmcoredd.conf.d/x.conf", "[Vmcoredd]\nFormat=none\n"),
        append("etc/default/kdump-tools", "# makedumpfile() { a comment; }\n"),
        assign("etc/vmcoredd/collectors.d/vendor.conf", "[Collector]\nExec=missing\nEnabled=no\n"),
        assign("etc/vmcoredd/collectors.d/vendor.conf", ""),
        link("usr/bin/dbus-broker", "dbus-daemon"),
        # What systemd reads otherwise than it looks.
        assign("etc/systemd/system/my.service.d/x.conf", "[Unit]\nAfter=\n"),
        assign("usr/lib/systemd/system/my.service", MY_UNIT.replace("TimeoutStartSec", "TimeoutSec")),
        assign("usr/lib/systemd/system/my.service", MY_UNIT.replace("After=", "After=a \\\n# comment\n  ")),
        assign("usr/lib/systemd/system/my.service", MY_UNIT.replace("\n", "\n  ")),
        assign("usr/lib/systemd/system/my.service", MY_UNIT.replace("WantedBy", "RequiredBy")),
        overridden,
        instance,
        link("etc/systemd/system/nice.service", "/usr/lib/systemd/system/my.service"),
        # Links that lead out of an image, if they are followed from here.
        absolute_links,
    ],
)
def test_what_is_no_mistake(debian: Path, harmless: Mistake) -> None:
    harmless(debian)
    assert problems(debian) == []


def test_target_and_spool_in_memory(debian: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir():
        pytest.skip("there is no /dev/shm")
    with TemporaryDirectory(dir=memory) as directory:
        root = shutil.copytree(debian, Path(directory) / "root", symlinks=True)
        assert problems(root) == [
            "target: /var/crash is in memory: a vmcore is lost when the machine restarts",
            "spool: /var/crash/.vmcoredd-spool is in memory, which the capture kernel does not have",
        ]


def test_fifos_and_large_files_take_no_time(debian: Path) -> None:
    for name in ("etc/default/kdump-tools", "usr/share/dbus-1/system.d/org.vmcoredd1.conf"):
        (debian / name).unlink()
        os.mkfifo(debian / name)
    write(debian, "usr/lib/systemd/system/huge.service", "")
    os.truncate(debian / "usr/lib/systemd/system/huge.service", 1 << 40)
    link("usr/lib/systemd/system/circle.service", "circle.service")(debian)
    write(debian, "etc/vmcoredd/collectors.d/long.conf", f"[Collector]\nExec=/{'a' * 300}\n")
    assert [found.partition(": ")[0] for found in problems(debian)] == ["kdump-tools", "collectors", "message bus"]


def test_root_that_is_none(tmp_path: Path) -> None:
    result = run("check", "--root", tmp_path / "missing")
    assert (result.returncode, result.stdout) == (2, "")


def test_what_the_kernel_does_not_say(debian: Path) -> None:
    shutil.rmtree(debian / "sys")
    shutil.rmtree(debian / "proc")
    assert [each["check"] for each in findings(debian) if each["state"] == "unknown"] == [
        "capture kernel",
        "target",
    ]


def test_no_kdump(system: Path) -> None:
    assert problems(system) == ["kdump: nothing saves a vmcore after a panic"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Initramfs images that dracut could have made, with our module and without."""
    require("cpio", "lsinitrd")
    made = {}
    for ours in (True, False):
        root = tmp_path_factory.mktemp("image")
        write(root, "usr/lib/dracut/modules.txt", "base\nvmcoredd\n" if ours else "base\n")
        write(root, "usr/lib/dracut/dracut-999", "")
        made[ours] = root.with_suffix(".img")
        with made[ours].open("wb") as out:
            names = "".join(f"{path.relative_to(root)}\n" for path in [root, *sorted(root.rglob("*"))])
            command = ["cpio", "--create", "--format=newc", "--quiet"]
            subprocess.run(command, cwd=root, input=names.encode(), stdout=out, check=True)
    return made


IMAGE = "boot/initramfs-6.1.0-testkdump.img"


@pytest.fixture
def fedora(system: Path, images: dict[bool, Path]) -> Path:
    """A system with kdump-utils."""
    for name, text in KDUMP_UTILS.items():
        write(system, name, text)
    (system / "boot").mkdir()
    shutil.copy(images[True], system / IMAGE)
    return system


def test_good_system_with_kdump_utils(fedora: Path) -> None:
    found = findings(fedora)
    assert {each["state"] for each in found} == {"ok", "unknown"}
    # Of what dracut copies, the list of modules does not tell.
    (not_known,) = (each["finding"] for each in found if each["state"] == "unknown")
    assert not_known.startswith("my.service: our dracut module does not copy it")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "core_collector vmcoredd-core-collector makedumpfile",
            "core_collector makedumpfile",
            "kdump-utils: core_collector is not vmcoredd-core-collector makedumpfile",
        ),
        (
            "dracut_args",
            "core_collector makedumpfile\ncore_collector vmcoredd-core-collector makedumpfile\ndracut_args",
            "kdump-utils: /etc/kdump.conf has core_collector 3 times",
        ),
        (
            "dracut_args",
            "kdump_pre /usr/bin/vmcoredd\ndracut_args",
            "kdump-utils: the service that kdump_pre starts would write a second vmcore",
        ),
    ],
)
def test_mistake_in_kdump_conf(fedora: Path, old: str, new: str, expected: str) -> None:
    text = KDUMP_UTILS["etc/kdump.conf"]
    assert old in text
    write(fedora, "etc/kdump.conf", text.replace(old, new))
    write(fedora, "usr/bin/vmcoredd", "vmcoredd")
    os.utime(fedora / IMAGE)
    assert problems(fedora) == [expected]


@pytest.mark.parametrize(
    "args", ['dracut_args --add "network-manager vmcoredd"', "# add_dracutmodules in dracut.conf.d"]
)
def test_what_adds_our_module(fedora: Path, args: str) -> None:
    write(fedora, "etc/kdump.conf", KDUMP_UTILS["etc/kdump.conf"].replace("dracut_args --add vmcoredd", args))
    os.utime(fedora / IMAGE)
    assert problems(fedora) == []


def test_initramfs_without_our_module(fedora: Path, images: dict[bool, Path]) -> None:
    shutil.copy(images[False], fedora / IMAGE)
    assert problems(fedora) == [f"initramfs: {fedora / IMAGE} does not have our dracut module"]


def test_initramfs_that_is_missing(fedora: Path) -> None:
    (fedora / IMAGE).unlink()
    assert problems(fedora) == [f"initramfs: there is no /{IMAGE}"]


@pytest.mark.parametrize(
    "name", ["etc/vmcoredd/vmcoredd.conf", "etc/kdump.conf", "var/lib/dpkg/info/vmcoredd.list"]
)
def test_initramfs_that_is_older_than_what_it_copies(fedora: Path, name: str) -> None:
    file = fedora / name
    write(fedora, name, file.read_text() if file.exists() else "")
    os.utime(file, (time.time(), time.time() + 60))
    (found,) = problems(fedora)
    what = f"/{name}" if name.startswith("etc") else "the installed vmcoredd"
    assert found.startswith(f"initramfs: {fedora / IMAGE} is older than {what} (20")


def test_initramfs_of_our_own(system: Path, images: dict[bool, Path]) -> None:
    (system / "boot").mkdir()
    shutil.copy(images[True], system / "boot/vmcoredd.img")
    assert problems(system) == []
    write(system, "etc/vmcoredd/vmcoredd.conf", "[Vmcoredd]\nFormat=none\n")
    os.utime(images[True])
    assert problems(system, "--initramfs", images[True]) == ["initramfs: Format=none: no program writes a vmcore"]
    assert problems(system, "--initramfs", "/missing") == ["initramfs: /missing does not exist"]
    (system / "usr/bin/makedumpfile").unlink()
    for kind, said in {
        "": ["makedumpfile is missing: the vmcore would have all of the memory"],
        "elf": [],
    }.items():
        write(system, "etc/vmcoredd/vmcoredd.conf", f"[Vmcoredd]\nFormat={kind}\n")
        os.utime(images[True])
        assert problems(system, "--initramfs", images[True]) == [f"initramfs: {text}" for text in said]


@pytest.mark.parametrize("columns", [80, 40])
def test_narrow_terminal(debian: Path, columns: int) -> None:
    lines = run_in_terminal(columns, "check", "--root", debian)
    assert lines[0].split() == ["CHECK", "STATE", "FINDING"]
    assert max(map(len, lines)) <= columns
    (debian / "usr/share/dbus-1/system.d/org.vmcoredd1.conf").unlink()
    lines = run_in_terminal(columns, "check", "--root", debian, status=1)
    assert "  Install vmcoredd again." in lines
    # A path is one word.
    assert all(len(line) <= columns or " " not in line.strip() for line in lines)

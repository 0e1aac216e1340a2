# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package: built, judged by lintian, installed, upgraded, removed, and tested in a clean Debian."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kdump import debian
from tests.lib.paths import ROOT
from tests.lib.tools import require, skip_or_fail
from vmcoredd_daemon import __version__

PACKAGED = pytest.mark.deb

FILES = (
    *("etc/vmcoredd/vmcoredd.conf", "usr/bin/vmcoredd", "usr/bin/vmcoredd-daemon"),
    *("usr/bin/vmcoredd-core-collector", "usr/lib/vmcoredd/makedumpfile"),
    "usr/share/man/man8/vmcoredd-core-collector.8.gz",
    *("usr/lib/systemd/system/vmcoredd.service", "usr/lib/systemd/system/vmcoredd-capture.target"),
    *(
        "usr/lib/systemd/system/kdump-tools-dump.service.d/vmcoredd.conf",
        "usr/lib/systemd/catalog/vmcoredd.catalog",
    ),
    *("usr/share/dbus-1/system.d/org.vmcoredd1.conf", "usr/share/dbus-1/system-services/org.vmcoredd1.service"),
    *("usr/lib/dracut/modules.d/99vmcoredd/module-setup.sh", "usr/share/initramfs-tools/hooks/vmcoredd"),
    *("usr/share/man/man1/vmcoredd.1.gz", "usr/share/man/man8/vmcoredd-daemon.8.gz"),
    *("usr/share/man/man5/vmcoredd.conf.5.gz", "usr/share/man/man5/org.vmcoredd1.5.gz"),
    *("usr/share/man/man7/vmcoredd-collectors.7.gz", "usr/share/bash-completion/completions/vmcoredd"),
    "usr/share/zsh/vendor-completions/_vmcoredd",
)

# What apt and others keep of their own work, and what the tests of Python leave.
VOLATILE = re.compile(r"\./(proc|sys|dev|tmp|root|run|var/(cache|log|lib/(apt|dpkg|systemd/catalog)))(/|$)")


def test_versions_are_the_same_everywhere() -> None:
    changelog = (ROOT / "debian/changelog").read_text()
    assert re.findall(r"^vmcoredd \((.*)-\d+\)", changelog, re.MULTILINE)[0] == __version__
    spec = (ROOT / "packaging/vmcoredd.spec").read_text()
    assert re.findall(r"^Version: +(\S+)$", spec, re.MULTILINE) == [__version__]


def test_make_installs_what_the_package_is_built_with() -> None:
    control = (ROOT / "debian/control").read_text().partition("Build-Depends:")[2].partition("\n\n")[0]
    needed = set(re.findall(r"^ ([a-z][\w.+-]*)", control, re.MULTILINE))
    installed = (ROOT / ".ci/debian-packages").read_text().partition("\ndeb='")[2].partition("'")[0].split()
    provided = {"debhelper-compat": "debhelper", "dh-sequence-python3": "dh-python", "systemd-dev": "systemd"}
    # dpkg-checkbuilddeps wants one package more, which need not be named.
    assert {provided.get(name, name) for name in needed} | {"build-essential"} <= set(installed)


def test_tests_of_the_build_find_their_files(tmp_path: Path) -> None:
    """pybuild runs them in a directory that has what pybuild.testfiles names, and the package."""
    for name in [*(ROOT / "debian/pybuild.testfiles").read_text().split(), "vmcoredd_daemon", "pyproject.toml"]:
        (tmp_path / name).symlink_to(ROOT / name)
    rules = (ROOT / "debian/rules").read_text().replace("\\\n", " ")
    (arguments,) = re.findall(r"^export PYBUILD_TEST_ARGS = (.*)", rules, re.MULTILINE)
    # Which files a test needs shows only when it runs.
    files = [name for name in arguments.split() if name.startswith("tests/") and "/vmcore/" not in name]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_or_fail(debian.missing_tools(machine=False))
    return debian.build_package(tmp_path_factory.mktemp("deb") / "build")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clean Debian."""
    skip_or_fail(debian.missing_tools(machine=False))
    root = debian.bootstrap(tmp_path_factory.mktemp("debian") / "root", "systemd,systemd-sysv,dbus,kmod")
    yield root
    # pytest would keep it for three sessions.
    shutil.rmtree(root)


@PACKAGED
def test_lintian_is_content(package: Path) -> None:
    require("lintian")
    (changes,) = package.parent.glob("*.changes")
    command = ["lintian", "--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0", changes]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (judged.returncode, judged.stdout) == (0, ""), judged.stderr


@PACKAGED
@pytest.mark.timeout(600)
def test_install_upgrade_and_purge_leave_nothing(package: Path, root: Path, tmp_path: Path) -> None:
    install(root, package.parent, None)
    debian.chroot(root, "apt-get --quiet --yes purge vmcoredd")
    # Its dependencies are there now, it is not.
    before = listing(root)
    old = older(package, tmp_path)
    install(root, old.parent, old)
    assert "0.0.1-1" in debian.chroot(root, "dpkg-query --show vmcoredd")
    changed = root / "etc/vmcoredd/vmcoredd.conf"
    changed.write_text(changed.read_text() + "Format=kdump\n")
    # The administrator enables it, which the package does not.
    debian.chroot(root, "systemctl enable vmcoredd.service")
    install(root, package.parent, package)
    assert f"{__version__}-1" in debian.chroot(root, "dpkg-query --show vmcoredd")
    assert not (root / "usr/share/vmcoredd-of-old").exists()
    assert changed.read_text().endswith("Format=kdump\n")
    for file in FILES:
        assert (root / file).is_file(), file
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    assert (wanted / "vmcoredd.service").is_symlink()
    # This one the package does.
    assert (wanted / "vmcoredd-resolve.service").is_symlink()
    debian.chroot(root, "vmcoredd --version && vmcoredd run --list && vmcoredd-daemon --version")
    catalog = debian.chroot(root, "journalctl --list-catalog")
    assert "575a1d93064b4d08a4f2ea2db0a63f57 vmcoredd: Taking device dumps" in catalog
    debian.chroot(root, "apt-get --quiet --yes remove vmcoredd")
    assert changed.exists()
    debian.chroot(root, "apt-get --quiet --yes purge vmcoredd")
    assert listing(root) - before == set()
    assert "vmcoredd" not in debian.chroot(root, "journalctl --list-catalog")


@PACKAGED
@pytest.mark.timeout(1800)
def test_suite_passes_with_debians_own_libraries(package: Path, root: Path) -> None:
    install(root, package.parent, package)
    control = (ROOT / "debian/tests/control").read_text().partition("Depends:")[2].partition("Restrictions:")[0]
    needed = " ".join(name.strip() for name in control.split(",") if name.strip() not in {"", "@"})
    debian.chroot(root, f"apt-get --quiet --yes install --no-install-recommends {needed}")
    tree = root / "root/tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".venv", "build", "dist", ".*_cache", ".git"))
    # If it were here, it would not be known which one is tested.
    shutil.rmtree(tree / "vmcoredd_daemon")
    said = debian.chroot(root, "cd /root/tree && debian/tests/suite -q")
    print(said[-2000:])
    assert re.search(r"^\d+ passed", said.splitlines()[-1])
    debian.chroot(root, "cd /root/tree && python3 -m tests.demo")


def install(root: Path, directory: Path, package: Path | None) -> None:
    """Install a package, with what it needs from Debian."""
    found = package or next(directory.glob("*.deb"))
    shutil.copy(found, root / "root" / found.name)
    debian.chroot(root, f"apt-get --quiet --yes --allow-downgrades install /root/{found.name}")


def older(package: Path, workdir: Path) -> Path:
    """Return the same package with a lower version, and with a file that the newer one does not have."""
    tree = workdir / "old"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", "Version: 0.0.1-1", control.read_text()))
    gone = tree / "usr/share/vmcoredd-of-old/file"
    gone.parent.mkdir()
    gone.touch()
    old = workdir / "vmcoredd_0.0.1-1_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, old], check=True, capture_output=True)
    return old


def listing(root: Path) -> set[str]:
    """Return the paths of all files, but for those of no package."""
    found = subprocess.run(["find", ".", "-xdev"], cwd=root, check=True, capture_output=True, text=True).stdout
    return {path for path in found.splitlines() if not VOLATILE.match(path)}

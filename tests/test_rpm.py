# SPDX-License-Identifier: LGPL-2.1-or-later
"""The RPM package, as far as Debian's rpm builds it: with plain macros in place of Fedora's."""

import subprocess
from pathlib import Path

import pytest

from tests.lib.paths import ROOT
from tests.lib.tools import require
from vmcoredd_daemon import __version__

MACROS = r"""
%python3 /usr/bin/python3
%debian DEB_PYTHON_INSTALL_LAYOUT=deb
%_unitdir /usr/lib/systemd/system
%_presetdir /usr/lib/systemd/system-preset
%pyproject_wheel %{python3} -m pip wheel --no-deps --no-build-isolation --no-index --wheel-dir wheels .
%pyproject_install %{debian} %{python3} -m pip install -I --no-deps --root %{buildroot} --prefix /usr wheels/*.whl
%pyproject_save_files() (cd %{buildroot} && ls -d usr/lib/python3/*/*) | sed s,^,/, > %{pyproject_files}
%pyproject_files %{_builddir}/pyproject-files
%systemd_post() :
%systemd_preun() :
%systemd_postun() :
"""


@pytest.mark.deb
def test_package_is_built_and_has_every_file(tmp_path: Path) -> None:
    """rpmbuild refuses a file that the spec file names and that is not there, and one that it does not name."""
    require("rpmbuild")
    name = f"vmcoredd-{__version__}"
    (tmp_path / "SOURCES").mkdir()
    archive = tmp_path / f"SOURCES/{name}.tar.gz"
    run("git", "-C", ROOT, "archive", f"--prefix={name}/", f"--output={archive}", "HEAD")
    macros = tmp_path / "macros"
    macros.write_text(MACROS)
    spec = ROOT / "packaging/vmcoredd.spec"
    run("rpmbuild", "-bb", "--nodeps", "--define", f"_topdir {tmp_path}", "--load", macros, spec)
    (package,) = tmp_path.glob("RPMS/noarch/*.rpm")
    files = run("rpm", "--query", "--list", "--package", package).splitlines()
    assert {"/usr/bin/vmcoredd", "/usr/lib/systemd/system/vmcoredd-resolve.service"} <= set(files)
    # They are for Debian's kdump-tools and initramfs-tools alone.
    assert [file for file in files if "kdump-tools" in file or "initramfs-tools" in file] == []


def run(*command: str | Path) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout

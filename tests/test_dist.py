# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the source distribution and the wheel have in them."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.lib.paths import ROOT
from tests.lib.tools import require, skip_or_fail


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with both, the wheel made of the source distribution."""
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", "--outdir", directory]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "No module named" in made.stderr:
        skip_or_fail([made.stderr.strip().rpartition(" ")[2]])
    assert made.returncode == 0, made.stdout + made.stderr
    return directory


def test_source_distribution_has_what_git_has(built: Path) -> None:
    require("git")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is no git worktree")
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        modes = {member.name.partition("/")[2]: member.mode for member in archive if member.isfile()}
    expected = {name for name in listed.stdout.splitlines() if not name.startswith("debian/")}
    assert expected - set(modes) == set()
    # It may have files that git does not know yet, but none that was made.
    assert not any(name.startswith((".venv", ".git/", "build/", "dist/", "debian/")) for name in modes)
    assert modes["systemd/install"] & 0o111


def test_wheel_has_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith("/METADATA")]
        assert b"License-Expression: LGPL-2.1-or-later\n" in archive.read(metadata)
    package = ROOT / "vmcoredd_daemon"
    files = {str(path.relative_to(ROOT)) for kind in ("*.py", "*.css") for path in package.rglob(kind)}
    assert {name for name in names if ".dist-info/" not in name} == files
    assert any(name.endswith("/licenses/LICENSE") for name in names)

# SPDX-License-Identifier: LGPL-2.1-or-later
import errno
from pathlib import Path

import pytest

from tests.lib.privileges import without_privileges
from vmcoredd_daemon.lookup import exists, matching


def test_what_matches_comes_in_order(tmp_path: Path) -> None:
    for name in ("b.conf", "a.conf", "c.conf.disabled", ".d.conf"):
        (tmp_path / name).touch()
    assert matching(tmp_path, "[!.]*.conf") == [tmp_path / "a.conf", tmp_path / "b.conf"]


def test_what_does_not_exist_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("missing")
    for name in ("missing", "file/below", "dangling"):
        assert (matching(tmp_path / name, "*"), exists(tmp_path / name)) == ([], False)
    assert exists(tmp_path / "file")


def test_what_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    tmp_path.chmod(0o755)
    # Another user cannot come here by the path.
    monkeypatch.chdir(tmp_path)
    with without_privileges():
        for look in (lambda: matching(Path("closed"), "*"), lambda: exists(Path("closed/file"))):
            with pytest.raises(PermissionError) as raised:
                look()
            assert raised.value.errno == errno.EACCES

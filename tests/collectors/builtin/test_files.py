# SPDX-License-Identifier: LGPL-2.1-or-later
import io
from pathlib import Path

import pytest

from tests.collectors.builtin.collecting import BROKEN
from vmcoredd_daemon.collectors.builtin.files import CHUNK, Problems, chunks, copy, write_lines


def test_file_is_read_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (2 * CHUNK + 1))
    assert [len(chunk) for chunk in chunks(tmp_path / "file")] == [CHUNK, CHUNK, 1]
    copied = io.BytesIO()
    copy(tmp_path / "file", copied)
    assert copied.getvalue() == b"x" * (2 * CHUNK + 1)


def test_error_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output error: '/proc/self/mem'"):
        list(chunks(BROKEN))
    with pytest.raises(FileNotFoundError, match="/none'"):
        list(chunks(tmp_path / "none"))


def test_lines_have_the_files_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1\n2\n")
    (tmp_path / "b").write_bytes(b"3")
    lines = io.BytesIO()
    with pytest.raises(FileNotFoundError):
        write_lines([tmp_path / name for name in ("a", "gone", "b")], tmp_path, lines)
    assert lines.getvalue() == b"a:1\na:2\nb:3\n"


def fail(*errors: OSError | ValueError) -> None:
    with Problems() as problems:
        for error in errors:
            with problems.kept():
                raise error


def test_only_errors_of_files_are_kept_for_later() -> None:
    with pytest.raises(OSError, match=r"^first, and 1 more$"):
        fail(OSError("first"), OSError("second"))
    with pytest.raises(ValueError, match="a bug"):
        fail(OSError("first"), ValueError("a bug"))

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the vmcore package share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.vmcore_rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    (tmp_path / "target").mkdir()
    with Rig(tmp_path / "target") as rig:
        yield rig

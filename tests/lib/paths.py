# SPDX-License-Identifier: LGPL-2.1-or-later
"""The directories of the checkout."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DATA_DIRECTORY = ROOT / "tests" / "data"

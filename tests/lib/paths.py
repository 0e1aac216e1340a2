# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where things are in the checkout."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DATA_DIRECTORY = ROOT / "tests" / "data"

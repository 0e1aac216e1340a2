# SPDX-License-Identifier: LGPL-2.1-or-later
"""``make torture``: all campaigns, one after the other; fails when one does."""

import subprocess
import sys

CAMPAIGNS = ("sigkill", "faults", "hostile", "soak")


def main() -> None:
    """Run them all, whatever becomes of the first."""
    commands = [[sys.executable, "-m", f"tests.torture.{name}"] for name in CAMPAIGNS]
    statuses = [subprocess.run(command, check=False).returncode for command in commands]
    sys.exit(any(statuses))


if __name__ == "__main__":
    main()
